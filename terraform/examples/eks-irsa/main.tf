# A key and a role for a service on EKS, which takes the role by its service account (IRSA).
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

variable "oidc_provider_arn" {
  description = "OIDC provider of the cluster."
  type        = string
  default     = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
}

module "kms" {
  source = "../../aws-kms"

  alias          = "shop-irsa"
  environment    = "production"
  context_values = { purpose = ["pii"] }
  key_deleters   = var.key_deleters

  create_iam_role       = true
  oidc_provider_arn     = var.oidc_provider_arn
  oidc_service_accounts = ["shop:api"]
}

# For kubectl apply.
output "manifests" {
  value = join("---\n", [
    yamlencode({
      apiVersion = "v1"
      kind       = "ServiceAccount"
      metadata = {
        namespace   = "shop"
        name        = "api"
        annotations = { "eks.amazonaws.com/role-arn" = module.kms.iam_role_arn }
      }
    }),
    yamlencode({
      apiVersion = "v1"
      kind       = "ConfigMap"
      metadata   = { namespace = "shop", name = "encx" }
      data       = module.kms.encx_env
    }),
  ])
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
