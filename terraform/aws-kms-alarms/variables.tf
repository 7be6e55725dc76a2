variable "create" {
  description = "Whether to create anything."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "First part of the names of all that is created."
  type        = string
  default     = "encx-kms"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,30}$", var.name))
    error_message = "name: write at most 31 lower-case letters, digits and hyphens, such as \"encx-kms\"."
  }
}

variable "key_arns" {
  description = "ARNs of the watched keys of this region, by a name that you choose, such as `{ main = module.kms.key_arn }`."
  type        = map(string)
  nullable    = false

  validation {
    condition = length(var.key_arns) > 0 && alltrue([
      for name, arn in var.key_arns : can(regex("^[a-zA-Z0-9_-]{1,64}$", name)) && can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", arn))
    ])
    error_message = "key_arns: write at least one ARN of a key by a name of letters, digits, _ and -, such as { main = \"arn:aws:kms:…:key/…\" }; aliases do not do."
  }
}

variable "event_names" {
  description = "Calls of AWS KMS on these keys that are reported at once."
  type        = list(string)
  default     = ["DeleteAlias", "DisableKey", "DisableKeyRotation", "PutKeyPolicy", "ScheduleKeyDeletion", "UpdateAlias"]
  nullable    = false

  validation {
    # CloudTrail reports calls that change something to EventBridge; these do.
    condition = length(setsubtract(var.event_names, [
      "CancelKeyDeletion", "DeleteAlias", "DisableKey", "DisableKeyRotation", "EnableKey", "EnableKeyRotation", "PutKeyPolicy", "ReplicateKey",
      "RetireGrant", "RevokeGrant", "RotateKeyOnDemand", "ScheduleKeyDeletion", "TagResource", "UntagResource", "UpdateAlias",
      "UpdateKeyDescription", "UpdatePrimaryRegion",
    ])) == 0
    error_message = "event_names: write calls that change a key, such as [\"ScheduleKeyDeletion\", \"PutKeyPolicy\"]. CreateGrant has known_grantors, and Decrypt its own alarm."
  }
}

variable "known_grantors" {
  description = "ARNs of roles and users that may create grants. A grant by any other is reported at once."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.known_grantors : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[a-zA-Z0-9+=,.@_/-]+$", arn))])
    error_message = "known_grantors: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/backup\"]."
  }
}

variable "sns_topic_arn" {
  description = "ARN of the topic for all reports. Default: a new one, encrypted."
  type        = string
  default     = null

  validation {
    condition     = var.sns_topic_arn == null || can(regex("^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[a-zA-Z0-9_-]+$", var.sns_topic_arn))
    error_message = "sns_topic_arn: write the ARN of a standard topic, such as \"arn:aws:sns:eu-central-1:111122223333:alerts\"."
  }
}

variable "notification_emails" {
  description = "Email addresses that the new topic notifies. Each must confirm once."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for address in var.notification_emails : can(regex("^[^@\\s]+@[^@\\s]+$", address))])
    error_message = "notification_emails: write addresses, such as [\"security@example.com\"]."
  }

  validation {
    condition     = length(var.notification_emails) == 0 || var.sns_topic_arn == null
    error_message = "notification_emails: they are subscribed to the new topic. Leave sns_topic_arn out, or subscribe them to yours."
  }
}

variable "create_trail" {
  description = "Whether to create a trail with an encrypted, versioned bucket and a log group. An account with a trail needs no second one."
  type        = bool
  default     = false
  nullable    = false
}

variable "cloudtrail_log_group_name" {
  description = "Log group that an existing trail writes to. Without it and without `create_trail` there are no alarms on metrics."
  type        = string
  default     = null

  validation {
    condition     = var.cloudtrail_log_group_name == null || can(regex("^[a-zA-Z0-9_/.#-]{1,512}$", var.cloudtrail_log_group_name))
    error_message = "cloudtrail_log_group_name: write the name of a log group, such as \"/aws/cloudtrail\", and no ARN."
  }

  validation {
    condition     = !(var.create_trail && var.cloudtrail_log_group_name != null)
    error_message = "cloudtrail_log_group_name: write either create_trail = true or the log group of a trail that exists."
  }
}

