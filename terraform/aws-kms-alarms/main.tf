data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id

  create_topic = var.create && var.sns_topic_arn == null
  create_trail = var.create && var.create_trail
  create_key   = (local.create_topic || local.create_trail) && var.audit_key_arn == null
  audit_key    = local.create_key ? module.audit_key[0].key_arn : var.audit_key_arn
  topic        = var.sns_topic_arn != null ? var.sns_topic_arn : one(aws_sns_topic.this[*].arn)
}

# Alarms and evidence do not depend on the keys that they watch.
module "audit_key" {
  source = "../aws-kms"
  count  = local.create_key ? 1 : 0

  alias                 = "${var.name}-audit"
  description           = "Encrypts the alarms and the trail of ${var.name}"
  allow_services        = ["cloudtrail", "cloudwatch", "events"]
  allow_cloudwatch_logs = true
  key_deleters          = var.key_deleters
  users                 = var.audit_key_readers
  # A reader of the trail sends CloudTrail's context, which names the trail.
  context_values = { "aws:cloudtrail:arn" = [local.trail_arn] }
  tags           = merge({ encx = "audit" }, var.tags)
}

resource "aws_sns_topic" "this" {
  count = local.create_topic ? 1 : 0

  name              = var.name
  kms_master_key_id = local.audit_key
  tags              = var.tags
}

locals {
  topic_policy_json = local.create_topic ? jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EncxRules"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.this[0].arn
        Condition = { ArnLike = { "aws:SourceArn" = "arn:${local.partition}:events:${local.region}:${local.account}:rule/${var.name}-*" } }
      },
      {
        Sid       = "EncxAlarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.this[0].arn
        Condition = { ArnLike = { "aws:SourceArn" = "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.name}-*" } }
      },
    ]
  }) : null
}

resource "aws_sns_topic_policy" "this" {
  count = local.create_topic ? 1 : 0

  arn    = aws_sns_topic.this[0].arn
  policy = local.topic_policy_json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = local.create_topic ? toset(var.notification_emails) : []

  topic_arn = aws_sns_topic.this[0].arn
  protocol  = "email"
  endpoint  = each.value
}
