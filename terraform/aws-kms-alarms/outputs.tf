output "sns_topic_arn" {
  description = "ARN of the topic, new or existing."
  value       = var.create ? local.topic : null
}

output "event_patterns_json" {
  description = "Pattern of the rule of each call, as EventBridge has it."
  value       = local.event_patterns
}

output "event_rule_arns" {
  description = "ARN of the rule of each call."
  value       = { for name, rule in aws_cloudwatch_event_rule.this : name => rule.arn }
}

output "alarm_arns" {
  description = "ARN of each alarm on a metric: `throttled`, `denied`, `pending_deletion`, `decrypt-…` for each key, and `encx-…`."
  value = merge(
    { for name, alarm in aws_cloudwatch_metric_alarm.counted : name => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.decrypt : "decrypt-${name}" => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.encx : "encx-${name}" => alarm.arn },
  )
}

output "metric_namespace" {
  description = "Namespace of the metrics that are counted from CloudTrail's log."
  value       = local.has_metrics ? local.namespace : null
}

output "trail_arn" {
  description = "ARN of the new trail."
  value       = one(aws_cloudtrail.this[*].arn)
}

output "trail_bucket" {
  description = "Name of the new trail's bucket."
  value       = one(aws_s3_bucket.this[*].bucket)
}

output "log_group_name" {
  description = "Log group whose events are counted, new or existing."
  value       = local.has_metrics ? local.log_group : null
}

output "audit_key_arn" {
  description = "ARN of the key that encrypts topic, bucket and log group."
  value       = var.create ? local.audit_key : null
}
