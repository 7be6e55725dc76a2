# What each input does.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  alias = "shop-pii"
  users = ["arn:aws:iam::111122223333:role/shop"]
}

run "defaults" {
  assert {
    condition = (
      aws_kms_key.this[0].enable_key_rotation
      && aws_kms_key.this[0].rotation_period_in_days == 90
      && aws_kms_key.this[0].deletion_window_in_days == 30
      && aws_kms_key.this[0].multi_region == false
      && aws_kms_key.this[0].description == "KEK of encx, alias/shop-pii"
      && aws_kms_key.this[0].tags == tomap({ encx = "kek" })
      && aws_kms_alias.this[0].name == "alias/shop-pii"
      && length(aws_iam_role.this) == 0
      && length(aws_iam_role_policy.this) == 0
    )
    error_message = "Defaults are not what provision makes."
  }

  assert {
    condition = (
      output.key_id == "1234abcd-12ab-34cd-56ef-1234567890ab"
      && output.key_arn == "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
      && output.alias_name == "alias/shop-pii"
      && output.alias_arn == "arn:aws:kms:eu-central-1:111122223333:alias/shop-pii"
      && output.iam_role_arn == null
      && output.iam_role_name == null
    )
    error_message = "Outputs do not name what was made."
  }

  assert {
    condition = output.encx_env == {
      AWS_REGION     = "eu-central-1"
      AWS_KMS_KEY_ID = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
      ENCX_KMS       = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    }
    error_message = "The environment does not name region and key."
  }

  assert {
    condition     = output.encx_config == <<-TOML
      [kms.default]
      url = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
      regions = ["eu-central-1"]

      [kek]
      default = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    TOML
    error_message = "The part of encx.toml is another one."
  }

  assert {
    condition = (
      strcontains(output.validation_commands.allowed, "--encryption-context 'encx:v=1'")
      && !strcontains(output.validation_commands.refused, "--encryption-context")
      && strcontains(output.validation_commands.alias, "--key-id alias/shop-pii")
      && alltrue([for command in values(output.validation_commands) : startswith(command, "aws kms ") && strcontains(command, "--region eu-central-1")])
    )
    error_message = "Commands do not check this key."
  }

  # As in providers/aws/README.md: 100 tenants, 4 processes, an hour: 0.90 USD plus the cost of a key.
  assert {
    condition = (
      output.monthly_cost_estimate.keys_usd == 1
      && output.monthly_cost_estimate.calls == 316800
      && output.monthly_cost_estimate.requests_usd == 0.9
      && output.monthly_cost_estimate.total_usd == 1.9
      && output.monthly_cost_estimate.total_usd_rotated_twice == 3.9
    )
    error_message = "The estimate is another one."
  }
}

run "create" {
  variables {
    create          = false
    create_iam_role = true

    service_principals = ["ecs-tasks.amazonaws.com"]
  }

  assert {
    condition = (
      length(aws_kms_key.this) == 0 && length(aws_kms_alias.this) == 0
      && length(aws_iam_role.this) == 0 && length(aws_iam_role_policy.this) == 0
    )
    error_message = "Something was created."
  }

  assert {
    condition = (
      output.key_id == null && output.key_arn == null && output.alias_arn == null && output.alias_name == null
      && output.iam_role_arn == null && output.iam_role_name == null && output.encx_env == null
      && output.encx_config == null && output.validation_commands == null
      && output.monthly_cost_estimate.total_usd_rotated_twice == 0
      && strcontains(output.key_policy_json, "role/shop")
    )
    error_message = "Outputs name what there is not, or no policy was rendered."
  }
}

run "alias_with_prefix" {
  variables {
    alias = "alias/shop/pii"
  }

  assert {
    condition     = aws_kms_alias.this[0].name == "alias/shop/pii" && aws_kms_key.this[0].description == "KEK of encx, alias/shop/pii"
    error_message = "The prefix alias/ counts once."
  }
}

