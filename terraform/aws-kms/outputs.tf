output "key_id" {
  description = "Id of the key."
  value       = one(aws_kms_key.this[*].key_id)
}

output "key_arn" {
  description = "ARN of the key: what encx calls the KEK."
  value       = local.key_arn
}

output "alias_arn" {
  description = "ARN of the alias."
  value       = one(aws_kms_alias.this[*].arn)
}

output "alias_name" {
  description = "Name of the alias, with `alias/`."
  value       = one(aws_kms_alias.this[*].name)
}

output "key_policy_json" {
  description = "Policy of the key, rendered also if nothing is created."
  value       = local.key_policy_json
}

output "service_policy_json" {
  description = "Identity policy for a role that is managed elsewhere and uses the key, as one of another account needs it."
  value       = local.service_policy_json
}

output "lifecycle_policy_json" {
  description = "Identity policy for a role that is managed elsewhere and rewraps."
  value       = local.lifecycle_policy_json
}

output "auditor_policy_json" {
  description = "Identity policy for a role that is managed elsewhere and sees the key's state, policy, rotation and tags."
  value       = local.auditor_policy_json
}

output "administrator_policy_json" {
  description = "Identity policy for a role that creates and administers keys of the account."
  value       = local.administrator_policy_json
}

output "iam_role_arn" {
  description = "ARN of the role, new or existing."
  value       = one(local.role_arns)
}

output "iam_role_name" {
  description = "Name of the role, new or existing."
  value       = one(concat(aws_iam_role.this[*].name, data.aws_iam_role.attached[*].name))
}

output "encx_env" {
  description = "Environment variables for a service, as Docker and Kubernetes take them: for `AwsKms::from_env` and for `encx-config`."
  value = local.key_arn == null ? null : {
    AWS_REGION     = local.region
    AWS_KMS_KEY_ID = local.key_arn
    ENCX_KMS       = "aws-kms:${local.key_arn}"
  }
}

output "encx_config" {
  description = "The part of `encx.toml` that names the KMS and the KEK."
  value       = local.key_arn == null ? null : <<-TOML
    [kms.default]
    url = ${jsonencode("aws-kms:${local.key_arn}")}
    regions = ${jsonencode(concat([local.region], var.replica_regions))}

    [kek]
    default = ${jsonencode(local.key_arn)}
  TOML
}

locals {
  example_pairs   = [for key in sort(keys(local.context)) : "${key}=${local.context[key][0]}"]
  example_context = length(local.example_pairs) == 0 ? "" : " --encryption-context '${join(",", local.example_pairs)}'"
}

output "validation_commands" {
  description = "Commands of the AWS CLI that verify the key, by what each shows."
  value = local.key_arn == null ? null : {
    enabled  = "aws kms describe-key --region ${local.region} --key-id ${local.key_arn} --query KeyMetadata.KeyState"
    rotation = "aws kms get-key-rotation-status --region ${local.region} --key-id ${local.key_arn}"
    policy   = "aws kms get-key-policy --region ${local.region} --key-id ${local.key_arn} --policy-name default --query Policy --output text"
    tags     = "aws kms list-resource-tags --region ${local.region} --key-id ${local.key_arn}"
    alias    = "aws kms describe-key --region ${local.region} --key-id ${local.alias_name} --query KeyMetadata.Arn"
    # Shows the key's ARN and not the data key.
    allowed = "aws kms generate-data-key --region ${local.region} --key-id ${local.key_arn} --key-spec AES_256${local.example_context} --query KeyId"
    refused = (
      var.enforce_encryption_context
      ? "aws kms generate-data-key --region ${local.region} --key-id ${local.key_arn} --key-spec AES_256 --query KeyId"
      : null
    )
  }
}

output "monthly_cost_estimate" {
  description = "Estimate in USD a month, by part, from `cost_assumptions` and prices of most regions as of 2026."
  value       = local.monthly_cost
}
