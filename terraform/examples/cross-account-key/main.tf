# A key in one account that a service of another account uses. Both sides must allow it: the key's policy names the role, and the role's
# policy names the key.
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

variable "service_account_role" {
  description = "Role that Terraform takes in the service's account."
  type        = string
  default     = "arn:aws:iam::444455556666:role/terraform"
}

variable "role_name" {
  description = "Name of the service's role in its account. AWS KMS refuses a policy that names a role which does not exist."
  type        = string
  default     = "shop"
}

provider "aws" {
  alias  = "service"
  region = "eu-central-1"

  assume_role {
    role_arn = var.service_account_role
  }
}

data "aws_iam_role" "service" {
  provider = aws.service
  name     = var.role_name
}

module "kms" {
  source = "../../aws-kms"

  alias             = "shop-shared"
  environment       = "production"
  context_values    = { purpose = ["pii"] }
  service_role_arns = [data.aws_iam_role.service.arn]
  key_deleters      = var.key_deleters
}

resource "aws_iam_role_policy" "service" {
  provider = aws.service

  name   = "encx"
  role   = data.aws_iam_role.service.name
  policy = module.kms.service_policy_json
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
