# One key with the same material in two regions, for a service that runs in both.
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

provider "aws" {
  alias  = "ireland"
  region = "eu-west-1"
}

locals {
  # The same in every region: each replica opens what any other wrapped.
  context_values = { purpose = ["pii"] }
}

module "kms" {
  source = "../../aws-kms"

  alias           = "shop-global"
  environment     = "production"
  context_values  = local.context_values
  multi_region    = true
  replica_regions = ["eu-west-1"]
  key_deleters    = var.key_deleters

  create_iam_role    = true
  service_principals = ["ecs-tasks.amazonaws.com"]
}

module "ireland" {
  source    = "../../aws-kms-replica"
  providers = { aws = aws.ireland }

  primary_key_arn   = module.kms.key_arn
  alias             = "shop-global"
  environment       = "production"
  context_values    = local.context_values
  service_role_arns = [module.kms.iam_role_arn]
  key_deleters      = var.key_deleters
}

output "encx_env_ireland" {
  value = module.ireland.encx_env
}

output "encx_config_ireland" {
  value = module.ireland.encx_config
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
