output "key_id" {
  description = "Id of the replica, which is that of the primary."
  value       = one(aws_kms_replica_key.this[*].key_id)
}

output "key_arn" {
  description = "ARN of the replica. encx names a multi-region key by the ARN of the primary in every region; this is for policies."
  value       = local.key_arn
}

output "alias_arn" {
  description = "ARN of the alias in this region."
  value       = one(aws_kms_alias.this[*].arn)
}

output "alias_name" {
  description = "Name of the alias, with `alias/`."
  value       = one(aws_kms_alias.this[*].name)
}

output "key_policy_json" {
  description = "Policy of the replica, rendered also if nothing is created."
  value       = module.policy.key_policy_json
}

output "encx_env" {
  description = "Environment variables for a service that runs in this region: its region, and the key by its only name."
  value = local.key_arn == null ? null : {
    AWS_REGION     = local.region
    AWS_KMS_KEY_ID = var.primary_key_arn
    ENCX_KMS       = "aws-kms:${var.primary_key_arn}"
  }
}

output "encx_config" {
  description = "The part of `encx.toml` for a service that runs in this region: it asks this region first, then the primary's."
  value       = local.key_arn == null ? null : <<-TOML
    [kms.default]
    url = ${jsonencode("aws-kms:${var.primary_key_arn}")}
    regions = ${jsonencode([local.region, local.primary_region])}

    [kek]
    default = ${jsonencode(var.primary_key_arn)}
  TOML
}

output "validation_commands" {
  description = "Commands of the AWS CLI that verify the replica, by what each shows."
  value = local.key_arn == null ? null : {
    replica = "aws kms describe-key --region ${local.region} --key-id ${local.key_arn} --query KeyMetadata.MultiRegionConfiguration"
    enabled = "aws kms describe-key --region ${local.region} --key-id ${local.key_arn} --query KeyMetadata.KeyState"
    policy  = "aws kms get-key-policy --region ${local.region} --key-id ${local.key_arn} --policy-name default --query Policy --output text"
    alias   = "aws kms describe-key --region ${local.region} --key-id ${local.alias_name} --query KeyMetadata.Arn"
  }
}

output "monthly_cost_estimate" {
  description = "Additional cost of the replica in USD per month. Requests are counted for the service, in whichever region."
  value = {
    keys_usd                = var.create ? 1 : 0
    total_usd_rotated_twice = var.create ? 3 : 0
  }
}
