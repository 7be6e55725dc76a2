data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  alias_name = "alias/${trimprefix(var.alias, "alias/")}"
  # The same as `provision` of encx-aws writes, so that both create the same key.
  description = coalesce(var.description, "KEK of encx, ${local.alias_name}")
  tags = {
    for key, value in merge({ encx = "kek", Environment = var.environment }, var.tags) : key => value if value != null
  }
  # A role's name takes no slash, and at most 64 characters.
  role_name = coalesce(
    var.iam_role_name,
    substr(replace(join("-", compact([trimprefix(local.alias_name, "alias/"), var.environment])), "/", "-"), 0, 64)
  )
}

resource "aws_kms_key" "this" {
  #checkov:skip=CKV_AWS_7:rotation is on by default; checkov does not see through the values of a map, as aws-kms-keyring has them
  count = var.create ? 1 : 0

  description             = local.description
  policy                  = local.key_policy_json
  enable_key_rotation     = var.enable_key_rotation
  rotation_period_in_days = var.enable_key_rotation ? var.rotation_period_in_days : null
  deletion_window_in_days = var.deletion_window_in_days
  multi_region            = var.multi_region
  tags                    = local.tags

  lifecycle {
    # Known only to Terraform and never set; after an import it would show as a change.
    ignore_changes = [bypass_policy_lockout_safety_check]

    precondition {
      condition     = length(local.key_policy_json) <= 32768
      error_message = "The key policy is longer than the 32768 characters that AWS KMS takes. Name fewer principals or context_values: values of one pair, such as purpose, instead of every tenant."
    }
  }
}

resource "aws_kms_alias" "this" {
  count = var.create ? 1 : 0

  name          = local.alias_name
  target_key_id = aws_kms_key.this[0].key_id
}

resource "aws_iam_role" "this" {
  count = var.create && var.create_iam_role ? 1 : 0

  name                 = local.role_name
  description          = "Uses the key ${local.alias_name}"
  assume_role_policy   = local.trust_policy_json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
}

data "aws_iam_role" "attached" {
  count = var.create && var.attach_to_role ? 1 : 0

  name = var.iam_role_name
}

resource "aws_iam_role_policy" "this" {
  count = var.create && (var.create_iam_role || var.attach_to_role) ? 1 : 0

  name   = "encx-${replace(trimprefix(local.alias_name, "alias/"), "/", "-")}"
  role   = var.create_iam_role ? aws_iam_role.this[0].name : data.aws_iam_role.attached[0].name
  policy = var.iam_role_lifecycle ? local.lifecycle_policy_json : local.service_policy_json

  lifecycle {
    # The ARN of a key that does not exist yet is unknown, so only the condition is measured.
    precondition {
      condition     = length(jsonencode(local.condition)) <= 9000
      error_message = "The role's policy would be longer than the 10240 characters that IAM takes. Write fewer context_values."
    }
  }
}

check "has_users" {
  assert {
    condition = (
      !var.create || var.let_identity_policies_decide || var.allow_cloudwatch_logs || var.create_iam_role || var.attach_to_role
      || length(concat(var.users, var.service_role_arns, var.lifecycle_users, var.allow_services)) > 0
    )
    error_message = "No identity may use this key. Name users, service_role_arns or a role, or write let_identity_policies_decide = true."
  }
}
