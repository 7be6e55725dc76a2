# The policies are those of `encx_aws::policy`, whose rendered text is in providers/aws/tests/policies.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  alias = "shop-pii"
}

run "key" {
  variables {
    enforce_encryption_context = false
    administrators             = ["arn:aws:iam::111122223333:role/key-admin"]
    users                      = ["arn:aws:iam::111122223333:role/shop"]
    service_role_arns          = ["arn:aws:iam::111122223333:role/billing", "arn:aws:iam::111122223333:role/shop"]
    lifecycle_users            = ["arn:aws:iam::111122223333:role/rewrap"]
  }

  assert {
    condition     = output.key_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/key.json")))
    error_message = "The key policy is not that of encx_aws::policy::KeyPolicy."
  }

  assert {
    condition     = aws_kms_key.this[0].policy == output.key_policy_json
    error_message = "The key has another policy than the output."
  }

  assert {
    condition     = output.lifecycle_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/lifecycle.json")))
    error_message = "The lifecycle policy is not that of IdentityPolicy::lifecycle."
  }

  assert {
    condition     = output.administrator_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/administrator.json")))
    error_message = "The administrator policy is not that of IdentityPolicy::administrator."
  }
}

run "key_delegating" {
  variables {
    enforce_encryption_context   = false
    let_identity_policies_decide = true
  }

  assert {
    condition     = output.key_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/key-delegating.json")))
    error_message = "The key policy is not that of KeyPolicy::let_identity_policies_decide."
  }
}

# The module has one condition for all principals; KeyPolicy has one per list of pairs. So one statement is compared.
run "key_conditional" {
  variables {
    users          = ["arn:aws:iam::111122223333:role/audit", "arn:aws:iam::111122223333:role/logs"]
    context_values = { purpose = ["logs"], "encx:usage" = ["data"] }
  }

  assert {
    condition = (
      jsonencode([for statement in jsondecode(output.key_policy_json).Statement : statement if statement.Sid == "EncxUsersWhere1"])
      == jsonencode([
        for statement in jsondecode(file("../../providers/aws/tests/policies/key-conditional.json")).Statement :
        statement if statement.Sid == "EncxUsersWhere1"
      ])
    )
    error_message = "The statement is not that of KeyPolicy::user_where."
  }

  assert {
    condition = jsonencode([for statement in jsondecode(output.key_policy_json).Statement : statement.Sid]) == jsonencode(
      ["EncxAccountAdministers", "EncxUsersWhere1", "EncxUsersWhereDescribe"]
    )
    error_message = "Other statements than KeyPolicy::user_where makes."
  }
}

run "key_context" {
  variables {
    administrators  = ["arn:aws:iam::111122223333:role/key-admin"]
    auditors        = ["arn:aws:iam::111122223333:role/audit"]
    key_deleters    = ["arn:aws:iam::111122223333:role/terraform"]
    users           = ["arn:aws:iam::111122223333:role/shop"]
    lifecycle_users = ["arn:aws:iam::111122223333:role/rewrap"]
  }

  assert {
    condition = (
      jsonencode(jsondecode(output.key_policy_json).Statement)
      == jsonencode([
        for statement in jsondecode(file("../../providers/aws/tests/policies/key-context.json")).Statement :
        statement if statement.Sid != "EncxIdentityPoliciesDecideWhere1"
      ])
    )
    error_message = "The key policy is not that of KeyPolicy with ANY_CONTEXT_OF_ENCX."
  }

  assert {
    condition     = output.auditor_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/auditor.json")))
    error_message = "The auditor policy is not that of IdentityPolicy::auditor."
  }
}

run "key_context_of_the_account" {
  variables {
    let_identity_policies_decide = true
    context_values               = { purpose = ["pii", "billing"] }
  }

  assert {
    condition = (
      jsonencode([for statement in jsondecode(output.key_policy_json).Statement : statement if statement.Sid == "EncxIdentityPoliciesDecideWhere1"])
      == jsonencode([
        for statement in jsondecode(file("../../providers/aws/tests/policies/key-context.json")).Statement :
        statement if statement.Sid == "EncxIdentityPoliciesDecideWhere1"
      ])
    )
    error_message = "The statement is not that of KeyPolicy::let_identity_policies_decide_where."
  }
}

run "service_conditional" {
  variables {
    let_identity_policies_decide = true
    context_values               = { purpose = ["pii", "billing"], "encx:usage" = ["data"] }
  }

  assert {
    condition     = output.service_policy_json == jsonencode(jsondecode(file("../../providers/aws/tests/policies/service-conditional.json")))
    error_message = "The service policy is not that of IdentityPolicy::service with only_where."
  }
}

