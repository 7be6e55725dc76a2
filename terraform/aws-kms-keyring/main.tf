data "aws_region" "current" {}

locals {
  # The same as in ../aws-kms.
  principal_pattern = "^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[a-zA-Z0-9+=,.@_/-]+$"

  region    = data.aws_region.current.id
  protected = contains(var.protected_environments, var.environment)
  # The default key serves purposes that no domain names, which no list of purposes can express.
  purposes = {
    for name, domain in var.domains : name => domain.purposes != null ? domain.purposes : name == var.default_domain ? [] : [name]
  }
}

module "key" {
  source   = "../aws-kms"
  for_each = var.domains

  create      = var.create
  alias       = "${var.prefix}-${var.environment}-${each.key}"
  environment = var.environment
  description = each.value.description

  enable_key_rotation     = each.value.enable_key_rotation
  rotation_period_in_days = each.value.rotation_period_in_days
  deletion_window_in_days = var.deletion_window_in_days != null ? var.deletion_window_in_days : local.protected ? 30 : 7
  multi_region            = var.multi_region
  replica_regions         = var.replica_regions

  administrators    = concat(var.administrators, each.value.administrators)
  kms_key_owners    = var.kms_key_owners
  key_deleters      = var.key_deleters
  auditors          = var.auditors
  users             = each.value.users
  service_role_arns = concat(var.service_role_arns, each.value.service_role_arns)
  lifecycle_users   = concat(var.lifecycle_users, each.value.lifecycle_users)

  enforce_encryption_context = var.enforce_encryption_context
  context_values = (
    var.enforce_encryption_context && length(local.purposes[each.key]) > 0 ? { purpose = local.purposes[each.key] } : {}
  )
  allow_services        = each.value.allow_services
  allow_cloudwatch_logs = each.value.allow_cloudwatch_logs

  cost_assumptions = var.cost_assumptions
  tags             = merge({ Domain = each.key }, var.tags, each.value.tags)
}
