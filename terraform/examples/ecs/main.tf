# A key, a role and a task definition for a service on ECS.
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

variable "image" {
  description = "Image of the service."
  type        = string
  default     = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/shop:1"
}

module "kms" {
  source = "../../aws-kms"

  alias          = "shop-ecs"
  environment    = "production"
  context_values = { purpose = ["pii"] }
  key_deleters   = var.key_deleters

  create_iam_role    = true
  service_principals = ["ecs-tasks.amazonaws.com"]
}

resource "aws_ecs_task_definition" "this" {
  family                   = "shop"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  task_role_arn            = module.kms.iam_role_arn

  container_definitions = jsonencode([{
    name        = "shop"
    image       = var.image
    essential   = true
    environment = [for name, value in module.kms.encx_env : { name = name, value = value }]
    # encx writes nothing to the disk.
    readonlyRootFilesystem = true
  }])
}

output "encx_env" {
  value = module.kms.encx_env
}

output "encx_config" {
  value = module.kms.encx_config
}
