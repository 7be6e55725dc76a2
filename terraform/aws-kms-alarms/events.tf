# Reported at once: calls on the keys that CloudTrail reports to EventBridge.

locals {
  on_the_keys = {
    eventSource = ["kms.amazonaws.com"]
    resources   = { ARN = values(var.key_arns) }
  }

  # A role's calls name the role as the issuer of the session, a user's calls the user. An identity without both is unknown.
  by_unknown = [
    { userIdentity = { sessionContext = { sessionIssuer = { arn = [{ anything-but = var.known_grantors }] } } } },
    {
      userIdentity = {
        arn            = [{ anything-but = var.known_grantors }]
        sessionContext = { sessionIssuer = { arn = [{ exists = false }] } }
      }
    },
    {
      userIdentity = {
        arn            = [{ exists = false }]
        sessionContext = { sessionIssuer = { arn = [{ exists = false }] } }
      }
    },
  ]

  event_patterns = merge(
    {
      for name in var.event_names : name => jsonencode({
        source        = ["aws.kms"]
        "detail-type" = ["AWS API Call via CloudTrail"]
        detail        = merge(local.on_the_keys, { eventName = [name] })
      })
    },
    {
      CreateGrant = length(var.known_grantors) == 0 ? jsonencode({
        source        = ["aws.kms"]
        "detail-type" = ["AWS API Call via CloudTrail"]
        detail        = merge(local.on_the_keys, { eventName = ["CreateGrant"] })
        }) : jsonencode({
        source        = ["aws.kms"]
        "detail-type" = ["AWS API Call via CloudTrail"]
        detail        = merge(local.on_the_keys, { eventName = ["CreateGrant"], "$or" = local.by_unknown })
      })
    },
  )
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = var.create ? local.event_patterns : {}

  name          = "${var.name}-${each.key}"
  description   = each.key == "CreateGrant" ? "A grant on a key of encx, by an unknown identity" : "${each.key} on a key of encx"
  event_pattern = each.value
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "this" {
  for_each = aws_cloudwatch_event_rule.this

  rule      = each.value.name
  target_id = "topic"
  arn       = local.topic

  input_transformer {
    input_paths = {
      call   = "$.detail.eventName"
      time   = "$.detail.eventTime"
      who    = "$.detail.userIdentity.arn"
      from   = "$.detail.sourceIPAddress"
      error  = "$.detail.errorCode"
      id     = "$.detail.eventID"
      region = "$.region"
    }
    # Without quotation marks, it is a one-line text.
    input_template = "\"<call> on a key of encx in <region>, at <time>, by <who> from <from>. Error, if it was refused: <error>. CloudTrail event <id>.\""
  }
}
