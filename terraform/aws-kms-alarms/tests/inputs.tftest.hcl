# What each input does.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  key_arns = { main = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab" }
}

run "defaults" {
  assert {
    condition = jsonencode(sort(keys(output.event_rule_arns))) == jsonencode([
      "CreateGrant", "DeleteAlias", "DisableKey", "DisableKeyRotation", "PutKeyPolicy", "ScheduleKeyDeletion", "UpdateAlias",
    ])
    error_message = "Other calls are told."
  }

  assert {
    condition = aws_cloudwatch_event_rule.this["ScheduleKeyDeletion"].event_pattern == jsonencode({
      source        = ["aws.kms"]
      "detail-type" = ["AWS API Call via CloudTrail"]
      detail = {
        eventSource = ["kms.amazonaws.com"]
        eventName   = ["ScheduleKeyDeletion"]
        resources   = { ARN = ["arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"] }
      }
    })
    error_message = "The rule fits other events."
  }

  assert {
    condition = (
      output.sns_topic_arn == "arn:aws:sns:eu-central-1:111122223333:encx-kms"
      && aws_sns_topic.this[0].kms_master_key_id == output.audit_key_arn
      && output.audit_key_arn == "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
      && aws_cloudwatch_event_target.this["PutKeyPolicy"].arn == output.sns_topic_arn
      && jsonencode([for statement in jsondecode(aws_sns_topic_policy.this[0].policy).Statement : [statement.Principal, statement.Action, statement.Condition]]) == jsonencode([
        [{ Service = "events.amazonaws.com" }, "sns:Publish", { ArnLike = { "aws:SourceArn" = "arn:aws:events:eu-central-1:111122223333:rule/encx-kms-*" } }],
        [{ Service = "cloudwatch.amazonaws.com" }, "sns:Publish", { ArnLike = { "aws:SourceArn" = "arn:aws:cloudwatch:eu-central-1:111122223333:alarm:encx-kms-*" } }],
      ])
    )
    error_message = "The topic is not encrypted, or others publish to it."
  }

  assert {
    condition = (
      length(output.alarm_arns) == 0 && output.trail_arn == null && output.trail_bucket == null
      && output.log_group_name == null && output.metric_namespace == null
      && length(aws_sns_topic_subscription.email) == 0
    )
    error_message = "There are alarms without a log group to count in."
  }
}

run "create" {
  variables {
    create       = false
    create_trail = true
  }

  assert {
    condition = (
      length(aws_cloudwatch_event_rule.this) == 0 && length(aws_sns_topic.this) == 0 && length(aws_cloudtrail.this) == 0
      && length(aws_cloudwatch_metric_alarm.counted) == 0 && output.sns_topic_arn == null && output.audit_key_arn == null
    )
    error_message = "Something was created."
  }
}

run "grants" {
  variables {
    name           = "shop"
    event_names    = ["ScheduleKeyDeletion"]
    known_grantors = ["arn:aws:iam::111122223333:role/backup"]
    tags           = { team = "shop" }
  }

  assert {
    condition     = jsonencode(sort(keys(output.event_rule_arns))) == jsonencode(["CreateGrant", "ScheduleKeyDeletion"])
    error_message = "Other calls are told."
  }

  assert {
    condition = jsonencode(jsondecode(output.event_patterns_json.CreateGrant).detail["$or"]) == jsonencode([
      { userIdentity = { sessionContext = { sessionIssuer = { arn = [{ anything-but = ["arn:aws:iam::111122223333:role/backup"] }] } } } },
      { userIdentity = {
        arn            = [{ anything-but = ["arn:aws:iam::111122223333:role/backup"] }]
        sessionContext = { sessionIssuer = { arn = [{ exists = false }] } }
      } },
      { userIdentity = {
        arn            = [{ exists = false }]
        sessionContext = { sessionIssuer = { arn = [{ exists = false }] } }
      } },
    ])
    error_message = "Known grantors are told, or unknown ones are not."
  }

  assert {
    condition = (
      aws_cloudwatch_event_rule.this["CreateGrant"].name == "shop-CreateGrant"
      && aws_cloudwatch_event_rule.this["CreateGrant"].tags == tomap({ team = "shop" })
      && aws_sns_topic.this[0].name == "shop"
    )
    error_message = "Names or tags are others."
  }
}

run "own_topic" {
  variables {
    sns_topic_arn = "arn:aws:sns:eu-central-1:111122223333:alerts"
  }

  assert {
    condition = (
      length(aws_sns_topic.this) == 0 && output.audit_key_arn == null
      && output.sns_topic_arn == "arn:aws:sns:eu-central-1:111122223333:alerts"
      && aws_cloudwatch_event_target.this["DisableKey"].arn == "arn:aws:sns:eu-central-1:111122223333:alerts"
    )
    error_message = "The existing topic is not used."
  }
}

run "emails_and_own_key" {
  variables {
    notification_emails = ["security@example.com"]
    audit_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab"
  }

  assert {
    condition = (
      aws_sns_topic_subscription.email["security@example.com"].protocol == "email"
      && length(module.audit_key) == 0
      && aws_sns_topic.this[0].kms_master_key_id == "arn:aws:kms:eu-central-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab"
    )
    error_message = "The address is not subscribed, or the topic has another key."
  }
}

