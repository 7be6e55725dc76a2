# Policies, with the text of `encx_aws::policy`: tests/policies.tftest.hcl compares both.
#
# They use jsonencode instead of aws_iam_policy_document, so that tests with a mocked provider see them.

locals {
  # A role or user by its name; no wildcard and no account.
  principal_pattern = "^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[a-zA-Z0-9+=,.@_/-]+$"

  # Principals that manage the key, and so may not use it.
  managers = toset(concat(var.administrators, var.kms_key_owners, var.key_deleters))

  # Services that call KMS in their own name, and those that call it with the rights of the identity that calls them.
  calling_services = ["cloudtrail", "cloudwatch", "events", "s3", "sns"]
  via_services     = ["dynamodb", "lambda", "secretsmanager", "sqs"]
  # Of the latter, those that keep using the key by a grant after the call.
  granted_services = ["dynamodb", "lambda"]

  service_actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
  lifecycle_actions = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
  # It has no encryption context, and so cannot be subject to conditions on it.
  describe_actions = ["kms:DescribeKey"]
  key_admin_actions = [
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ReplicateKey",
    "kms:RotateKeyOnDemand",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
    "kms:UpdatePrimaryRegion",
  ]
  alias_actions   = ["kms:CreateAlias", "kms:UpdateAlias"]
  admin_actions   = sort(concat(local.key_admin_actions, local.alias_actions))
  auditor_actions = ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"]
  owner_actions   = sort(concat(local.admin_actions, ["kms:DeleteAlias", "kms:DisableKeyRotation"]))
  deleter_actions = ["kms:DeleteAlias", "kms:DescribeKey", "kms:ScheduleKeyDeletion"]

  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id
  root      = "arn:${local.partition}:iam::${local.account}:root"

  role_arns       = concat(aws_iam_role.this[*].arn, data.aws_iam_role.attached[*].arn)
  users           = sort(distinct(concat(var.users, var.service_role_arns, var.iam_role_lifecycle ? [] : local.role_arns)))
  lifecycle_users = sort(distinct(concat(var.lifecycle_users, var.iam_role_lifecycle ? local.role_arns : [])))
  has_users       = length(local.users) > 0
  has_lifecycle   = length(local.lifecycle_users) > 0

  context = (
    !var.enforce_encryption_context ? tomap({})
    : length(var.context_values) > 0 ? var.context_values
    : tomap({ "encx:v" = ["1"] })
  )
  condition = { StringEquals = { for key, values in local.context : "kms:EncryptionContext:${key}" => values } }

  key_policy_statements = [
    for statement in [
      # Always there, so that the account cannot be locked out of its key.
      {
        Sid       = "EncxAccountAdministers"
        Effect    = "Allow"
        Principal = { AWS = [local.root] }
        Action    = local.admin_actions
        Resource  = "*"
      },
      !var.let_identity_policies_decide || var.enforce_encryption_context ? null : {
        Sid       = "EncxIdentityPoliciesDecide"
        Effect    = "Allow"
        Principal = { AWS = [local.root] }
        Action    = sort(concat(local.lifecycle_actions, local.describe_actions))
        Resource  = "*"
      },
      length(var.administrators) == 0 ? null : {
        Sid       = "EncxAdministrators"
        Effect    = "Allow"
        Principal = { AWS = sort(distinct(var.administrators)) }
        Action    = local.admin_actions
        Resource  = "*"
      },
      length(var.auditors) == 0 ? null : {
        Sid       = "EncxAuditors"
        Effect    = "Allow"
        Principal = { AWS = sort(distinct(var.auditors)) }
        Action    = local.auditor_actions
        Resource  = "*"
      },
      !local.has_users || var.enforce_encryption_context ? null : {
        Sid       = "EncxUsers"
        Effect    = "Allow"
        Principal = { AWS = local.users }
        Action    = sort(concat(local.service_actions, local.describe_actions))
        Resource  = "*"
      },
      !local.has_lifecycle || var.enforce_encryption_context ? null : {
        Sid       = "EncxLifecycleUsers"
        Effect    = "Allow"
        Principal = { AWS = local.lifecycle_users }
        Action    = sort(concat(local.lifecycle_actions, local.describe_actions))
        Resource  = "*"
      },
      !local.has_users || !var.enforce_encryption_context ? null : {
        Sid       = "EncxUsersWhere1"
        Effect    = "Allow"
        Principal = { AWS = local.users }
        Action    = local.service_actions
        Resource  = "*"
        Condition = local.condition
      },
      # The following statements are not in `encx_aws::policy::KeyPolicy`.
      !local.has_lifecycle || !var.enforce_encryption_context ? null : {
        Sid       = "EncxLifecycleUsersWhere1"
        Effect    = "Allow"
        Principal = { AWS = local.lifecycle_users }
        Action    = local.lifecycle_actions
        Resource  = "*"
        Condition = local.condition
      },
      !(local.has_users || local.has_lifecycle) || !var.enforce_encryption_context ? null : {
        Sid       = "EncxUsersWhereDescribe"
        Effect    = "Allow"
        Principal = { AWS = sort(distinct(concat(local.users, local.lifecycle_users))) }
        Action    = local.describe_actions
        Resource  = "*"
      },
      # The first statement already lets the account describe its key.
      !var.let_identity_policies_decide || !var.enforce_encryption_context ? null : {
        Sid       = "EncxIdentityPoliciesDecideWhere1"
        Effect    = "Allow"
        Principal = { AWS = [local.root] }
        Action    = local.lifecycle_actions
        Resource  = "*"
        Condition = local.condition
      },
      length(var.kms_key_owners) == 0 ? null : {
        Sid       = "EncxOwners"
        Effect    = "Allow"
        Principal = { AWS = sort(distinct(var.kms_key_owners)) }
        Action    = local.owner_actions
        Resource  = "*"
      },
      length(var.key_deleters) == 0 ? null : {
        Sid       = "EncxDeleters"
        Effect    = "Allow"
        Principal = { AWS = sort(distinct(var.key_deleters)) }
        Action    = local.deleter_actions
        Resource  = "*"
      },
      !var.allow_cloudwatch_logs ? null : {
        Sid       = "EncxCloudWatchLogs"
        Effect    = "Allow"
        Principal = { Service = "logs.${local.region}.${data.aws_partition.current.dns_suffix}" }
        Action    = sort(concat(local.lifecycle_actions, local.describe_actions))
        Resource  = "*"
        # Its context names the log group. Without the pair the condition does not hold.
        Condition = {
          ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:*" }
        }
      },
      length(local.called_by) == 0 ? null : {
        Sid       = "EncxServices"
        Effect    = "Allow"
        Principal = { Service = [for name in local.called_by : "${name}.amazonaws.com"] }
        Action    = sort(concat(local.service_actions, local.describe_actions))
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      # AWS supports no aws:SourceAccount and aws:SourceArn for EventBridge here, but the context names the topic:
      # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
      length(local.publishing) == 0 ? null : {
        Sid       = "EncxTopicPublishers"
        Effect    = "Allow"
        Principal = { Service = [for name in local.publishing : "${name}.amazonaws.com"] }
        Action    = sort(concat(local.service_actions, local.describe_actions))
        Resource  = "*"
        Condition = {
          ArnLike = { "kms:EncryptionContext:aws:sns:topicArn" = "arn:${local.partition}:sns:${local.region}:${local.account}:*" }
        }
      },
      # CloudTrail is documented to name the trail, not the account.
      !contains(var.allow_services, "cloudtrail") ? null : {
        Sid       = "EncxCloudTrail"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = sort(concat(local.service_actions, local.describe_actions))
        Resource  = "*"
        Condition = { ArnLike = { "aws:SourceArn" = "arn:${local.partition}:cloudtrail:*:${local.account}:trail/*" } }
      },
      # The caller's identity policy must allow it, too.
      length(local.called_via) == 0 ? null : {
        Sid       = "EncxThroughServices"
        Effect    = "Allow"
        Principal = { AWS = [local.root] }
        Action    = sort(concat(local.lifecycle_actions, local.describe_actions))
        Resource  = "*"
        Condition = {
          StringEquals = {
            "kms:CallerAccount" = local.account
            "kms:ViaService"    = [for name in local.called_via : "${name}.${local.region}.${data.aws_partition.current.dns_suffix}"]
          }
        }
      },
      length(local.granted_to) == 0 ? null : {
        Sid       = "EncxGrantsThroughServices"
        Effect    = "Allow"
        Principal = { AWS = [local.root] }
        Action    = ["kms:CreateGrant"]
        Resource  = "*"
        Condition = {
          Bool = { "kms:GrantIsForAWSResource" = "true" }
          StringEquals = {
            "kms:CallerAccount" = local.account
            "kms:ViaService"    = [for name in local.granted_to : "${name}.${local.region}.${data.aws_partition.current.dns_suffix}"]
          }
        }
      },
    ] : statement if statement != null
  ]

  called_by  = sort(setintersection(var.allow_services, ["s3", "sns"]))
  publishing = sort(setintersection(var.allow_services, ["cloudwatch", "events"]))
  called_via = sort(setintersection(var.allow_services, local.via_services))
  granted_to = sort(setintersection(var.allow_services, local.granted_services))

  key_policy_json = jsonencode({ Version = "2012-10-17", Statement = local.key_policy_statements })

  # Identity policies, for the role here and for roles that are managed elsewhere.
  key_arn = one(aws_kms_key.this[*].arn)
  key_arns = local.key_arn == null ? [] : sort(distinct(concat(
    [local.key_arn],
    [for region in var.replica_regions : replace(local.key_arn, ":${local.region}:", ":${region}:")],
  )))
  use_statements = { for kind, actions in { service = local.service_actions, lifecycle = local.lifecycle_actions } : kind => [
    for statement in [
      var.enforce_encryption_context ? null : {
        Sid      = "EncxUseKeys"
        Effect   = "Allow"
        Action   = actions
        Resource = local.key_arns
      },
      !var.enforce_encryption_context ? null : {
        Sid       = "EncxUseKeys"
        Effect    = "Allow"
        Action    = actions
        Resource  = local.key_arns
        Condition = local.condition
      },
      {
        Sid      = "EncxDescribeKeys"
        Effect   = "Allow"
        Action   = local.describe_actions
        Resource = local.key_arns
      },
    ] : statement if statement != null
  ] }
  service_policy_json   = jsonencode({ Version = "2012-10-17", Statement = local.use_statements.service })
  lifecycle_policy_json = jsonencode({ Version = "2012-10-17", Statement = local.use_statements.lifecycle })

  auditor_policy_json = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "EncxAuditKeys"
      Effect   = "Allow"
      Action   = local.auditor_actions
      Resource = local.key_arns
    }]
  })

  any_key   = "arn:${local.partition}:kms:*:${local.account}:key/*"
  any_alias = "arn:${local.partition}:kms:*:${local.account}:alias/*"
  administrator_policy_json = jsonencode({
    Version = "2012-10-17"
    Statement = [
      # There is no key yet to name, and lists cover all keys.
      {
        Sid      = "EncxCreateKeys"
        Effect   = "Allow"
        Action   = ["kms:CreateKey", "kms:ListAliases", "kms:ListKeys"]
        Resource = "*"
      },
      {
        Sid      = "EncxAdministerKeys"
        Effect   = "Allow"
        Action   = local.key_admin_actions
        Resource = local.any_key
      },
      {
        Sid      = "EncxAliases"
        Effect   = "Allow"
        Action   = local.alias_actions
        Resource = [local.any_key, local.any_alias]
      },
      # AWS KMS creates this role with the first multi-region key of an account, to synchronize replicas.
      {
        Sid       = "EncxMultiRegionKeys"
        Effect    = "Allow"
        Action    = "iam:CreateServiceLinkedRole"
        Resource  = "arn:${local.partition}:iam::${local.account}:role/aws-service-role/mrk.kms.amazonaws.com/*"
        Condition = { StringEquals = { "iam:AWSServiceName" = "mrk.kms.amazonaws.com" } }
      },
    ]
  })

  # Principals of the new role. These services send the account for which they assume it; for others that is not documented, so the
  # condition applies only if it is sent.
  says_its_account = ["ecs-tasks.amazonaws.com", "lambda.amazonaws.com", "pods.eks.amazonaws.com"]
  strict_services  = sort(setsubtract(setintersection(var.service_principals, local.says_its_account), ["pods.eks.amazonaws.com"]))
  lenient_services = sort(setsubtract(var.service_principals, local.says_its_account))
  oidc_issuer      = var.oidc_provider_arn == null ? "" : replace(var.oidc_provider_arn, "/^arn:[^/]+:oidc-provider//", "")
  trust_policy_json = jsonencode({
    Version = "2012-10-17"
    Statement = [
      for statement in [
        length(local.strict_services) == 0 ? null : {
          Sid       = "EncxServices"
          Effect    = "Allow"
          Principal = { Service = local.strict_services }
          Action    = ["sts:AssumeRole"]
          Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
        },
        length(local.lenient_services) == 0 ? null : {
          Sid       = "EncxOtherServices"
          Effect    = "Allow"
          Principal = { Service = local.lenient_services }
          Action    = ["sts:AssumeRole"]
          Condition = { StringEqualsIfExists = { "aws:SourceAccount" = local.account } }
        },
        # EKS Pod Identity tags its sessions.
        !contains(var.service_principals, "pods.eks.amazonaws.com") ? null : {
          Sid       = "EncxPods"
          Effect    = "Allow"
          Principal = { Service = ["pods.eks.amazonaws.com"] }
          Action    = ["sts:AssumeRole", "sts:TagSession"]
          Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
        },
        length(var.trusted_principals) == 0 ? null : {
          Sid       = "EncxTrusted"
          Effect    = "Allow"
          Principal = { AWS = sort(distinct(var.trusted_principals)) }
          Action    = ["sts:AssumeRole"]
          Condition = { StringEquals = { "sts:ExternalId" = var.external_id } }
        },
        var.oidc_provider_arn == null ? null : {
          Sid       = "EncxServiceAccounts"
          Effect    = "Allow"
          Principal = { Federated = var.oidc_provider_arn }
          Action    = ["sts:AssumeRoleWithWebIdentity"]
          Condition = {
            StringEquals = {
              "${local.oidc_issuer}:aud" = "sts.amazonaws.com"
              "${local.oidc_issuer}:sub" = [for name in sort(distinct(var.oidc_service_accounts)) : "system:serviceaccount:${name}"]
            }
          }
        },
      ] : statement if statement != null
    ]
  })
}