run "settings_of_the_key" {
  variables {
    environment             = "production"
    description             = "Customers' data"
    rotation_period_in_days = 365
    deletion_window_in_days = 7
    multi_region            = true
    replica_regions         = ["eu-west-1", "eu-central-1"]
    tags                    = { team = "shop", encx = null }
  }

  assert {
    condition = (
      aws_kms_key.this[0].description == "Customers' data"
      && aws_kms_key.this[0].rotation_period_in_days == 365
      && aws_kms_key.this[0].deletion_window_in_days == 7
      && aws_kms_key.this[0].multi_region
      && aws_kms_key.this[0].tags == tomap({ Environment = "production", team = "shop" })
    )
    error_message = "The key is otherwise."
  }

  assert {
    condition     = strcontains(output.encx_config, "regions = [\"eu-central-1\",\"eu-west-1\"") && output.monthly_cost_estimate.keys_usd == 3
    error_message = "Replicas are left out."
  }
}

run "no_rotation" {
  variables {
    enable_key_rotation     = false
    deletion_window_in_days = null
  }

  assert {
    condition = (
      aws_kms_key.this[0].enable_key_rotation == false
      && aws_kms_key.this[0].deletion_window_in_days == null
      && output.monthly_cost_estimate.total_usd_rotated_once == output.monthly_cost_estimate.total_usd
    )
    error_message = "The key rotates."
  }
}

run "managers" {
  variables {
    administrators = ["arn:aws:iam::111122223333:role/key-admin"]
    kms_key_owners = ["arn:aws:iam::111122223333:role/terraform"]
    key_deleters   = ["arn:aws:iam::111122223333:role/terraform"]
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(output.key_policy_json).Statement : [statement.Sid, statement.Principal.AWS] if contains(statement.Action, "kms:PutKeyPolicy")
      ]) == jsonencode([
      ["EncxAccountAdministers", ["arn:aws:iam::111122223333:root"]],
      ["EncxAdministrators", ["arn:aws:iam::111122223333:role/key-admin"]],
      ["EncxOwners", ["arn:aws:iam::111122223333:role/terraform"]],
    ])
    error_message = "Others administer."
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(output.key_policy_json).Statement : statement.Sid if contains(statement.Action, "kms:ScheduleKeyDeletion")
    ]) == jsonencode(["EncxDeleters"])
    error_message = "Others than key_deleters delete."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(output.key_policy_json).Statement :
      contains(statement.Action, "kms:DisableKeyRotation") == (statement.Sid == "EncxOwners")
    ])
    error_message = "Others than owners switch rotation off."
  }
}

run "auditors" {
  variables {
    auditors = ["arn:aws:iam::111122223333:role/auditor"]
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(output.key_policy_json).Statement :
      [statement.Principal.AWS, statement.Action, try(statement.Condition, null)] if statement.Sid == "EncxAuditors"
      ]) == jsonencode([[
        ["arn:aws:iam::111122223333:role/auditor"],
        ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"],
        null,
    ]])
    error_message = "Auditors may do something else."
  }

  assert {
    condition = jsonencode(jsondecode(output.auditor_policy_json).Statement) == jsonencode([{
      Action   = ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"]
      Effect   = "Allow"
      Resource = ["arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]
      Sid      = "EncxAuditKeys"
    }])
    error_message = "The identity policy of auditors is another one."
  }
}

run "users_of_all_kinds" {
  variables {
    service_role_arns = ["arn:aws:iam::111122223333:role/api"]
    lifecycle_users   = ["arn:aws:iam::111122223333:role/rewrap"]
    context_values    = { purpose = ["pii", "billing"], tenantId = ["t-1"] }
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(output.key_policy_json).Statement :
      { sid = statement.Sid, who = statement.Principal.AWS, actions = statement.Action, when = try(statement.Condition, null) } if statement.Sid != "EncxAccountAdministers"
      ]) == jsonencode([
      {
        sid     = "EncxUsersWhere1"
        who     = ["arn:aws:iam::111122223333:role/api", "arn:aws:iam::111122223333:role/shop"]
        actions = ["kms:Decrypt", "kms:GenerateDataKey"]
        when    = { StringEquals = { "kms:EncryptionContext:purpose" = ["pii", "billing"], "kms:EncryptionContext:tenantId" = ["t-1"] } }
      },
      {
        sid     = "EncxLifecycleUsersWhere1"
        who     = ["arn:aws:iam::111122223333:role/rewrap"]
        actions = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
        when    = { StringEquals = { "kms:EncryptionContext:purpose" = ["pii", "billing"], "kms:EncryptionContext:tenantId" = ["t-1"] } }
      },
      {
        sid     = "EncxUsersWhereDescribe"
        who     = ["arn:aws:iam::111122223333:role/api", "arn:aws:iam::111122223333:role/rewrap", "arn:aws:iam::111122223333:role/shop"]
        actions = ["kms:DescribeKey"]
        when    = null
      },
    ])
    error_message = "The statements of users are others."
  }

  assert {
    condition     = strcontains(output.validation_commands.allowed, "--encryption-context 'purpose=pii,tenantId=t-1'")
    error_message = "The command lacks the context that the policy demands."
  }
}

