variable "primary_key_arn" {
  description = "ARN of the multi-region key that is replicated: the output `key_arn` of aws-kms with `multi_region`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/mrk-[0-9a-f-]{32,36}$", var.primary_key_arn))
    error_message = "primary_key_arn: write the ARN of a multi-region key, such as \"arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab\"."
  }
}

variable "create" {
  description = "Whether to create anything. Policies are rendered as outputs in any case."
  type        = bool
  default     = true
  nullable    = false
}

variable "alias" {
  description = "Name of the key in this region, such as `shop-pii`; `alias/shop-pii` is the same."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(alias/)?[a-zA-Z0-9/_-]{1,240}$", var.alias))
    error_message = "alias: write a name of letters, digits, /, _ and -, such as \"shop-pii\"."
  }

  validation {
    condition     = !startswith(trimprefix(var.alias, "alias/"), "aws/")
    error_message = "alias: names that begin with aws/ belong to AWS. Write a name of yours, such as \"shop-pii\"."
  }
}

variable "environment" {
  description = "Environment that the key serves, such as `production`. Becomes the tag `Environment`."
  type        = string
  default     = null

  validation {
    condition     = var.environment == null || can(regex("^[a-z0-9][a-z0-9-]{0,31}$", var.environment))
    error_message = "environment: write at most 32 lower-case letters, digits and hyphens, such as \"production\"."
  }
}

variable "description" {
  description = "Description of the replica, which is not replicated. Default: `KEK of encx, alias/…`."
  type        = string
  default     = null

  validation {
    condition     = var.description == null || try(length(var.description) <= 8192, false)
    error_message = "description: write at most 8192 characters."
  }
}

variable "deletion_window_in_days" {
  description = "Days between the request to delete the key and its end: 7 to 30. `null` for a replica that is imported."
  type        = number
  default     = 30

  validation {
    condition = var.deletion_window_in_days == null || try(
      var.deletion_window_in_days >= 7
      && var.deletion_window_in_days <= 30
      && floor(var.deletion_window_in_days) == var.deletion_window_in_days,
      false
    )
    error_message = "deletion_window_in_days: write a whole number from 7 to 30."
  }
}

variable "administrators" {
  description = "ARNs of roles and users that administer the key. They never use it, and cannot disable or delete it."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.administrators : can(regex(local.principal_pattern, arn))])
    error_message = "administrators: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/key-admin\"]."
  }
}

variable "kms_key_owners" {
  description = "ARNs of roles and users that run Terraform: what administrators may do, and to remove the alias and switch rotation off."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.kms_key_owners : can(regex(local.principal_pattern, arn))])
    error_message = "kms_key_owners: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/terraform\"]."
  }
}

variable "key_deleters" {
  description = "ARNs of roles and users that may schedule the key's deletion and remove its alias, as `terraform destroy` does. Empty: no identity deletes it by accident."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.key_deleters : can(regex(local.principal_pattern, arn))])
    error_message = "key_deleters: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/terraform\"]."
  }
}

variable "auditors" {
  description = "ARNs of roles and users that see the key's state, policy, rotation and tags, and change nothing."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.auditors : can(regex(local.principal_pattern, arn))])
    error_message = "auditors: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/auditor\"]."
  }
}

variable "users" {
  description = "ARNs of roles and users that create and unwrap data keys."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.users : can(regex(local.principal_pattern, arn))])
    error_message = "users: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/shop\"]."
  }

  validation {
    condition     = length(setintersection(var.users, local.managers)) == 0
    error_message = "users: one of them is in administrators, kms_key_owners or key_deleters. Write each ARN on one side: those who manage a key do not use it."
  }
}

variable "service_role_arns" {
  description = "ARNs of roles under which services run. They may do what `users` may."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.service_role_arns : can(regex(local.principal_pattern, arn)) && strcontains(arn, ":role/")])
    error_message = "service_role_arns: write ARNs of roles, such as [\"arn:aws:iam::111122223333:role/shop\"]; users go to `users`."
  }

  validation {
    condition     = length(setintersection(var.service_role_arns, local.managers)) == 0
    error_message = "service_role_arns: one of them is in administrators, kms_key_owners or key_deleters. Write each ARN on one side: those who manage a key do not use it."
  }
}

variable "lifecycle_users" {
  description = "ARNs of roles and users that move data keys to another KEK or wrap them under several: what `users` may do, Encrypt and ReEncrypt."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.lifecycle_users : can(regex(local.principal_pattern, arn))])
    error_message = "lifecycle_users: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/rewrap\"]."
  }

  validation {
    condition     = length(setintersection(var.lifecycle_users, local.managers)) == 0
    error_message = "lifecycle_users: one of them is in administrators, kms_key_owners or key_deleters. Write each ARN on one side: those who manage a key do not use it."
  }
}

variable "let_identity_policies_decide" {
  description = "Whether the account's identity policies decide who uses the key, in addition to the principals named here. The condition on the encryption context also applies to them."
  type        = bool
  default     = false
  nullable    = false
}

variable "enforce_encryption_context" {
  description = "Whether the key is used only under an encryption context that encx sends: with `context_values`, else with `encx:v` = 1."
  type        = bool
  default     = true
  nullable    = false
}

variable "context_values" {
  description = "Values that pairs of the encryption context may have, such as `{ purpose = [\"pii\"] }`. Each pair named here must be sent."
  type        = map(list(string))
  default     = {}
  nullable    = false

  validation {
    condition     = length(var.context_values) == 0 || var.enforce_encryption_context
    error_message = "context_values: nothing enforces them. Write enforce_encryption_context = true, or no values."
  }

  validation {
    condition     = alltrue([for values in values(var.context_values) : length(coalesce(values, [])) > 0])
    error_message = "context_values: a pair without values allows nothing. Write at least one value for each, such as { purpose = [\"pii\"] }."
  }

  validation {
    condition = alltrue([
      for key in keys(var.context_values) :
      can(regex("^[^\\s]{1,128}$", key)) && (!startswith(lower(key), "encx:") || contains(["encx:usage", "encx:v"], key))
    ])
    error_message = "context_values: write keys of your own, encx:usage or encx:v. encx:key is another one for each data key, so a condition on it would allow one key or none."
  }

  validation {
    condition = alltrue([
      for value in flatten(values(var.context_values)) : try(length(value) > 0 && length(regexall("[*?]", value)) == 0, false)
    ])
    error_message = "context_values: StringEquals knows no wildcards and no empty values. List every value, or leave the pair out."
  }
}

variable "allow_cloudwatch_logs" {
  description = "Whether CloudWatch Logs may encrypt this account's log groups of the region with the key."
  type        = bool
  default     = false
  nullable    = false
}

variable "allow_services" {
  description = "AWS services that may use the key for this account: `cloudtrail`, `cloudwatch`, `dynamodb`, `events`, `lambda`, `s3`, `secretsmanager`, `sns`, `sqs`. See the README for how each is limited."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(setsubtract(var.allow_services, local.services)) == 0
    error_message = "allow_services: write some of cloudtrail, cloudwatch, dynamodb, events, lambda, s3, secretsmanager, sns, sqs. For CloudWatch Logs write allow_cloudwatch_logs = true."
  }
}

variable "tags" {
  description = "Tags of the replica, besides `encx` = `kek` and `Environment`. A tag with the value `null` is left out."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && length(key) >= 1 && length(key) <= 128])
    error_message = "tags: write keys of 1 to 128 characters that do not begin with aws:."
  }
}
