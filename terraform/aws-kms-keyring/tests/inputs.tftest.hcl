# What each input does.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  prefix            = "shop"
  environment       = "staging"
  service_role_arns = ["arn:aws:iam::111122223333:role/shop"]
  domains           = { main = {}, messages = {} }
}

run "defaults" {
  assert {
    condition = jsonencode({ for name, key in output.keys : name => [key.alias_name, key.purposes] }) == jsonencode({
      main     = ["alias/shop-staging-main", []]
      messages = ["alias/shop-staging-messages", ["messages"]]
    })
    error_message = "Each domain has a key and an alias."
  }

  assert {
    condition = (
      strcontains(output.key_policies_json.main, "\"kms:EncryptionContext:encx:v\":[\"1\"]")
      && strcontains(output.key_policies_json.messages, "\"kms:EncryptionContext:purpose\":[\"messages\"]")
      && strcontains(output.service_policies_json.messages, "\"kms:EncryptionContext:purpose\":[\"messages\"]")
      && strcontains(output.key_policies_json.messages, "role/shop")
      && !strcontains(output.key_policies_json.messages, "ScheduleKeyDeletion")
    )
    error_message = "A key is used under other purposes than those of its domain."
  }

  assert {
    condition     = output.encx_config == <<-TOML
      [kms.default]
      url = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
      regions = ["eu-central-1"]

      [kek]
      default = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

      [[kek.for]]
      pair = "purpose"
      value = "messages"
      kek = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    TOML
    error_message = "The KEK rule is another one."
  }

  assert {
    condition = (
      output.encx_env.AWS_KMS_KEY_ID == output.key_arns.main
      && strcontains(output.validation_commands.messages.allowed, "purpose=messages")
      && output.deletion_protected == false
      && output.monthly_cost_estimate.keys_usd == 2
      && output.monthly_cost_estimate.calls == 633600
      && output.monthly_cost_estimate.requests_usd == 1.85
      && output.monthly_cost_estimate.total_usd_rotated_twice == 7.85
    )
    error_message = "Outputs are others."
  }
}

run "create" {
  variables {
    create = false
  }

  assert {
    condition     = output.key_arns.main == null && output.encx_config == null && output.encx_env == null && output.monthly_cost_estimate.total_usd == 0
    error_message = "Something was created."
  }
}

run "domains" {
  variables {
    default_domain = "database"
    domains = {
      database = { purposes = ["pii", "billing"], allow_services = ["dynamodb"] }
      messages = { allow_services = ["sns", "lambda"], users = ["arn:aws:iam::111122223333:user/mail"], description = "Mail", tags = { cost = "mail" } }
      logs     = { allow_cloudwatch_logs = true, rotation_period_in_days = 365, administrators = ["arn:aws:iam::111122223333:role/log-admin"] }
      archive  = { enable_key_rotation = false, service_role_arns = ["arn:aws:iam::111122223333:role/archive"], lifecycle_users = ["arn:aws:iam::111122223333:role/move"] }
    }
  }

  assert {
    condition = (
      strcontains(output.key_policies_json.database, "dynamodb.eu-central-1.amazonaws.com")
      && strcontains(output.key_policies_json.database, "\"kms:EncryptionContext:purpose\":[\"pii\",\"billing\"]")
      && strcontains(output.key_policies_json.messages, "sns.amazonaws.com")
      && strcontains(output.key_policies_json.messages, "lambda.eu-central-1.amazonaws.com")
      && strcontains(output.key_policies_json.messages, "user/mail")
      && strcontains(output.key_policies_json.logs, "logs.eu-central-1.amazonaws.com")
      && strcontains(output.key_policies_json.logs, "role/log-admin")
      && !strcontains(output.key_policies_json.messages, "role/log-admin")
      && strcontains(output.key_policies_json.archive, "role/archive")
      && strcontains(output.key_policies_json.archive, "EncxLifecycleUsersWhere1")
    )
    error_message = "A domain's key has another policy."
  }

  assert {
    condition = (
      length(regexall("\\[\\[kek\\.for\\]\\]", output.encx_config)) == 5
      && output.monthly_cost_estimate.total_usd_rotated_twice == output.monthly_cost_estimate.total_usd + 6
    )
    error_message = "The KEK rule lacks a purpose, or a key that does not rotate costs material."
  }
}

run "protected" {
  variables {
    environment     = "production"
    administrators  = ["arn:aws:iam::111122223333:role/key-admin"]
    kms_key_owners  = ["arn:aws:iam::111122223333:role/terraform"]
    auditors        = ["arn:aws:iam::111122223333:role/auditor"]
    lifecycle_users = ["arn:aws:iam::111122223333:role/rewrap"]
    multi_region    = true
    replica_regions = ["eu-west-1"]
    tags            = { team = "shop" }
  }

  assert {
    condition = (
      output.deletion_protected
      && alltrue([for policy in values(output.key_policies_json) : strcontains(policy, "role/key-admin") && strcontains(policy, "EncxOwners") && strcontains(policy, "EncxAuditors") && strcontains(policy, "role/rewrap")])
      && strcontains(output.encx_config, "regions = [\"eu-central-1\",\"eu-west-1\"]")
    )
    error_message = "What holds for all domains does not, or production is not protected."
  }
}

run "unprotected" {
  variables {
    environment                = "production"
    protected_environments     = ["live"]
    key_deleters               = ["arn:aws:iam::111122223333:role/terraform"]
    deletion_window_in_days    = 14
    enforce_encryption_context = false
    cost_assumptions           = { tenants = 1, processes = 1 }
  }

  assert {
    condition = (
      !output.deletion_protected
      && alltrue([for policy in values(output.key_policies_json) : strcontains(policy, "EncxDeleters") && !strcontains(policy, "Condition")])
      && output.monthly_cost_estimate.requests_usd == 0
    )
    error_message = "The keys cannot be destroyed, or a purpose is demanded."
  }
}