run "no_context_enforced" {
  variables {
    enforce_encryption_context = false
  }

  assert {
    condition = (
      !strcontains(output.key_policy_json, "Condition")
      && output.validation_commands.refused == null
      && !strcontains(output.validation_commands.allowed, "--encryption-context")
    )
    error_message = "A context is demanded."
  }
}

run "identity_policies_decide" {
  variables {
    users                        = []
    let_identity_policies_decide = true
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(output.key_policy_json).Statement : statement.Sid
    ]) == jsonencode(["EncxAccountAdministers", "EncxIdentityPoliciesDecideWhere1"])
    error_message = "Identity policies do not decide."
  }
}

run "has_users" {
  variables {
    users = []
  }

  expect_failures = [check.has_users]
}

run "cloudwatch_logs" {
  variables {
    allow_cloudwatch_logs = true
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(output.key_policy_json).Statement : [statement.Principal, statement.Condition] if statement.Sid == "EncxCloudWatchLogs"
      ]) == jsonencode([[
        { Service = "logs.eu-central-1.amazonaws.com" },
        { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:eu-central-1:111122223333:log-group:*" } },
    ]])
    error_message = "CloudWatch Logs is not allowed, or not limited to this account's log groups."
  }
}

run "services" {
  variables {
    allow_services = ["sns", "cloudwatch", "events", "s3", "cloudtrail", "dynamodb", "lambda", "secretsmanager", "sqs"]
  }

  assert {
    condition = jsonencode({
      for statement in jsondecode(output.key_policy_json).Statement : statement.Sid => [statement.Principal, statement.Condition] if contains(
        ["EncxServices", "EncxTopicPublishers", "EncxCloudTrail", "EncxThroughServices", "EncxGrantsThroughServices"], statement.Sid
      )
      }) == jsonencode({
      EncxServices = [
        { Service = ["s3.amazonaws.com", "sns.amazonaws.com"] },
        { StringEquals = { "aws:SourceAccount" = "111122223333" } },
      ]
      EncxTopicPublishers = [
        { Service = ["cloudwatch.amazonaws.com", "events.amazonaws.com"] },
        { ArnLike = { "kms:EncryptionContext:aws:sns:topicArn" = "arn:aws:sns:eu-central-1:111122223333:*" } },
      ]
      EncxCloudTrail = [
        { Service = "cloudtrail.amazonaws.com" },
        { ArnLike = { "aws:SourceArn" = "arn:aws:cloudtrail:*:111122223333:trail/*" } },
      ]
      EncxThroughServices = [
        { AWS = ["arn:aws:iam::111122223333:root"] },
        { StringEquals = {
          "kms:CallerAccount" = "111122223333"
          "kms:ViaService" = [
            "dynamodb.eu-central-1.amazonaws.com", "lambda.eu-central-1.amazonaws.com",
            "secretsmanager.eu-central-1.amazonaws.com", "sqs.eu-central-1.amazonaws.com",
          ]
        } },
      ]
      EncxGrantsThroughServices = [
        { AWS = ["arn:aws:iam::111122223333:root"] },
        {
          Bool = { "kms:GrantIsForAWSResource" = "true" }
          StringEquals = {
            "kms:CallerAccount" = "111122223333"
            "kms:ViaService"    = ["dynamodb.eu-central-1.amazonaws.com", "lambda.eu-central-1.amazonaws.com"]
          }
        },
      ]
    })
    error_message = "Services are allowed otherwise."
  }
}

