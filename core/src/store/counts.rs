//! Daily counts of what processes do.

use std::collections::BTreeMap;

use crate::kms::KmsOperation;
use crate::store::Timestamp;

/// An event that processes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Counted {
    /// Decrypted fields, records and streams.
    Decrypts,
    /// Encrypted fields, records and streams.
    Encrypts,
    /// Uses of a cached key.
    Hits,
    /// Calls of a KMS, including failed ones.
    KmsCalls(KmsOperation),
    /// Failed calls of a KMS.
    KmsFailures(KmsOperation),
    /// Uses of a key that had to wait for it to load.
    Misses,
    /// Refused ciphertexts.
    Refusals,
}

impl Counted {
    /// All events.
    pub const ALL: [Self; 15] = [
        Self::Decrypts,
        Self::Encrypts,
        Self::Hits,
        Self::KmsCalls(KmsOperation::DescribeKek),
        Self::KmsCalls(KmsOperation::GenerateDataKey),
        Self::KmsCalls(KmsOperation::RewrapKey),
        Self::KmsCalls(KmsOperation::UnwrapKey),
        Self::KmsCalls(KmsOperation::WrapKey),
        Self::KmsFailures(KmsOperation::DescribeKek),
        Self::KmsFailures(KmsOperation::GenerateDataKey),
        Self::KmsFailures(KmsOperation::RewrapKey),
        Self::KmsFailures(KmsOperation::UnwrapKey),
        Self::KmsFailures(KmsOperation::WrapKey),
        Self::Misses,
        Self::Refusals,
    ];

    /// Returns the stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decrypts => "decrypts",
            Self::Encrypts => "encrypts",
            Self::Hits => "hits",
            Self::KmsCalls(KmsOperation::DescribeKek) => "kms_calls.describe_kek",
            Self::KmsCalls(KmsOperation::GenerateDataKey) => "kms_calls.generate_data_key",
            Self::KmsCalls(KmsOperation::RewrapKey) => "kms_calls.rewrap_key",
            Self::KmsCalls(KmsOperation::UnwrapKey) => "kms_calls.unwrap_key",
            Self::KmsCalls(KmsOperation::WrapKey) => "kms_calls.wrap_key",
            Self::KmsFailures(KmsOperation::DescribeKek) => "kms_failures.describe_kek",
            Self::KmsFailures(KmsOperation::GenerateDataKey) => "kms_failures.generate_data_key",
            Self::KmsFailures(KmsOperation::RewrapKey) => "kms_failures.rewrap_key",
            Self::KmsFailures(KmsOperation::UnwrapKey) => "kms_failures.unwrap_key",
            Self::KmsFailures(KmsOperation::WrapKey) => "kms_failures.wrap_key",
            Self::Misses => "misses",
            Self::Refusals => "refusals",
        }
    }

    /// Returns the event with this name. `None` for one that only a later version of this library counts.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counted| counted.name() == name)
    }
}

/// The counts of one or many processes.
///
/// ```
/// use encx_core::kms::KmsOperation;
/// use encx_core::store::{Counted, ProcessCounts};
///
/// let mut counts = ProcessCounts::new();
/// counts.add(Counted::KmsCalls(KmsOperation::UnwrapKey), 3);
/// counts.add(Counted::KmsCalls(KmsOperation::UnwrapKey), 1);
/// assert_eq!(counts.get(Counted::KmsCalls(KmsOperation::UnwrapKey)), 4);
/// assert_eq!(counts.get(Counted::Refusals), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts(BTreeMap<Counted, u64>);

impl ProcessCounts {
    /// Creates empty counts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a count, saturating.
    pub fn add(&mut self, what: Counted, count: u64) {
        if count > 0 {
            let sum = self.0.entry(what).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Returns a count.
    #[must_use]
    pub fn get(&self, what: Counted) -> u64 {
        self.0.get(&what).copied().unwrap_or_default()
    }

    /// Lists the non-zero counts, in the order of [`Counted`].
    pub fn iter(&self) -> impl Iterator<Item = (Counted, u64)> {
        self.0.iter().map(|(what, count)| (*what, *count))
    }

    /// Tells whether all counts are 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The counts of all processes on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DailyCounts {
    /// When the day began: midnight, UTC.
    pub day: Timestamp,
    /// The counts.
    pub counts: ProcessCounts,
}

impl DailyCounts {
    /// How many days counts are kept.
    pub const KEPT_DAYS: i64 = 400;

    /// A day, in microseconds.
    const DAY: i64 = 86_400_000_000;

    /// Makes the counts of a day, given by its number since 1970-01-01. For stores.
    #[must_use]
    pub fn new(day: i64, counts: ProcessCounts) -> Self {
        let day = Timestamp::from_micros(day.saturating_mul(Self::DAY));
        Self { day, counts }
    }

    /// Returns the number of a moment's day since 1970-01-01. For stores.
    #[must_use]
    pub const fn number_of(moment: Timestamp) -> i64 {
        moment.as_micros().div_euclid(Self::DAY)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Counted::ALL.map(Counted::name).into();
        assert_eq!(names.len(), Counted::ALL.len());
        for counted in Counted::ALL {
            assert_eq!(Counted::from_name(counted.name()), Some(counted));
        }
        assert_eq!(Counted::from_name("hit"), None);
    }

    #[test]
    fn a_day_begins_at_midnight() {
        let number = |micros| DailyCounts::number_of(Timestamp::from_micros(micros));
        assert_eq!([number(-1), number(0), number(DailyCounts::DAY - 1)], [-1, 0, 0]);
        let day = DailyCounts::new(-1, ProcessCounts::new()).day;
        assert_eq!(day.as_micros(), -86_400_000_000);
        let last = DailyCounts::new(i64::MAX, ProcessCounts::new()).day;
        assert_eq!(last.as_micros(), i64::MAX);
    }

    #[test]
    fn counts_stop_at_the_greatest_number() {
        let mut counts = ProcessCounts::new();
        counts.add(Counted::Hits, 0);
        assert!(counts.is_empty());
        counts.add(Counted::Hits, 1);
        counts.add(Counted::Hits, u64::MAX);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(Counted::Hits, u64::MAX)]);
    }
}
