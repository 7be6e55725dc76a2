# A key and a role in one account; a service of another account takes the role, with an external id.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 7.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

variable "key_deleters" {
  description = "Roles that may delete the key. Name the one that runs Terraform here before `terraform destroy`; leave it empty in production."
  type        = list(string)
  default     = []
}

module "kms" {
  source = "../../aws-kms"

  alias          = "shop-partner"
  environment    = "production"
  context_values = { purpose = ["pii"], tenantId = ["t-42"] }
  key_deleters   = var.key_deleters

  create_iam_role    = true
  trusted_principals = ["arn:aws:iam::444455556666:root"]
  # One value per partner, which you give to the partner.
  external_id = "shop-partner-7f3a"
}

# A profile in the partner's ~/.aws/config; AWS_PROFILE=shop then.
output "profile" {
  value = <<-INI
    [profile shop]
    role_arn = ${module.kms.iam_role_arn}
    external_id = shop-partner-7f3a
    credential_source = Ec2InstanceMetadata
    region = ${module.kms.encx_env.AWS_REGION}
  INI
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