run "role_for_services" {
  variables {
    users                    = []
    environment              = "production"
    create_iam_role          = true
    service_principals       = ["ec2.amazonaws.com", "ecs-tasks.amazonaws.com", "lambda.amazonaws.com", "pods.eks.amazonaws.com"]
    permissions_boundary_arn = "arn:aws:iam::111122223333:policy/boundary"
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(aws_iam_role.this[0].assume_role_policy).Statement : [statement.Principal, statement.Action, statement.Condition]
      ]) == jsonencode([
      [{ Service = ["ecs-tasks.amazonaws.com", "lambda.amazonaws.com"] }, ["sts:AssumeRole"], { StringEquals = { "aws:SourceAccount" = "111122223333" } }],
      [{ Service = ["ec2.amazonaws.com"] }, ["sts:AssumeRole"], { StringEqualsIfExists = { "aws:SourceAccount" = "111122223333" } }],
      [{ Service = ["pods.eks.amazonaws.com"] }, ["sts:AssumeRole", "sts:TagSession"], { StringEquals = { "aws:SourceAccount" = "111122223333" } }],
    ])
    error_message = "Services take the role otherwise."
  }

  assert {
    condition = (
      aws_iam_role.this[0].name == "shop-pii-production"
      && aws_iam_role.this[0].permissions_boundary == "arn:aws:iam::111122223333:policy/boundary"
      && aws_iam_role_policy.this[0].role == "shop-pii-production"
      && aws_iam_role_policy.this[0].policy == output.service_policy_json
      && output.iam_role_arn == "arn:aws:iam::111122223333:role/new"
      && output.iam_role_name == "shop-pii-production"
      && strcontains(output.key_policy_json, "arn:aws:iam::111122223333:role/new")
    )
    error_message = "The role is not as it should be, or the key does not name it."
  }
}

run "role_of_a_name_across_accounts" {
  variables {
    create_iam_role    = true
    iam_role_name      = "shop"
    trusted_principals = ["arn:aws:iam::444455556666:role/deploy"]
    external_id        = "shop-7f3a"
    iam_role_lifecycle = true
  }

  assert {
    condition = jsonencode(jsondecode(aws_iam_role.this[0].assume_role_policy).Statement) == jsonencode([{
      Sid       = "EncxTrusted"
      Effect    = "Allow"
      Principal = { AWS = ["arn:aws:iam::444455556666:role/deploy"] }
      Action    = ["sts:AssumeRole"]
      Condition = { StringEquals = { "sts:ExternalId" = "shop-7f3a" } }
    }])
    error_message = "The other account takes the role without the external id."
  }

  assert {
    condition = (
      aws_iam_role.this[0].name == "shop"
      && aws_iam_role_policy.this[0].policy == output.lifecycle_policy_json
      && anytrue([for statement in jsondecode(output.key_policy_json).Statement : statement.Sid == "EncxLifecycleUsersWhere1" && contains(statement.Principal.AWS, "arn:aws:iam::111122223333:role/new")])
    )
    error_message = "The role may not rewrap."
  }
}

run "role_for_service_accounts" {
  variables {
    create_iam_role       = true
    oidc_provider_arn     = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
    oidc_service_accounts = ["shop:api"]
  }

  assert {
    condition = jsonencode(jsondecode(aws_iam_role.this[0].assume_role_policy).Statement[0].Condition) == jsonencode({
      StringEquals = {
        "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE:aud" = "sts.amazonaws.com"
        "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE:sub" = ["system:serviceaccount:shop:api"]
      }
    })
    error_message = "Other service accounts take the role."
  }
}

run "existing_role" {
  variables {
    users          = []
    attach_to_role = true
    iam_role_name  = "existing"
  }

  assert {
    condition = (
      length(aws_iam_role.this) == 0
      && aws_iam_role_policy.this[0].policy == output.service_policy_json
      && output.iam_role_arn == "arn:aws:iam::111122223333:role/existing"
      && strcontains(output.key_policy_json, "arn:aws:iam::111122223333:role/existing")
    )
    error_message = "The existing role does not get both its policies."
  }
}

run "cost" {
  variables {
    cost_assumptions = { tenants = 10, processes = 1 }
  }

  assert {
    condition     = output.monthly_cost_estimate.calls == 7920 && output.monthly_cost_estimate.requests_usd == 0
    error_message = "Calls that are free cost something."
  }
}
