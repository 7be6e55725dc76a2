# What each validation refuses.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  key_arns = { main = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab" }
}

run "name_in_capitals" {
  command = plan

  variables {
    name = "Encx"
  }

  expect_failures = [var.name]
}

run "key_by_alias" {
  command = plan

  variables {
    key_arns = { main = "alias/shop-pii" }
  }

  expect_failures = [var.key_arns]
}

run "no_keys" {
  command = plan

  variables {
    key_arns = {}
  }

  expect_failures = [var.key_arns]
}

run "call_that_changes_nothing" {
  command = plan

  variables {
    event_names = ["Decrypt"]
  }

  expect_failures = [var.event_names]
}

run "grantor_with_a_wildcard" {
  command = plan

  variables {
    known_grantors = ["*"]
  }

  expect_failures = [var.known_grantors]
}

run "topic_that_is_a_name" {
  command = plan

  variables {
    sns_topic_arn = "alerts"
  }

  expect_failures = [var.sns_topic_arn]
}

run "address_without_a_domain" {
  command = plan

  variables {
    notification_emails = ["security"]
  }

  expect_failures = [var.notification_emails]
}

run "addresses_for_an_existing_topic" {
  command = plan

  variables {
    notification_emails = ["security@example.com"]
    sns_topic_arn       = "arn:aws:sns:eu-central-1:111122223333:alerts"
  }

  expect_failures = [var.notification_emails]
}

run "log_group_that_is_an_arn" {
  command = plan

  variables {
    cloudtrail_log_group_name = "arn:aws:logs:eu-central-1:111122223333:log-group:trail"
  }

  expect_failures = [var.cloudtrail_log_group_name]
}

run "two_trails" {
  command = plan

  variables {
    cloudtrail_log_group_name = "/aws/cloudtrail"
    create_trail              = true
  }

  expect_failures = [var.cloudtrail_log_group_name]
}

run "bucket_in_capitals" {
  command = plan

  variables {
    bucket_name = "Events"
  }

  expect_failures = [var.bucket_name]
}

run "retention_that_logs_do_not_know" {
  command = plan

  variables {
    retention_in_days = 100
  }

  expect_failures = [var.retention_in_days]
}

run "audit_key_by_alias" {
  command = plan

  variables {
    audit_key_arn = "alias/audit"
  }

  expect_failures = [var.audit_key_arn]
}

run "reader_with_a_wildcard" {
  command = plan

  variables {
    audit_key_readers = ["*"]
  }

  expect_failures = [var.audit_key_readers]
}

run "deleter_with_a_wildcard" {
  command = plan

  variables {
    key_deleters = ["*"]
  }

  expect_failures = [var.key_deleters]
}

run "period_of_seconds" {
  command = plan

  variables {
    period_in_seconds = 90
  }

  expect_failures = [var.period_in_seconds]
}

run "threshold_of_nothing" {
  command = plan

  variables {
    thresholds = { denied = 0 }
  }

  expect_failures = [var.thresholds]
}

run "tag_of_aws" {
  command = plan

  variables {
    tags = { "aws:owner" = "shop" }
  }

  expect_failures = [var.tags]
}

run "namespace_with_spaces" {
  command = plan

  variables {
    encx_namespace = "my shop"
  }

  expect_failures = [var.encx_namespace]
}

run "namespace_of_aws" {
  command = plan

  variables {
    encx_namespace = "AWS/KMS"
  }

  expect_failures = [var.encx_namespace]
}

run "threshold_of_encx_below_nothing" {
  command = plan

  variables {
    encx_namespace  = "Shop"
    encx_thresholds = { refusals = -1 }
  }

  expect_failures = [var.encx_thresholds]
}

run "threshold_of_encx_without_a_namespace" {
  command = plan

  variables {
    encx_thresholds = { calls = 10000 }
  }

  expect_failures = [var.encx_thresholds]
}