variable "bucket_name" {
  description = "Name of the new trail's bucket. Default: `name` with the account and region."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_name == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name: write 3 to 63 lower-case letters, digits, hyphens and dots."
  }
}

variable "force_destroy_bucket" {
  description = "Whether `terraform destroy` deletes the bucket with its content. Leave it off in production: it is evidence."
  type        = bool
  default     = false
  nullable    = false
}

variable "retention_in_days" {
  description = "Days for which the new trail's log group and bucket keep events."
  type        = number
  default     = 400
  nullable    = false

  validation {
    condition     = contains([90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.retention_in_days)
    error_message = "retention_in_days: write what CloudWatch Logs knows, at least 90: 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "audit_key_arn" {
  description = "ARN of the key that encrypts the new topic, bucket and log group; aws-kms with `allow_services` and `allow_cloudwatch_logs` creates one. Default: a new one."
  type        = string
  default     = null

  validation {
    condition     = var.audit_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+$", var.audit_key_arn))
    error_message = "audit_key_arn: write the ARN of a key, such as \"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\"."
  }
}

variable "audit_key_readers" {
  description = "ARNs of roles and users that read the trail's bucket, and so decrypt with the new audit key."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.audit_key_readers : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[a-zA-Z0-9+=,.@_/-]+$", arn))])
    error_message = "audit_key_readers: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/auditor\"]."
  }
}

variable "key_deleters" {
  description = "ARNs of roles and users that may schedule the new audit key's deletion, as `terraform destroy` does."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.key_deleters : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[a-zA-Z0-9+=,.@_/-]+$", arn))])
    error_message = "key_deleters: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/terraform\"]."
  }
}

variable "period_in_seconds" {
  description = "Length of the periods in which calls are counted."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.period_in_seconds >= 60 && var.period_in_seconds % 60 == 0 && var.period_in_seconds <= 86400
    error_message = "period_in_seconds: write a multiple of 60 from 60 to 86400."
  }
}

variable "thresholds" {
  description = "Calls in a period from which an alarm is raised: throttled ones, denied ones, uses of a key that is pending deletion; and how many standard deviations above normal Decrypt must be."
  type = object({
    throttled          = optional(number, 10)
    denied             = optional(number, 1)
    pending_deletion   = optional(number, 1)
    decrypt_deviations = optional(number, 4)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for threshold in values(var.thresholds) : threshold > 0])
    error_message = "thresholds: write numbers above 0."
  }
}

variable "encx_namespace" {
  description = "CloudWatch namespace into which your collector writes the metrics `encx_*` of your services, such as `Shop`. Without it there are no alarms on them."
  type        = string
  default     = null

  validation {
    condition     = var.encx_namespace == null || can(regex("^[a-zA-Z0-9._/#:-]{1,255}$", var.encx_namespace))
    error_message = "encx_namespace: write the namespace as the collector has it, of letters, digits and ._/#:-, such as \"Shop\"."
  }

  validation {
    condition     = var.encx_namespace == null || !startswith(coalesce(var.encx_namespace, "-"), "AWS/")
    error_message = "encx_namespace: namespaces that begin with AWS/ belong to AWS. Write the one that the collector writes to, such as \"Shop\"."
  }
}

variable "encx_thresholds" {
  description = "Values of `encx_*` from which an alarm is raised: refusals and KMS calls of all processes in a period, seconds for which a process heard nothing of changes, seconds of a KMS call. 0 for no alarm."
  type = object({
    refusals         = optional(number, 1)
    poll_lag_seconds = optional(number, 120)
    call_seconds     = optional(number, 3)
    calls            = optional(number, 0)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for threshold in values(var.encx_thresholds) : threshold >= 0])
    error_message = "encx_thresholds: write numbers above 0, or 0 for no alarm."
  }

  validation {
    condition     = var.encx_namespace != null || jsonencode(var.encx_thresholds) == jsonencode({ refusals = 1, poll_lag_seconds = 120, call_seconds = 3, calls = 0 })
    error_message = "encx_thresholds: nothing is measured without a namespace. Write encx_namespace, too."
  }
}

variable "tags" {
  description = "Tags of all that is created."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && length(key) >= 1 && length(key) <= 128])
    error_message = "tags: write keys of 1 to 128 characters that do not begin with aws:."
  }
}
