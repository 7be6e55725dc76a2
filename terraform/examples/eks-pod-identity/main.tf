# A key and a role for a service on EKS, which takes the role by EKS Pod Identity.
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

variable "cluster_name" {
  description = "Cluster that has the Pod Identity agent."
  type        = string
  default     = "shop"
}

module "kms" {
  source = "../../aws-kms"

  alias          = "shop-pods"
  environment    = "production"
  context_values = { purpose = ["pii"] }
  key_deleters   = var.key_deleters

  create_iam_role    = true
  service_principals = ["pods.eks.amazonaws.com"]
}

resource "aws_eks_pod_identity_association" "this" {
  cluster_name    = var.cluster_name
  namespace       = "shop"
  service_account = "api"
  role_arn        = module.kms.iam_role_arn
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
