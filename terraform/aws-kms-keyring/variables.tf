variable "create" {
  description = "Whether to create anything. Policies are rendered as outputs in any case."
  type        = bool
  default     = true
  nullable    = false
}

variable "prefix" {
  description = "First part of every alias, such as `shop`: `alias/{prefix}-{environment}-{domain}`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9][a-zA-Z0-9/_-]{0,63}$", var.prefix)) && !startswith(var.prefix, "aws/") && !startswith(var.prefix, "alias/")
    error_message = "prefix: write at most 64 letters, digits, /, _ and -, such as \"shop\"; neither alias/ nor aws/."
  }
}

variable "environment" {
  description = "Environment that the keys serve, such as `production`. Second part of every alias, and the tag `Environment`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,31}$", var.environment))
    error_message = "environment: write at most 32 lower-case letters, digits and hyphens, such as \"production\"."
  }
}

variable "domains" {
  description = "Domains with a key of their own, by name, such as `main`, `messages`, `database`, `logs`. `purposes` are the values of the pair `purpose` under which the key is used; default: the name of the domain."
  type = map(object({
    description             = optional(string)
    purposes                = optional(list(string))
    administrators          = optional(list(string), [])
    users                   = optional(list(string), [])
    service_role_arns       = optional(list(string), [])
    lifecycle_users         = optional(list(string), [])
    allow_services          = optional(list(string), [])
    allow_cloudwatch_logs   = optional(bool, false)
    enable_key_rotation     = optional(bool, true)
    rotation_period_in_days = optional(number, 90)
    tags                    = optional(map(string), {})
  }))
  nullable = false

  validation {
    condition     = length(var.domains) > 0 && alltrue([for name in keys(var.domains) : can(regex("^[a-z0-9][a-z0-9-]{0,63}$", name))])
    error_message = "domains: write at least one, by names of lower-case letters, digits and hyphens, such as { main = {} }."
  }

  validation {
    condition = (
      length(flatten([for name, domain in var.domains : domain.purposes == null ? [name] : domain.purposes]))
      == length(toset(flatten([for name, domain in var.domains : domain.purposes == null ? [name] : domain.purposes])))
    )
    error_message = "domains: a purpose chooses one key, and one of them is in several domains. Write each in one."
  }

  validation {
    condition = alltrue([
      for name, domain in var.domains : domain.rotation_period_in_days >= 90 && domain.rotation_period_in_days <= 2560
    ])
    error_message = "domains: write a rotation_period_in_days from 90 to 2560."
  }

  validation {
    condition = alltrue([
      for arn in flatten([for domain in values(var.domains) : concat(domain.administrators, domain.users, domain.service_role_arns, domain.lifecycle_users)]) :
      can(regex(local.principal_pattern, arn))
    ])
    error_message = "domains: write ARNs of roles or users, such as \"arn:aws:iam::111122223333:role/shop\"."
  }

  validation {
    condition = length(setsubtract(
      flatten([for domain in values(var.domains) : domain.allow_services]),
      ["cloudtrail", "cloudwatch", "dynamodb", "events", "lambda", "s3", "secretsmanager", "sns", "sqs"]
    )) == 0
    error_message = "domains: write for allow_services some of cloudtrail, cloudwatch, dynamodb, events, lambda, s3, secretsmanager, sns, sqs."
  }
}

variable "default_domain" {
  description = "Domain whose key serves every purpose that no domain names. Unless it has `purposes`, any context of encx may use it."
  type        = string
  default     = "main"
  nullable    = false

  validation {
    condition     = contains(keys(var.domains), var.default_domain)
    error_message = "default_domain: write the name of one of the domains, such as \"main\"."
  }
}

variable "protected_environments" {
  description = "Environments whose keys no identity may delete, and whose window is 30 days unless it is set."
  type        = list(string)
  default     = ["prod", "production"]
  nullable    = false

  validation {
    condition     = alltrue([for name in var.protected_environments : can(regex("^[a-z0-9][a-z0-9-]{0,31}$", name))])
    error_message = "protected_environments: write names of environments, such as [\"production\"]."
  }
}

