# What each validation refuses.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  alias = "shop-pii"
  users = ["arn:aws:iam::111122223333:role/shop"]
}

run "alias_with_a_space" {
  command = plan

  variables {
    alias = "shop pii"
  }

  expect_failures = [var.alias]
}

run "alias_of_aws" {
  command = plan

  variables {
    alias = "alias/aws/s3"
  }

  expect_failures = [var.alias]
}

run "environment_in_capitals" {
  command = plan

  variables {
    environment = "Production"
  }

  expect_failures = [var.environment]
}

run "description_too_long" {
  command = plan

  variables {
    description = format("%08193d", 0)
  }

  expect_failures = [var.description]
}

run "rotation_too_often" {
  command = plan

  variables {
    rotation_period_in_days = 89
  }

  expect_failures = [var.rotation_period_in_days]
}

run "rotation_too_seldom" {
  command = plan

  variables {
    rotation_period_in_days = 2561
  }

  expect_failures = [var.rotation_period_in_days]
}

run "rotation_in_parts_of_days" {
  command = plan

  variables {
    rotation_period_in_days = 90.5
  }

  expect_failures = [var.rotation_period_in_days]
}

run "window_too_short" {
  command = plan

  variables {
    deletion_window_in_days = 6
  }

  expect_failures = [var.deletion_window_in_days]
}

run "window_too_long" {
  command = plan

  variables {
    deletion_window_in_days = 31
  }

  expect_failures = [var.deletion_window_in_days]
}

run "availability_zone" {
  command = plan

  variables {
    multi_region    = true
    replica_regions = ["eu-west-1a"]
  }

  expect_failures = [var.replica_regions]
}

run "replicas_of_a_single_region_key" {
  command = plan

  variables {
    replica_regions = ["eu-west-1"]
  }

  expect_failures = [var.replica_regions]
}

run "auditors_with_a_wildcard" {
  command = plan

  variables {
    auditors = ["*"]
  }

  expect_failures = [var.auditors]
}

run "administrators_with_a_wildcard" {
  command = plan

  variables {
    administrators = ["*"]
  }

  expect_failures = [var.administrators]
}

run "administrators_as_an_account" {
  command = plan

  variables {
    administrators = ["arn:aws:iam::111122223333:root"]
  }

  expect_failures = [var.administrators]
}

run "kms_key_owners_with_a_wildcard" {
  command = plan

  variables {
    kms_key_owners = ["*"]
  }

  expect_failures = [var.kms_key_owners]
}

run "kms_key_owners_as_an_account" {
  command = plan

  variables {
    kms_key_owners = ["arn:aws:iam::111122223333:root"]
  }

  expect_failures = [var.kms_key_owners]
}

run "key_deleters_with_a_wildcard" {
  command = plan

  variables {
    key_deleters = ["*"]
  }

  expect_failures = [var.key_deleters]
}

run "key_deleters_as_an_account" {
  command = plan

  variables {
    key_deleters = ["arn:aws:iam::111122223333:root"]
  }

  expect_failures = [var.key_deleters]
}

run "users_with_a_wildcard" {
  command = plan

  variables {
    users = ["*"]
  }

  expect_failures = [var.users]
}

run "users_as_an_account" {
  command = plan

  variables {
    users = ["arn:aws:iam::111122223333:root"]
  }

  expect_failures = [var.users]
}

run "lifecycle_users_with_a_wildcard" {
  command = plan

  variables {
    lifecycle_users = ["*"]
  }

  expect_failures = [var.lifecycle_users]
}

run "lifecycle_users_as_an_account" {
  command = plan

  variables {
    lifecycle_users = ["arn:aws:iam::111122223333:root"]
  }

  expect_failures = [var.lifecycle_users]
}

run "service_role_that_is_a_user" {
  command = plan

  variables {
    service_role_arns = ["arn:aws:iam::111122223333:user/shop"]
  }

  expect_failures = [var.service_role_arns]
}

run "user_who_administers" {
  command = plan

  variables {
    users          = ["arn:aws:iam::111122223333:role/key-admin"]
    administrators = ["arn:aws:iam::111122223333:role/key-admin"]
  }

  expect_failures = [var.users]
}

run "service_role_that_owns" {
  command = plan

  variables {
    service_role_arns = ["arn:aws:iam::111122223333:role/key-admin"]
    kms_key_owners    = ["arn:aws:iam::111122223333:role/key-admin"]
  }

  expect_failures = [var.service_role_arns]
}

