# A key for each domain of a service, alarms on all of them, and a trail for an account that has none.
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
  source = "../../aws-kms-keyring"

  prefix      = "shop"
  environment = "staging"

  domains = {
    main     = {}
    messages = { allow_services = ["sns", "lambda"] }
    database = { purposes = ["pii", "billing"], allow_services = ["dynamodb"] }
    logs     = { allow_cloudwatch_logs = true, rotation_period_in_days = 365 }
  }

  service_role_arns = [aws_iam_role.shop.arn]
  key_deleters      = var.key_deleters
}

resource "aws_iam_role" "shop" {
  name = "shop-domains"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

module "alarms" {
  source = "../../aws-kms-alarms"

  name                 = "shop-staging"
  key_arns             = module.kms.key_arns
  create_trail         = true
  force_destroy_bucket = true
  key_deleters         = var.key_deleters
  # The namespace to which the CloudWatch agent writes the service's metrics.
  encx_namespace = "Shop"
}

output "key_arns" {
  value = module.kms.key_arns
}

output "monthly_cost_estimate" {
  value = module.kms.monthly_cost_estimate
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
