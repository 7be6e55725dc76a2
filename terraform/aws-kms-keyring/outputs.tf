output "keys" {
  description = "Everything about the key of each domain: `key_id`, `key_arn`, `alias_name`, `alias_arn`, `purposes`."
  value = {
    for name, key in module.key : name => {
      key_id     = key.key_id
      key_arn    = key.key_arn
      alias_name = key.alias_name
      alias_arn  = key.alias_arn
      purposes   = local.purposes[name]
    }
  }
}

output "key_arns" {
  description = "ARN of the key of each domain."
  value       = { for name, key in module.key : name => key.key_arn }
}

output "key_policies_json" {
  description = "Policy of the key of each domain."
  value       = { for name, key in module.key : name => key.key_policy_json }
}

output "service_policies_json" {
  description = "Identity policy for each domain, for roles of other accounts."
  value       = { for name, key in module.key : name => key.service_policy_json }
}

output "encx_env" {
  description = "Environment variables for a service; the key is that of the default domain."
  value       = module.key[var.default_domain].encx_env
}

output "encx_config" {
  description = "The part of `encx.toml` that names the KMS and the KEK of each purpose."
  value = module.key[var.default_domain].encx_config == null ? null : join("\n", concat(
    [module.key[var.default_domain].encx_config],
    [
      for rule in flatten([for name in sort(keys(module.key)) : [for purpose in local.purposes[name] : { purpose = purpose, name = name }]]) :
      <<-TOML
        [[kek.for]]
        pair = "purpose"
        value = ${jsonencode(rule.purpose)}
        kek = ${jsonencode(module.key[rule.name].key_arn)}
      TOML
    ]
  ))
}

output "validation_commands" {
  description = "Commands of the AWS CLI that verify the key of each domain."
  value       = { for name, key in module.key : name => key.validation_commands }
}

output "deletion_protected" {
  description = "Whether the environment is protected, so that no policy grants ScheduleKeyDeletion."
  value       = local.protected
}

locals {
  costs        = { for name, key in module.key : name => key.monthly_cost_estimate }
  calls        = sum([for cost in values(local.costs) : cost.calls])
  keys_usd     = sum([for cost in values(local.costs) : cost.keys_usd])
  rotated_usd  = sum([for cost in values(local.costs) : cost.total_usd_rotated_twice - cost.total_usd])
  price        = local.costs[var.default_domain]
  requests_usd = ceil(max(0, local.calls - local.price.free_calls) * local.price.usd_for_10000_calls / 100) / 100
}

output "monthly_cost_estimate" {
  description = "Estimate in USD per month for all keys. The free tier counts once."
  value = {
    calls                   = local.calls
    keys_usd                = local.keys_usd
    requests_usd            = local.requests_usd
    total_usd               = local.keys_usd + local.requests_usd
    total_usd_rotated_twice = local.keys_usd + local.requests_usd + local.rotated_usd
  }
}
