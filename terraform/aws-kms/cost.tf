locals {
  # Prices in USD of most regions, as of 2026: https://aws.amazon.com/kms/pricing/.
  price = {
    key        = 1    # a month, for each replica, too
    material   = 1    # a month, for the first and the second rotation only
    calls      = 0.03 # for 10 000
    free_calls = 20000
  }

  keys_made = var.create ? 1 + length(var.replica_regions) : 0
  # One Decrypt per tenant, process and cache lifetime; a tenth more, because keys in use are refreshed early.
  calls = local.keys_made == 0 ? 0 : ceil(
    var.cost_assumptions.tenants * var.cost_assumptions.processes * 30 * 24 * 60 / var.cost_assumptions.cache_minutes * 1.1
  )
  keys_usd     = local.keys_made * local.price.key
  rotated_usd  = var.enable_key_rotation ? 2 * local.keys_made * local.price.material : 0
  requests_usd = ceil(max(0, local.calls - local.price.free_calls) * local.price.calls / 100) / 100

  monthly_cost = {
    usd_for_10000_calls     = local.price.calls
    free_calls              = local.price.free_calls
    calls                   = local.calls
    keys_usd                = local.keys_usd
    requests_usd            = local.requests_usd
    total_usd               = local.keys_usd + local.requests_usd
    total_usd_rotated_once  = local.keys_usd + local.requests_usd + local.rotated_usd / 2
    total_usd_rotated_twice = local.keys_usd + local.requests_usd + local.rotated_usd
  }
}
