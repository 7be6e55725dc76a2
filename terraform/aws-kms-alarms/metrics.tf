# Alarms on counts. AWS KMS has no metric of errors and throttles, so CloudTrail's log is filtered.

locals {
  log_group   = local.create_trail ? one(aws_cloudwatch_log_group.this[*].name) : var.cloudtrail_log_group_name
  has_metrics = var.create && (var.create_trail || var.cloudtrail_log_group_name != null)
  namespace   = "Encx/${var.name}"

  # For the whole account: events of refused calls do not always name a key, and throttling affects all keys.
  counted = {
    throttled = {
      pattern     = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.errorCode = \"Throttling*\") }"
      threshold   = var.thresholds.throttled
      description = "AWS KMS throttles calls of this account: see the quota, and who else calls"
    }
    # Every process of encx may call GetKeyRotationStatus once without permission.
    denied = {
      pattern     = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.errorCode = \"AccessDenied*\") && ($.eventName != \"GetKeyRotationStatus\") }"
      threshold   = var.thresholds.denied
      description = "AWS KMS refuses calls: a permission was withdrawn, or an identity tries what it may not"
    }
    pending_deletion = {
      pattern     = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.errorMessage = \"* is pending deletion.\") }"
      threshold   = var.thresholds.pending_deletion
      description = "A key that is pending deletion is still used: the last warning before its data is lost"
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "counted" {
  for_each = local.has_metrics ? local.counted : {}

  name           = "${var.name}-${each.key}"
  log_group_name = local.log_group
  pattern        = each.value.pattern

  metric_transformation {
    name          = each.key
    namespace     = local.namespace
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "counted" {
  for_each = local.has_metrics ? local.counted : {}

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = local.namespace
  metric_name         = each.key
  statistic           = "Sum"
  period              = var.period_in_seconds
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic]
  tags                = var.tags

  depends_on = [aws_cloudwatch_log_metric_filter.counted]
}

resource "aws_cloudwatch_log_metric_filter" "decrypt" {
  for_each = local.has_metrics ? var.key_arns : {}

  name           = "${var.name}-decrypt-${each.key}"
  log_group_name = local.log_group
  pattern        = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.eventName = \"Decrypt\") && ($.resources[0].ARN = \"${each.value}\") }"

  metric_transformation {
    name          = "decrypt-${each.key}"
    namespace     = local.namespace
    value         = "1"
    default_value = "0"
  }
}

# CloudWatch learns the normal values, by hour and weekday, from two weeks of the metric.
resource "aws_cloudwatch_metric_alarm" "decrypt" {
  for_each = local.has_metrics ? var.key_arns : {}

  alarm_name          = "${var.name}-decrypt-${each.key}"
  alarm_description   = "Far more data keys than usual are unwrapped with ${each.value}"
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  comparison_operator = "GreaterThanUpperThreshold"
  threshold_metric_id = "usual"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic]
  tags                = var.tags

  metric_query {
    id          = "usual"
    expression  = "ANOMALY_DETECTION_BAND(calls, ${var.thresholds.decrypt_deviations})"
    label       = "Decrypt, usual"
    return_data = true
  }

  metric_query {
    id          = "calls"
    return_data = true

    metric {
      namespace   = local.namespace
      metric_name = "decrypt-${each.key}"
      stat        = "Sum"
      period      = var.period_in_seconds
    }
  }

  depends_on = [aws_cloudwatch_log_metric_filter.decrypt]
}
