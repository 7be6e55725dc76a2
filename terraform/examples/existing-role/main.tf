# A key for a service with an existing role.
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

variable "role_name" {
  description = "Name of the service's role in this account."
  type        = string
  default     = "shop"
}

module "kms" {
  source = "../../aws-kms"

  alias          = "shop-pii"
  environment    = "production"
  context_values = { purpose = ["pii"] }
  key_deleters   = var.key_deleters

  # The role gets an identity policy, and the key's policy names it.
  attach_to_role = true
  iam_role_name  = var.role_name
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}

output "validation_commands" {
  value = module.kms.validation_commands
}