run "lifecycle_user_who_deletes" {
  command = plan

  variables {
    lifecycle_users = ["arn:aws:iam::111122223333:role/key-admin"]
    key_deleters    = ["arn:aws:iam::111122223333:role/key-admin"]
  }

  expect_failures = [var.lifecycle_users]
}

run "values_that_nothing_enforces" {
  command = plan

  variables {
    enforce_encryption_context = false
    context_values             = { purpose = ["pii"] }
  }

  expect_failures = [var.context_values]
}

run "pair_without_values" {
  command = plan

  variables {
    context_values = { purpose = [] }
  }

  expect_failures = [var.context_values]
}

run "pair_that_varies" {
  command = plan

  variables {
    context_values = { "encx:key" = ["1"] }
  }

  expect_failures = [var.context_values]
}

run "value_with_a_wildcard" {
  command = plan

  variables {
    context_values = { purpose = ["*"] }
  }

  expect_failures = [var.context_values]
}

run "unknown_service" {
  command = plan

  variables {
    allow_services = ["logs"]
  }

  expect_failures = [var.allow_services]
}

run "role_without_a_taker" {
  command = plan

  variables {
    create_iam_role = true
  }

  expect_failures = [var.create_iam_role]
}

run "role_both_new_and_existing" {
  command = plan

  variables {
    attach_to_role     = true
    create_iam_role    = true
    iam_role_name      = "shop"
    service_principals = ["ec2.amazonaws.com"]
  }

  expect_failures = [var.attach_to_role]
}

run "existing_role_without_a_name" {
  command = plan

  variables {
    attach_to_role = true
  }

  expect_failures = [var.attach_to_role]
}

run "role_name_that_is_an_arn" {
  command = plan

  variables {
    iam_role_name = "arn:aws:iam::111122223333:role/shop"
  }

  expect_failures = [var.iam_role_name]
}

run "boundary_that_is_no_policy" {
  command = plan

  variables {
    permissions_boundary_arn = "arn:aws:iam::111122223333:role/shop"
  }

  expect_failures = [var.permissions_boundary_arn]
}

run "service_without_its_domain" {
  command = plan

  variables {
    create_iam_role    = true
    service_principals = ["ec2"]
  }

  expect_failures = [var.service_principals]
}

run "trust_in_everyone" {
  command = plan

  variables {
    create_iam_role    = true
    external_id        = "shop-7f3a"
    trusted_principals = ["*"]
  }

  expect_failures = [var.trusted_principals]
}

run "external_id_with_a_space" {
  command = plan

  variables {
    external_id = "shop 7f3a"
  }

  expect_failures = [var.external_id]
}

run "trust_without_an_external_id" {
  command = plan

  variables {
    create_iam_role    = true
    trusted_principals = ["arn:aws:iam::444455556666:root"]
  }

  expect_failures = [var.external_id]
}

run "oidc_provider_that_is_a_url" {
  command = plan

  variables {
    create_iam_role       = true
    oidc_provider_arn     = "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
    oidc_service_accounts = ["shop:api"]
  }

  expect_failures = [var.oidc_provider_arn]
}

run "service_account_with_a_wildcard" {
  command = plan

  variables {
    create_iam_role       = true
    oidc_provider_arn     = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
    oidc_service_accounts = ["shop:*"]
  }

  expect_failures = [var.oidc_service_accounts]
}

run "oidc_provider_alone" {
  command = plan

  variables {
    create_iam_role   = true
    oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
  }

  expect_failures = [var.oidc_service_accounts]
}

run "cost_without_a_cache" {
  command = plan

  variables {
    cost_assumptions = { cache_minutes = 0 }
  }

  expect_failures = [var.cost_assumptions]
}

run "tag_of_aws" {
  command = plan

  variables {
    tags = { "aws:owner" = "shop" }
  }

  expect_failures = [var.tags]
}

run "key_policy_too_long" {
  command = plan

  variables {
    context_values = { tenantId = [for at in range(1000) : format("tenant-%040d", at)] }
  }

  expect_failures = [aws_kms_key.this]
}

run "role_policy_too_long" {
  command = plan

  variables {
    create_iam_role    = true
    service_principals = ["ec2.amazonaws.com"]
    context_values     = { tenantId = [for at in range(900) : "tenant-${at}"] }
  }

  expect_failures = [aws_iam_role_policy.this]
}
