# What each input does.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  primary_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
  alias           = "shop-pii"
  users           = ["arn:aws:iam::111122223333:role/shop"]
}

run "defaults" {
  assert {
    condition = (
      aws_kms_replica_key.this[0].primary_key_arn == "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
      && aws_kms_replica_key.this[0].policy == output.key_policy_json
      && aws_kms_replica_key.this[0].deletion_window_in_days == 30
      && aws_kms_replica_key.this[0].description == "KEK of encx, alias/shop-pii"
      && aws_kms_replica_key.this[0].tags == tomap({ encx = "kek" })
      && aws_kms_alias.this[0].name == "alias/shop-pii"
    )
    error_message = "The replica is otherwise."
  }

  assert {
    condition = (
      output.key_id == "mrk-1234abcd12ab34cd56ef1234567890ab"
      && output.key_arn == "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
      && output.alias_name == "alias/shop-pii"
      && output.alias_arn == "arn:aws:kms:eu-west-1:111122223333:alias/shop-pii"
      && output.encx_env == {
        AWS_REGION     = "eu-west-1"
        AWS_KMS_KEY_ID = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
        ENCX_KMS       = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
      }
      && output.monthly_cost_estimate.keys_usd == 1
      && alltrue([for command in values(output.validation_commands) : strcontains(command, "--region eu-west-1")])
    )
    error_message = "Outputs are others."
  }

  assert {
    condition     = output.encx_config == <<-TOML
      [kms.default]
      url = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
      regions = ["eu-west-1","eu-central-1"]

      [kek]
      default = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
    TOML
    error_message = "The part of encx.toml is another one."
  }

  assert {
    condition     = strcontains(output.key_policy_json, "\"kms:EncryptionContext:encx:v\":[\"1\"]")
    error_message = "No context is demanded."
  }
}

run "create" {
  variables {
    create = false
  }

  assert {
    condition     = length(aws_kms_replica_key.this) == 0 && length(aws_kms_alias.this) == 0 && output.encx_env == null && output.encx_config == null && output.key_id == null
    error_message = "Something was created."
  }
}

run "policy_of_its_region" {
  variables {
    environment             = "production"
    description             = "Replica"
    deletion_window_in_days = 7
    tags                    = { team = "shop", encx = null }
    administrators          = ["arn:aws:iam::111122223333:role/key-admin"]
    kms_key_owners          = ["arn:aws:iam::111122223333:role/terraform"]
    key_deleters            = ["arn:aws:iam::111122223333:role/terraform"]
    auditors                = ["arn:aws:iam::111122223333:role/auditor"]
    service_role_arns       = ["arn:aws:iam::111122223333:role/api"]
    lifecycle_users         = ["arn:aws:iam::111122223333:role/rewrap"]
    context_values          = { purpose = ["pii"] }
    allow_cloudwatch_logs   = true
    allow_services          = ["sqs"]
  }

  assert {
    condition = jsonencode([for statement in jsondecode(output.key_policy_json).Statement : statement.Sid]) == jsonencode([
      "EncxAccountAdministers", "EncxAdministrators", "EncxAuditors", "EncxUsersWhere1", "EncxLifecycleUsersWhere1", "EncxUsersWhereDescribe",
      "EncxOwners", "EncxDeleters", "EncxCloudWatchLogs", "EncxThroughServices",
    ])
    error_message = "The policy is another one."
  }

  assert {
    condition = (
      strcontains(output.key_policy_json, "logs.eu-west-1.amazonaws.com")
      && strcontains(output.key_policy_json, "sqs.eu-west-1.amazonaws.com")
      && !strcontains(output.key_policy_json, "eu-central-1")
      && aws_kms_replica_key.this[0].description == "Replica"
      && aws_kms_replica_key.this[0].deletion_window_in_days == 7
      && aws_kms_replica_key.this[0].tags == tomap({ Environment = "production", team = "shop" })
    )
    error_message = "The policy names services of another region, or the replica is otherwise."
  }
}

run "identity_policies_decide" {
  variables {
    users                        = []
    let_identity_policies_decide = true
    enforce_encryption_context   = false
  }

  assert {
    condition     = output.key_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/key-delegating.json")))
    error_message = "The policy is not that of encx_aws::policy."
  }
}
