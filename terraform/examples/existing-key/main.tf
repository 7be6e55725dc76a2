# A key that `provision` of encx-aws created, imported into Terraform. The plan imports two resources and changes nothing.
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

variable "key_id" {
  description = "Id of the key: the last part of its ARN."
  type        = string
  default     = "1234abcd-12ab-34cd-56ef-1234567890ab"
}

variable "users" {
  description = "ARN that was passed to --user."
  type        = list(string)
  default     = ["arn:aws:iam::111122223333:role/shop"]
}

import {
  to = module.kms.aws_kms_key.this[0]
  id = var.key_id
}

import {
  to = module.kms.aws_kms_alias.this[0]
  id = "alias/shop-old"
}

module "kms" {
  source = "../../aws-kms"

  alias        = "shop-old"
  users        = var.users
  key_deleters = var.key_deleters

  # As `provision` created it. Set both after the import, each in a separate plan.
  enforce_encryption_context = false
  deletion_window_in_days    = null
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
