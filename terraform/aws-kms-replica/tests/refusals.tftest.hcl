# What each validation refuses.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  primary_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
  alias           = "shop-pii"
  users           = ["arn:aws:iam::111122223333:role/shop"]
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

  expect_failures = [aws_kms_replica_key.this]
}

run "primary_that_is_no_multi_region_key" {
  command = plan

  variables {
    primary_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
  }

  expect_failures = [var.primary_key_arn]
}

run "region_of_the_primary" {
  command = plan

  variables {
    primary_key_arn = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
  }

  expect_failures = [aws_kms_replica_key.this]
}
