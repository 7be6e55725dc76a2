//! What AWS KMS costs.

/// What AWS KMS costs in most regions, by <https://aws.amazon.com/kms/pricing/> as read in 2026: 10 000 requests cost
/// $0.03, a customer-managed key $1 a month. The free tier and what rotations add to a key's price are left out.
const AWS_KMS: Price = Price {
    usd_per_call: 0.03 / 10_000.0,
    usd_per_kek_and_month: 1.0,
};

struct Price {
    usd_per_call: f64,
    usd_per_kek_and_month: f64,
}

/// How many days a month has, for money.
const DAYS_PER_MONTH: f64 = 30.0;

/// What AWS KMS costs a month, in USD, as far as calls that encx counted and KEKs that the KEK rule names tell.
///
/// Where other KMSs serve too, their calls are counted as if AWS served them: what is kept by day does not tell them apart.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CostEstimate {
    /// For both.
    pub usd_per_month: f64,
    /// For calls, if all days were as those that were counted.
    pub calls_usd: f64,
    /// For KEKs.
    pub keks_usd: f64,
    /// How many days were counted: those on which any process did anything, today among them.
    pub days: u64,
}

impl CostEstimate {
    /// Estimates from the calls of each day that was counted.
    pub(super) fn new(is_billed: bool, keks: usize, calls_by_day: &[u64]) -> Self {
        let price = is_billed.then_some(AWS_KMS);
        let (per_call, per_kek) = price.map_or((0.0, 0.0), |price| {
            (price.usd_per_call, price.usd_per_kek_and_month)
        });
        // Rows can say anything, and as `f64` the sum does not overflow.
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
