# A key, a role and the settings of a Lambda function.
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

  alias          = "shop-lambda"
  environment    = "production"
  context_values = { purpose = ["pii"] }
  key_deleters   = var.key_deleters

  create_iam_role    = true
  service_principals = ["lambda.amazonaws.com"]
}

# Lambda sets AWS_REGION itself and refuses it as a setting, so it is left out:
# `role` and `environment { variables = … }` of an aws_lambda_function.
output "function" {
  value = {
    role        = module.kms.iam_role_arn
    environment = { for name, value in module.kms.encx_env : name => value if name != "AWS_REGION" }
  }
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
