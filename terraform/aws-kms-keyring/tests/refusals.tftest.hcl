# What each validation refuses.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  prefix            = "shop"
  environment       = "staging"
  service_role_arns = ["arn:aws:iam::111122223333:role/shop"]
  domains           = { main = {} }
}

run "prefix_with_alias" {
  command = plan

  variables {
    prefix = "alias/shop"
  }

  expect_failures = [var.prefix]
}

run "environment_in_capitals" {
  command = plan

  variables {
    environment = "Production"
  }

  expect_failures = [var.environment]
}

run "domain_with_a_slash" {
  command = plan

  variables {
    domains = { main = {}, "a/b" = {} }
  }

  expect_failures = [var.domains]
}

run "purpose_of_two_domains" {
  command = plan

  variables {
    domains = { main = { purposes = ["pii"] }, pii = {} }
  }

  expect_failures = [var.domains]
}

run "domain_that_rotates_daily" {
  command = plan

  variables {
    domains = { main = { rotation_period_in_days = 1 } }
  }

  expect_failures = [var.domains]
}

run "domain_for_everyone" {
  command = plan

  variables {
    domains = { main = { users = ["*"] } }
  }

  expect_failures = [var.domains]
}

run "domain_for_an_unknown_service" {
  command = plan

  variables {
    domains = { main = { allow_services = ["logs"] } }
  }

  expect_failures = [var.domains]
}

run "default_domain_that_is_not_there" {
  command = plan

  variables {
    default_domain = "other"
  }

  expect_failures = [var.default_domain]
}

run "protected_environment_in_capitals" {
  command = plan

  variables {
    protected_environments = ["Production"]
  }

  expect_failures = [var.protected_environments]
}

run "window_too_short" {
  command = plan

  variables {
    deletion_window_in_days = 6
  }

  expect_failures = [var.deletion_window_in_days]
}

run "key_deleters_with_a_wildcard" {
  command = plan

  variables {
    key_deleters = ["*"]
  }

  expect_failures = [var.key_deleters]
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

run "kms_key_owners_with_a_wildcard" {
  command = plan

  variables {
    kms_key_owners = ["*"]
  }

  expect_failures = [var.kms_key_owners]
}

run "lifecycle_users_with_a_wildcard" {
  command = plan

  variables {
    lifecycle_users = ["*"]
  }

  expect_failures = [var.lifecycle_users]
}

run "service_role_arns_with_a_wildcard" {
  command = plan

  variables {
    service_role_arns = ["*"]
  }

  expect_failures = [var.service_role_arns]
}

run "deleters_in_production" {
  command = plan

  variables {
    environment  = "production"
    key_deleters = ["arn:aws:iam::111122223333:role/terraform"]
  }

  expect_failures = [var.key_deleters]
}

run "replicas_of_single_region_keys" {
  command = plan

  variables {
    replica_regions = ["eu-west-1"]
  }

  expect_failures = [var.replica_regions]
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