variable "deletion_window_in_days" {
  description = "Days between the request to delete a key and its end: 7 to 30. Default: 30 in a protected environment, else 7."
  type        = number
  default     = null

  validation {
    condition = var.deletion_window_in_days == null || try(
      var.deletion_window_in_days >= 7 && var.deletion_window_in_days <= 30 && floor(var.deletion_window_in_days) == var.deletion_window_in_days,
      false
    )
    error_message = "deletion_window_in_days: write a whole number from 7 to 30."
  }
}

variable "key_deleters" {
  description = "ARNs of roles and users that may schedule the keys' deletion, as `terraform destroy` does. Refused in a protected environment."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.key_deleters : can(regex(local.principal_pattern, arn))])
    error_message = "key_deleters: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/terraform\"]."
  }

  validation {
    condition     = length(var.key_deleters) == 0 || !contains(var.protected_environments, var.environment)
    error_message = "key_deleters: the environment is protected. To delete its keys, take it out of protected_environments first."
  }
}

variable "administrators" {
  description = "ARNs of roles and users that administer all keys."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.administrators : can(regex(local.principal_pattern, arn))])
    error_message = "administrators: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/key-admin\"]."
  }
}

variable "kms_key_owners" {
  description = "ARNs of roles and users that run Terraform, for all keys."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.kms_key_owners : can(regex(local.principal_pattern, arn))])
    error_message = "kms_key_owners: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/terraform\"]."
  }
}

variable "auditors" {
  description = "ARNs of roles and users that see state, policy, rotation and tags of all keys, and change nothing."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.auditors : can(regex(local.principal_pattern, arn))])
    error_message = "auditors: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/auditor\"]."
  }
}

variable "service_role_arns" {
  description = "ARNs of roles under which services use the keys of all domains."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.service_role_arns : can(regex(local.principal_pattern, arn)) && strcontains(arn, ":role/")])
    error_message = "service_role_arns: write ARNs of roles, such as [\"arn:aws:iam::111122223333:role/shop\"]."
  }
}

variable "lifecycle_users" {
  description = "ARNs of roles and users that move data keys to another KEK, in all domains."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.lifecycle_users : can(regex(local.principal_pattern, arn))])
    error_message = "lifecycle_users: write ARNs of roles or users, such as [\"arn:aws:iam::111122223333:role/rewrap\"]."
  }
}

variable "enforce_encryption_context" {
  description = "Whether a key is used only under the purposes of its domain."
  type        = bool
  default     = true
  nullable    = false
}

variable "multi_region" {
  description = "Whether the keys can have replicas in other regions. A change creates new keys."
  type        = bool
  default     = false
  nullable    = false
}

variable "replica_regions" {
  description = "Regions in which `aws-kms-replica` creates replicas."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.replica_regions) == 0 || var.multi_region
    error_message = "replica_regions: only multi-region keys have replicas. Write multi_region = true, or no regions."
  }
}

variable "cost_assumptions" {
  description = "Inputs of `monthly_cost_estimate` for each domain: tenants in use all day, processes, and how long the cache keeps a data key."
  type = object({
    tenants       = optional(number, 100)
    processes     = optional(number, 4)
    cache_minutes = optional(number, 60)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.cost_assumptions.tenants >= 0 && var.cost_assumptions.processes >= 0 && var.cost_assumptions.cache_minutes > 0
    error_message = "cost_assumptions: write tenants and processes of 0 or more, and cache_minutes above 0."
  }
}

variable "tags" {
  description = "Tags of all keys, besides `encx` = `kek`, `Environment` and `Domain`."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && length(key) >= 1 && length(key) <= 128])
    error_message = "tags: write keys of 1 to 128 characters that do not begin with aws:."
  }
}