run "existing_trail" {
  variables {
    cloudtrail_log_group_name = "/aws/cloudtrail"
    period_in_seconds         = 600
    thresholds                = { throttled = 20, decrypt_deviations = 3 }
  }

  assert {
    condition = jsonencode(sort(keys(output.alarm_arns))) == jsonencode(["decrypt-main", "denied", "pending_deletion", "throttled"]) && alltrue([
      for filter in concat(values(aws_cloudwatch_log_metric_filter.counted), values(aws_cloudwatch_log_metric_filter.decrypt)) :
      filter.log_group_name == "/aws/cloudtrail" && filter.metric_transformation[0].namespace == "Encx/encx-kms"
    ])
    error_message = "Something else is counted."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.counted["throttled"].threshold == 20
      && aws_cloudwatch_metric_alarm.counted["denied"].threshold == 1
      && aws_cloudwatch_metric_alarm.counted["throttled"].period == 600
      && contains(aws_cloudwatch_metric_alarm.counted["denied"].alarm_actions, output.sns_topic_arn)
      && aws_cloudwatch_metric_alarm.decrypt["main"].comparison_operator == "GreaterThanUpperThreshold"
      && anytrue([for query in aws_cloudwatch_metric_alarm.decrypt["main"].metric_query : query.expression == "ANOMALY_DETECTION_BAND(calls, 3)"])
      && strcontains(aws_cloudwatch_log_metric_filter.counted["denied"].pattern, "($.eventName != \"GetKeyRotationStatus\")")
      && strcontains(aws_cloudwatch_log_metric_filter.decrypt["main"].pattern, "key/1234abcd-12ab-34cd-56ef-1234567890ab")
      && output.log_group_name == "/aws/cloudtrail"
      && output.metric_namespace == "Encx/encx-kms"
      && length(aws_cloudtrail.this) == 0
    )
    error_message = "Alarms have other thresholds or periods."
  }
}

run "new_trail" {
  variables {
    create_trail         = true
    bucket_name          = "shop-events"
    force_destroy_bucket = true
    retention_in_days    = 365
    key_deleters         = ["arn:aws:iam::111122223333:role/terraform"]
    audit_key_readers    = ["arn:aws:iam::111122223333:role/auditor"]
  }

  assert {
    condition = (
      output.trail_arn == "arn:aws:cloudtrail:eu-central-1:111122223333:trail/encx-kms"
      && output.trail_bucket == "shop-events"
      && output.log_group_name == "/aws/cloudtrail/encx-kms"
      && aws_cloudtrail.this[0].enable_log_file_validation
      && aws_cloudtrail.this[0].is_multi_region_trail
      && aws_cloudtrail.this[0].kms_key_id == output.audit_key_arn
      && aws_cloudwatch_log_group.this[0].kms_key_id == output.audit_key_arn
      && aws_cloudwatch_log_group.this[0].retention_in_days == 365
      && aws_s3_bucket.this[0].force_destroy
      && aws_s3_bucket_versioning.this[0].versioning_configuration[0].status == "Enabled"
      && aws_s3_bucket_public_access_block.this[0].restrict_public_buckets
      && aws_s3_bucket_lifecycle_configuration.this[0].rule[0].expiration[0].days == 365
      && length(output.alarm_arns) == 4
    )
    error_message = "The trail, its bucket or its log group is otherwise."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_s3_bucket_policy.this[0].policy).Statement :
      statement.Effect == "Deny" || try(statement.Condition.StringEquals["aws:SourceArn"], "") == "arn:aws:cloudtrail:eu-central-1:111122223333:trail/encx-kms"
    ])
    error_message = "Another trail writes to the bucket."
  }

  assert {
    condition = jsonencode([
      for statement in jsondecode(module.audit_key[0].key_policy_json).Statement : statement.Sid
      ]) == jsonencode([
      "EncxAccountAdministers", "EncxUsersWhere1", "EncxUsersWhereDescribe", "EncxDeleters", "EncxCloudWatchLogs", "EncxTopicPublishers", "EncxCloudTrail",
    ])
    error_message = "The audit key has another policy."
  }
}

run "metrics_of_encx" {
  variables {
    encx_namespace    = "Shop"
    period_in_seconds = 60
  }

  assert {
    condition = jsonencode({ for name, alarm in aws_cloudwatch_metric_alarm.encx : name => [
      one(alarm.metric_query).expression, alarm.threshold, alarm.evaluation_periods, one(alarm.metric_query).period
      ] }) == jsonencode({
      call_seconds = ["SELECT MAX(encx_kms_call_seconds) FROM \"Shop\"", 3, 3, 60]
      circuit_open = ["SELECT MAX(encx_kms_circuit_open) FROM \"Shop\"", 1, 1, 60]
      poll_lag     = ["SELECT MAX(encx_poll_lag_seconds) FROM \"Shop\"", 120, 2, 60]
      refusals     = ["SELECT SUM(encx_refusals_total) FROM \"Shop\"", 1, 1, 60]
    })
    error_message = "Something else is asked of the metrics of encx."
  }

  assert {
    condition = (
      jsonencode(sort(keys(output.alarm_arns))) == jsonencode(["encx-call_seconds", "encx-circuit_open", "encx-poll_lag", "encx-refusals"])
      && alltrue([for alarm in aws_cloudwatch_metric_alarm.encx : contains(alarm.alarm_actions, output.sns_topic_arn)])
      && output.metric_namespace == null
    )
    error_message = "The alarms are not among the outputs, tell no topic, or need a log group."
  }
}

run "thresholds_of_encx" {
  variables {
    encx_namespace  = "Shop"
    encx_thresholds = { calls = 10000, refusals = 0, poll_lag_seconds = 300, call_seconds = 0 }
  }

  assert {
    condition = jsonencode({ for name, alarm in aws_cloudwatch_metric_alarm.encx : name => alarm.threshold }) == jsonencode({
      calls        = 10000
      circuit_open = 1
      poll_lag     = 300
    })
    error_message = "Alarms have other thresholds."
  }
}
