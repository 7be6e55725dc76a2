data "aws_region" "current" {}

locals {
  # The same as in ../aws-kms.
  principal_pattern = "^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[a-zA-Z0-9+=,.@_/-]+$"
  managers          = toset(concat(var.administrators, var.kms_key_owners, var.key_deleters))
  services          = ["cloudtrail", "cloudwatch", "dynamodb", "events", "lambda", "s3", "secretsmanager", "sns", "sqs"]

  region         = data.aws_region.current.id
  primary_region = split(":", var.primary_key_arn)[3]
  alias_name     = "alias/${trimprefix(var.alias, "alias/")}"
  key_arn        = one(aws_kms_replica_key.this[*].arn)
}

# Creates only the policy for this region: a replica does not share the primary's.
module "policy" {
  source = "../aws-kms"

  create                       = false
  alias                        = var.alias
  administrators               = var.administrators
  kms_key_owners               = var.kms_key_owners
  key_deleters                 = var.key_deleters
  auditors                     = var.auditors
  users                        = var.users
  service_role_arns            = var.service_role_arns
  lifecycle_users              = var.lifecycle_users
  let_identity_policies_decide = var.let_identity_policies_decide
  enforce_encryption_context   = var.enforce_encryption_context
  context_values               = var.context_values
  allow_cloudwatch_logs        = var.allow_cloudwatch_logs
  allow_services               = var.allow_services
}

# Rotation is set on the primary and applies to all replicas.
resource "aws_kms_replica_key" "this" {
  count = var.create ? 1 : 0

  primary_key_arn         = var.primary_key_arn
  description             = coalesce(var.description, "KEK of encx, ${local.alias_name}")
  policy                  = module.policy.key_policy_json
  deletion_window_in_days = var.deletion_window_in_days
  tags = {
    for key, value in merge({ encx = "kek", Environment = var.environment }, var.tags) : key => value if value != null
  }

  lifecycle {
    # Known only to Terraform and never set; after an import it would show as a change.
    ignore_changes = [bypass_policy_lockout_safety_check]

    precondition {
      condition     = local.region != local.primary_region
      error_message = "The provider is one of the primary's own region. Write providers = { aws = aws.… } with a provider of another region."
    }
    precondition {
      condition     = length(module.policy.key_policy_json) <= 32768
      error_message = "The key policy is longer than the 32768 characters that AWS KMS takes. Name fewer principals or context_values."
    }
  }
}

# Aliases are not replicated, either.
resource "aws_kms_alias" "this" {
  count = var.create ? 1 : 0

  name          = local.alias_name
  target_key_id = aws_kms_replica_key.this[0].key_id
}
