//! Estimates the cost of AWS KMS.

/// AWS KMS prices in most regions, from <https://aws.amazon.com/kms/pricing/> as read in 2026: $0.03 for 10 000
/// requests, $1 a month for a customer-managed key. The free tier and the surcharge for rotations are left out.
const AWS_KMS: Price = Price {
    usd_per_call: 0.03 / 10_000.0,
    usd_per_kek_and_month: 1.0,
};

struct Price {
    usd_per_call: f64,
    usd_per_kek_and_month: f64,
}

/// Days in a month, for billing.
const DAYS_PER_MONTH: f64 = 30.0;

/// The monthly cost of AWS KMS in USD, estimated from the calls that encx counted and the KEKs that the KEK rule names.
///
/// Calls to other KMSs in use are counted as calls to AWS: the daily counts do not tell them apart.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CostEstimate {
    /// Calls and KEKs together.
    pub usd_per_month: f64,
    /// Calls, if every day were like the counted ones.
    pub calls_usd: f64,
    /// KEKs.
    pub keks_usd: f64,
    /// How many days were counted: those with any activity, including today.
    pub days: u64,
}

impl CostEstimate {
    /// Estimates from the calls of each counted day.
    pub(super) fn new(is_billed: bool, keks: usize, calls_by_day: &[u64]) -> Self {
        let price = is_billed.then_some(AWS_KMS);
        let (per_call, per_kek) = price.map_or((0.0, 0.0), |price| {
            (price.usd_per_call, price.usd_per_kek_and_month)
        });
        // Stored counts can be anything; as `f64` the sum does not overflow.
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let calls: f64 = calls_by_day.iter().map(|calls| *calls as f64).sum();
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (keks, counted) = (keks as f64, calls_by_day.len().max(1) as f64);
        let calls_usd = calls / counted * DAYS_PER_MONTH * per_call;
        let keks_usd = keks * per_kek;
        Self {
            usd_per_month: calls_usd + keks_usd,
            calls_usd,
            keks_usd,
            days: calls_by_day.len() as u64,
        }
    }
}

/// Tells whether a provider's calls cost money.
pub(super) fn is_billed(provider: &str) -> bool {
    provider == "aws-kms"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_day_are_a_thirtieth_of_a_month() {
        let days = [10_000, 30_000];
        let cost = CostEstimate::new(true, 2, &days);
        // 20 000 calls a day are 600 000 a month.
        assert!((cost.calls_usd - 1.8).abs() < 1e-9, "{cost:?}");
        assert!((cost.usd_per_month - 3.8).abs() < 1e-9, "{cost:?}");
        assert_eq!(cost.days, 2);
        assert_eq!(CostEstimate::new(false, 2, &days).usd_per_month, 0.0);
        assert_eq!(CostEstimate::new(true, 0, &[]).usd_per_month, 0.0);
        assert!(CostEstimate::new(true, 0, &[u64::MAX; 2]).calls_usd > 1e13);
    }
}
