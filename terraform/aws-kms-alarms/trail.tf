# A trail of the account's management events, all regions, for an account that has none.

locals {
  trail_arn   = "arn:${local.partition}:cloudtrail:${local.region}:${local.account}:trail/${var.name}"
  bucket      = coalesce(var.bucket_name, "${var.name}-${local.account}-${local.region}")
  bucket_arn  = "arn:${local.partition}:s3:::${local.bucket}"
  log_group_n = "/aws/cloudtrail/${var.name}"

  bucket_policy_json = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EncxTrailAsks"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = "s3:GetBucketAcl"
        Resource  = local.bucket_arn
        Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn } }
      },
      {
        Sid       = "EncxTrailWrites"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${local.bucket_arn}/AWSLogs/${local.account}/*"
        Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn, "s3:x-amz-acl" = "bucket-owner-full-control" } }
      },
      {
        Sid       = "EncxOnlyTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:reads of the trail's bucket are in the trail of the account; a log bucket would need a log bucket
  #checkov:skip=CKV_AWS_144:a copy in another region is a choice of cost, made outside of this module
  #checkov:skip=CKV2_AWS_62:nothing waits for the bucket's objects; the alarms read the log group
  count = local.create_trail ? 1 : 0

  bucket        = local.bucket
  force_destroy = var.force_destroy_bucket
  tags          = var.tags
}

resource "aws_s3_bucket_versioning" "this" {
  count = local.create_trail ? 1 : 0

  bucket = aws_s3_bucket.this[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  count = local.create_trail ? 1 : 0

  bucket = aws_s3_bucket.this[0].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = local.audit_key
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  count = local.create_trail ? 1 : 0

  bucket                  = aws_s3_bucket.this[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  count = local.create_trail ? 1 : 0

  bucket = aws_s3_bucket.this[0].id

  rule {
    id     = "retention"
    status = "Enabled"

    filter {}

    expiration {
      days = var.retention_in_days
    }

    noncurrent_version_expiration {
      noncurrent_days = var.retention_in_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_policy" "this" {
  count = local.create_trail ? 1 : 0

  bucket = aws_s3_bucket.this[0].id
  policy = local.bucket_policy_json

  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_cloudwatch_log_group" "this" {
  count = local.create_trail ? 1 : 0

  name              = local.log_group_n
  retention_in_days = var.retention_in_days
  kms_key_id        = local.audit_key
  tags              = var.tags
}

resource "aws_iam_role" "trail" {
  count = local.create_trail ? 1 : 0

  name        = "${var.name}-trail"
  description = "Lets CloudTrail write to ${local.log_group_n}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "EncxTrail"
      Effect    = "Allow"
      Principal = { Service = "cloudtrail.amazonaws.com" }
      Action    = ["sts:AssumeRole"]
      Condition = { StringEqualsIfExists = { "aws:SourceAccount" = local.account } }
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy" "trail" {
  count = local.create_trail ? 1 : 0

  name = "write-events"
  role = aws_iam_role.trail[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "EncxTrailWrites"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.this[0].arn}:log-stream:*"
    }]
  })
}

resource "aws_cloudtrail" "this" {
  #checkov:skip=CKV_AWS_252:a topic for each file of events would tell nothing; the alarms tell what matters
  count = local.create_trail ? 1 : 0

  name                          = var.name
  s3_bucket_name                = aws_s3_bucket.this[0].id
  kms_key_id                    = local.audit_key
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  cloud_watch_logs_group_arn    = "${aws_cloudwatch_log_group.this[0].arn}:*"
  cloud_watch_logs_role_arn     = aws_iam_role.trail[0].arn
  tags                          = var.tags

  depends_on = [aws_s3_bucket_policy.this, aws_iam_role_policy.trail]
}