# The file has two keys of one region; a multi-region key has an ARN for each region.
run "service" {
  variables {
    let_identity_policies_decide = true
    enforce_encryption_context   = false
    multi_region                 = true
    replica_regions              = ["eu-west-1"]
  }

  assert {
    condition = output.service_policy_json == jsonencode({
      Version = "2012-10-17"
      Statement = [
        for statement in jsondecode(file("../../providers/aws/tests/policies/service.json")).Statement : merge(statement, {
          Resource = [
            "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
          ]
        })
      ]
    })
    error_message = "The service policy is not that of IdentityPolicy::service."
  }
}

# All inputs at once: statements that no policy of the module may have.
run "never" {
  variables {
    administrators               = ["arn:aws:iam::111122223333:role/key-admin"]
    auditors                     = ["arn:aws:iam::111122223333:role/auditor"]
    kms_key_owners               = ["arn:aws:iam::111122223333:role/terraform"]
    users                        = ["arn:aws:iam::111122223333:role/shop", "arn:aws:iam::444455556666:user/foreign"]
    lifecycle_users              = ["arn:aws:iam::111122223333:role/rewrap"]
    let_identity_policies_decide = true
    allow_cloudwatch_logs        = true
    allow_services               = ["cloudtrail", "cloudwatch", "dynamodb", "events", "lambda", "s3", "secretsmanager", "sns", "sqs"]
    create_iam_role              = true
    service_principals           = ["ec2.amazonaws.com"]
  }

  assert {
    condition = alltrue([
      for action in flatten([for policy in [
        output.key_policy_json, output.service_policy_json, output.lifecycle_policy_json, output.administrator_policy_json,
        output.auditor_policy_json,
        aws_iam_role.this[0].assume_role_policy, aws_iam_role_policy.this[0].policy,
      ] : [for statement in jsondecode(policy).Statement : statement.Action]]) :
      !strcontains(action, "*") && !contains(
        ["kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:DeleteImportedKeyMaterial", "kms:ImportKeyMaterial"], action
      )
    ])
    error_message = "An action has a wildcard, deletes or disables."
  }

  assert {
    condition     = length(regexall("ForAllValues|ForAnyValue|Deny|NotAction|NotPrincipal", output.key_policy_json)) == 0
    error_message = "ForAllValues passes where no context is sent; denials can lock out."
  }

  # Every statement that allows use has a condition, under any name.
  assert {
    condition = alltrue([
      for statement in jsondecode(output.key_policy_json).Statement : can(statement.Condition)
      if length(setintersection(statement.Action, ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:CreateGrant"])) > 0
    ])
    error_message = "The key can be used without a condition."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(output.key_policy_json).Statement :
      jsonencode(statement.Condition) == jsonencode({ StringEquals = { "kms:EncryptionContext:encx:v" = ["1"] } })
      if contains(["EncxUsersWhere1", "EncxLifecycleUsersWhere1", "EncxIdentityPoliciesDecideWhere1"], statement.Sid)
    ])
    error_message = "Without context_values, encx:v = 1 has to be demanded."
  }

  # No identity is on both sides except the account, whose root always administers and can delegate.
  assert {
    condition = length(setintersection(
      flatten([for statement in jsondecode(output.key_policy_json).Statement : statement.Principal.AWS if contains(statement.Action, "kms:PutKeyPolicy") && statement.Sid != "EncxAccountAdministers"]),
      flatten([for statement in jsondecode(output.key_policy_json).Statement : try(statement.Principal.AWS, []) if contains(statement.Action, "kms:Decrypt")])
    )) == 0
    error_message = "An identity both administers and uses the key."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(output.key_policy_json).Statement :
      length(setintersection(statement.Action, ["kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt"])) == 0
      if contains(statement.Action, "kms:PutKeyPolicy")
    ])
    error_message = "A statement both administers and uses."
  }

  # No lock-out: the account itself can always replace the policy.
  assert {
    condition = (
      jsondecode(output.key_policy_json).Statement[0].Principal.AWS[0] == "arn:aws:iam::111122223333:root"
      && contains(jsondecode(output.key_policy_json).Statement[0].Action, "kms:PutKeyPolicy")
      && !can(jsondecode(output.key_policy_json).Statement[0].Condition)
    )
    error_message = "The account could be locked out."
  }

  # Principals are named, except services.
  assert {
    condition = alltrue([
      for statement in jsondecode(output.key_policy_json).Statement :
      alltrue([for name in try(statement.Principal.AWS, []) : startswith(name, "arn:aws:iam::")]) && statement.Effect == "Allow"
    ])
    error_message = "A principal is not named."
  }
}
