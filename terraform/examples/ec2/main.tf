# A key and a role for a service on EC2 instances.
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

  alias          = "shop-ec2"
  environment    = "production"
  context_values = { purpose = ["pii"] }
  key_deleters   = var.key_deleters

  create_iam_role    = true
  service_principals = ["ec2.amazonaws.com"]
}

resource "aws_iam_instance_profile" "this" {
  name = module.kms.iam_role_name
  role = module.kms.iam_role_name
}

# For the instance's user data or its unit file.
output "environment_file" {
  value = join("\n", [for name, value in module.kms.encx_env : "${name}=${value}"])
}

output "instance_profile" {
  value = aws_iam_instance_profile.this.name
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
