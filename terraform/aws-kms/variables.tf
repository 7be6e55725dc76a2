variable "create" {
  description = "Whether to create anything. Policies are rendered as outputs in any case."
  type        = bool
  default     = true
  nullable    = false
}

variable "alias" {
  description = "Name of the key, such as `shop-pii`; `alias/shop-pii` is the same."
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
  description = "Environment that the key serves, such as `production`. Becomes the tag `Environment` and part of a new role's name."
  type        = string
  default     = null

  validation {
    condition     = var.environment == null || can(regex("^[a-z0-9][a-z0-9-]{0,31}$", var.environment))
    error_message = "environment: write at most 32 lower-case letters, digits and hyphens, such as \"production\"."
  }
}

variable "description" {
  description = "Description of the key. Default: `KEK of encx, alias/…`."
  type        = string
  default     = null

  validation {
    condition     = var.description == null || try(length(var.description) <= 8192, false)
    error_message = "description: write at most 8192 characters."
  }
}

variable "enable_key_rotation" {
  description = "Whether AWS KMS rotates the key's material. Wraps do not change."
  type        = bool
  default     = true
  nullable    = false
}

variable "rotation_period_in_days" {
  description = "Days between two rotations: 90 to 2560."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition = (
      var.rotation_period_in_days >= 90
      && var.rotation_period_in_days <= 2560
      && floor(var.rotation_period_in_days) == var.rotation_period_in_days
    )
    error_message = "rotation_period_in_days: write a whole number from 90 to 2560."
  }
}

variable "deletion_window_in_days" {
  description = "Days between the request to delete the key and its end: 7 to 30. `null` for a key that is imported, see the README."
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

variable "multi_region" {
  description = "Whether the key can have replicas in other regions. A change creates a new key."
  type        = bool
  default     = false
  nullable    = false
}

variable "replica_regions" {
  description = "Regions in which `aws-kms-replica` creates replicas: identity policies name the key there, too."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for region in var.replica_regions : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", region))])
    error_message = "replica_regions: write codes of regions, such as [\"eu-west-1\"]."
  }

  validation {
    condition     = length(var.replica_regions) == 0 || var.multi_region
    error_message = "replica_regions: only a multi-region key has replicas. Write multi_region = true, or no regions."
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
    condition     = length(setsubtract(var.allow_services, concat(local.calling_services, local.via_services))) == 0
    error_message = "allow_services: write some of cloudtrail, cloudwatch, dynamodb, events, lambda, s3, secretsmanager, sns, sqs. For CloudWatch Logs write allow_cloudwatch_logs = true."
  }
}

variable "create_iam_role" {
  description = "Whether to create a role that may use the key. Say who takes it by `service_principals`, `oidc_provider_arn` or `trusted_principals`."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !var.create_iam_role || length(var.service_principals) + length(var.trusted_principals) > 0 || var.oidc_provider_arn != null
    error_message = "create_iam_role: no identity could take the role. Write service_principals, oidc_provider_arn or trusted_principals."
  }
}

variable "attach_to_role" {
  description = "Whether to give the existing role `iam_role_name` of this account the identity policy, and the key's permission."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !(var.attach_to_role && var.create_iam_role)
    error_message = "attach_to_role: write either create_iam_role = true or attach_to_role = true."
  }

  validation {
    condition     = !var.attach_to_role || var.iam_role_name != null
    error_message = "attach_to_role: write the name of the role as iam_role_name."
  }
}

variable "iam_role_name" {
  description = "Name of the role, new or existing. Default for a new one: the alias with the environment."
  type        = string
  default     = null

  validation {
    condition     = var.iam_role_name == null || can(regex("^[a-zA-Z0-9+=,.@_-]{1,64}$", var.iam_role_name))
    error_message = "iam_role_name: write the name alone, at most 64 letters, digits and +=,.@_-; neither a path nor an ARN."
  }
}

variable "iam_role_lifecycle" {
  description = "Whether the role, new or existing, may do what `lifecycle_users` may, instead of what `users` may."
  type        = bool
  default     = false
  nullable    = false
}

variable "permissions_boundary_arn" {
  description = "ARN of the policy that bounds a new role."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn: write the ARN of a policy, such as \"arn:aws:iam::111122223333:policy/boundary\"."
  }
}

variable "service_principals" {
  description = "Services that take a new role, such as `ec2.amazonaws.com`, `ecs-tasks.amazonaws.com`, `lambda.amazonaws.com`, `pods.eks.amazonaws.com`."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.service_principals : can(regex("^[a-z0-9.-]+\\.amazonaws\\.com(\\.cn)?$", name))])
    error_message = "service_principals: write names of services, such as [\"ecs-tasks.amazonaws.com\"]."
  }
}

variable "trusted_principals" {
  description = "ARNs of roles, users or accounts (`…:root`), also of other accounts, that take a new role with `external_id`."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.trusted_principals : can(regex(local.principal_pattern, arn)) || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:root$", arn))])
    error_message = "trusted_principals: write ARNs of roles, users or accounts, such as [\"arn:aws:iam::444455556666:role/deploy\"]."
  }
}

variable "external_id" {
  description = "External id that `trusted_principals` must send to assume the role, so that a third party cannot be misled into assuming it for another customer. Not a secret."
  type        = string
  default     = null

  validation {
    condition = var.external_id == null || (
      can(regex("^[a-zA-Z0-9+=,.@:/_-]{2,}$", var.external_id)) && try(length(var.external_id) <= 1224, false)
    )
    error_message = "external_id: write 2 to 1224 letters, digits and +=,.@:/_-."
  }

  validation {
    condition     = length(var.trusted_principals) == 0 || var.external_id != null
    error_message = "external_id: trusted_principals take the role only with one. Write a value that is unique to this trust."
  }
}

variable "oidc_provider_arn" {
  description = "ARN of an EKS cluster's OIDC provider, whose `oidc_service_accounts` take a new role (IRSA)."
  type        = string
  default     = null

  validation {
    condition     = var.oidc_provider_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/.+$", var.oidc_provider_arn))
    error_message = "oidc_provider_arn: write the ARN of an OIDC provider, such as \"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE\"."
  }
}

variable "oidc_service_accounts" {
  description = "Service accounts of the cluster that take a new role, as `namespace:name`."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.oidc_service_accounts : can(regex("^[a-z0-9-]+:[a-z0-9.-]+$", name))])
    error_message = "oidc_service_accounts: write namespace:name without wildcards, such as [\"shop:api\"]."
  }

  validation {
    condition     = (var.oidc_provider_arn != null) == (length(var.oidc_service_accounts) > 0)
    error_message = "oidc_service_accounts: oidc_provider_arn and service accounts go together. Write both or neither."
  }
}

variable "cost_assumptions" {
  description = "Inputs of `monthly_cost_estimate`: tenants in use all day, processes, and how long the cache keeps a data key."
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
  description = "Tags of the key and the role, besides `encx` = `kek` and `Environment`. A tag with the value `null` is left out."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && length(key) >= 1 && length(key) <= 128])
    error_message = "tags: write keys of 1 to 128 characters that do not begin with aws:."
  }
}
