# Alarms on what encx itself counts, if a collector writes its metrics to CloudWatch.

locals {
  # Queries of Metrics Insights cover a metric under all its dimensions, which the collector chooses.
  encx = {
    circuit_open = {
      of          = "MAX(encx_kms_circuit_open)"
      threshold   = 1
      periods     = 1
      description = "The circuit breaker of a process is open because a KMS failed too often: the process cannot unwrap keys that are not in memory"
    }
    refusals = {
      of          = "SUM(encx_refusals_total)"
      threshold   = var.encx_thresholds.refusals
      periods     = 1
      description = "Ciphertexts or wrapped keys are refused: rows were edited, copied or restored, or a context is wrong"
    }
    poll_lag = {
      of          = "MAX(encx_poll_lag_seconds)"
      threshold   = var.encx_thresholds.poll_lag_seconds
      periods     = 2
      description = "A process does not see changes in the key store: it may still use a suspended or rotated key"
    }
    call_seconds = {
      of          = "MAX(encx_kms_call_seconds)"
      threshold   = var.encx_thresholds.call_seconds
      periods     = 3
      description = "Calls of AWS KMS are slow"
    }
    calls = {
      of          = "SUM(encx_kms_calls_total)"
      threshold   = var.encx_thresholds.calls
      periods     = 3
      description = "Processes call AWS KMS more often than planned: see the hit rate of the cache, and the bill"
    }
  }
  encx_alarms = {
    for name, alarm in local.encx : name => alarm if var.create && var.encx_namespace != null && alarm.threshold > 0
  }
}

resource "aws_cloudwatch_metric_alarm" "encx" {
  for_each = local.encx_alarms

  alarm_name          = "${var.name}-encx-${each.key}"
  alarm_description   = each.value.description
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic]
  tags                = var.tags

  metric_query {
    id          = "encx"
    expression  = "SELECT ${each.value.of} FROM \"${var.encx_namespace}\""
    period      = var.period_in_seconds
    return_data = true
  }
}
