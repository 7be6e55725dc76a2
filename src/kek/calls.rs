//! Counts the calls to a KMS and their outcomes.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use encx_core::key::KmsName;
use encx_core::kms::{KmsErrorKind, KmsOperation};

use crate::calls::{CallFailure, LastCalls};
use crate::clock::Clock;
use crate::error::Error;
use crate::kek::breaker::CircuitState;

/// The calls to one KMS so far, and its circuit.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::{Crypto, EncryptionContext, Field};
/// use encx::kms::{KmsOperation, KmsOutcome};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// crypto.encrypt(&context, "123-45-6789", Field::new("users", "ssn").row(7)).await?;
///
/// let stats = crypto.stats();
/// let made = stats.kms[0].of(KmsOperation::GenerateDataKey);
/// assert_eq!(made.count(KmsOutcome::Ok), 1);
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KmsStats {
    /// The name under which it is registered.
    pub kms: KmsName,
    /// The kind of provider, such as `aws-kms`.
    pub provider: &'static str,
    /// Whether calls are let through.
    pub circuit: CircuitState,
    /// How often its circuit has opened.
    pub circuit_openings: u64,
    /// Its calls by operation.
    pub operations: Vec<KmsOperationStats>,
}

/// The calls of one operation so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KmsOperationStats {
    /// The operation.
    pub operation: KmsOperation,
    /// The number of calls with each outcome. Zero counts are left out.
    pub outcomes: Vec<(KmsOutcome, u64)>,
    /// How long the calls took.
    pub latency: LatencyStats,
}

/// The outcome of a call to a KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KmsOutcome {
    /// It was cancelled before it ended.
    Cancelled,
    /// It failed.
    Failed(KmsErrorKind),
    /// It succeeded.
    Ok,
    /// It did not end within `load_timeout`, or within its share of that if there are several KEKs.
    TimedOut,
}

/// How long calls took, as a histogram. Cancelled calls are not included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// The number of calls that took longer than the previous bound in [`LatencyStats::BOUNDS`] and no longer than the
    /// bound at this index; the last bucket has no bound.
    pub buckets: [u64; LatencyStats::BOUNDS.len() + 1],
    /// The total time of all calls.
    pub sum: Duration,
}

impl KmsStats {
    /// Returns the calls of one operation.
    #[must_use]
    pub fn of(&self, operation: KmsOperation) -> KmsOperationStats {
        let mut operations = self.operations.iter();
        let found = operations.find(|stats| stats.operation == operation);
        found
            .cloned()
            .unwrap_or_else(|| OfOperation::default().read(operation))
    }

    /// Returns the number of ended calls, over all operations.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.operations.iter().map(KmsOperationStats::calls).sum()
    }
}

impl KmsOperationStats {
    /// Returns the number of calls with this outcome.
    #[must_use]
    pub fn count(&self, outcome: KmsOutcome) -> u64 {
        let mut outcomes = self.outcomes.iter();
        let found = outcomes.find(|(ended, _)| *ended == outcome);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns the number of ended calls, failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.outcomes.iter().map(|(_, count)| count).sum()
    }

    /// Returns the number of calls that failed or timed out. A cancelled call did not fail.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.calls() - self.count(KmsOutcome::Ok) - self.count(KmsOutcome::Cancelled)
    }
}

impl LatencyStats {
    /// The bounds of the buckets: from 100 µs, where a local KMS answers, to 10 s, in steps of 2 to 2.5.
    pub const BOUNDS: [Duration; 16] = [
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2500),
        Duration::from_secs(5),
        Duration::from_secs(10),
    ];

    /// Returns the number of measured calls.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl KmsOutcome {
    /// All outcomes.
    pub const ALL: [Self; 12] = [
        Self::Cancelled,
        Self::Failed(KmsErrorKind::AccessDenied),
        Self::Failed(KmsErrorKind::Configuration),
        Self::Failed(KmsErrorKind::Integrity),
        Self::Failed(KmsErrorKind::KeyState),
        Self::Failed(KmsErrorKind::LimitExceeded),
        Self::Failed(KmsErrorKind::NotFound),
        Self::Failed(KmsErrorKind::Throttled),
        Self::Failed(KmsErrorKind::Unavailable),
        Self::Failed(KmsErrorKind::Unsupported),
        Self::Ok,
        Self::TimedOut,
    ];

    /// Returns the outcome's name in metrics, such as `access_denied`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failed(kind) => kind_name(kind),
            Self::Ok => "ok",
            Self::TimedOut => "timed_out",
        }
    }

    fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(Error::Kms(error)) => Self::Failed(error.kind()),
            Err(_) => Self::TimedOut,
        }
    }

    /// Returns why the KMS could not serve. `None` for an answer; a refusal of a single wrap is an answer.
    fn failure(self) -> Option<CallFailure> {
        use KmsErrorKind::{
            AccessDenied, Integrity, KeyState, NotFound, Throttled, Unavailable, Unsupported,
        };
        let is_silence = match self {
            Self::Ok | Self::Failed(Integrity | Unsupported) => return None,
            Self::Failed(kind) => matches!(kind, Throttled | Unavailable),
            Self::Cancelled | Self::TimedOut => true,
        };
        Some(CallFailure {
            name: self.name(),
            is_silence,
            is_of_one_kek: matches!(self, Self::Failed(AccessDenied | KeyState | NotFound)),
        })
    }
}

fn kind_name(kind: KmsErrorKind) -> &'static str {
    match kind {
        KmsErrorKind::AccessDenied => "access_denied",
        KmsErrorKind::Configuration => "configuration",
        KmsErrorKind::Integrity => "integrity",
        KmsErrorKind::KeyState => "key_state",
        KmsErrorKind::LimitExceeded => "limit_exceeded",
        KmsErrorKind::NotFound => "not_found",
        KmsErrorKind::Throttled => "throttled",
        KmsErrorKind::Unavailable => "unavailable",
        KmsErrorKind::Unsupported => "unsupported",
        _ => "other",
    }
}

/// The counted operations, and their names in metrics.
const OPERATIONS: [KmsOperation; 5] = [
    KmsOperation::DescribeKek,
    KmsOperation::GenerateDataKey,
    KmsOperation::RewrapKey,
    KmsOperation::UnwrapKey,
    KmsOperation::WrapKey,
];

/// Counts the calls to one KMS.
#[derive(Debug, Default)]
pub(super) struct CallCounters {
    by_operation: [OfOperation; OPERATIONS.len()],
    pub(super) last: LastCalls,
}

#[derive(Debug)]
struct OfOperation {
    outcomes: [AtomicU64; KmsOutcome::ALL.len()],
    buckets: [AtomicU64; LatencyStats::BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Default for OfOperation {
    fn default() -> Self {
        Self {
            outcomes: array::from_fn(|_| AtomicU64::new(0)),
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            micros: AtomicU64::new(0),
        }
    }
}

impl OfOperation {
    fn count(&self, outcome: KmsOutcome) {
        if let Some(at) = KmsOutcome::ALL.iter().position(|known| *known == outcome) {
            self.outcomes[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn measure(&self, took: Duration) {
        let at = LatencyStats::BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn read(&self, operation: KmsOperation) -> KmsOperationStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outcomes = KmsOutcome::ALL.iter().zip(&self.outcomes);
        let outcomes = outcomes.map(|(outcome, counter)| (*outcome, load(counter)));
        KmsOperationStats {
            operation,
            outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
            latency: LatencyStats {
                buckets: array::from_fn(|at| load(&self.buckets[at])),
                sum: Duration::from_micros(load(&self.micros)),
            },
        }
    }
}

impl CallCounters {
    /// Starts to count a call.
    pub(super) fn begin<'a>(
        &'a self,
        operation: KmsOperation,
        clock: &'a dyn Clock,
        timeout: Duration,
    ) -> CountedCall<'a> {
        CountedCall {
            counters: self,
            of_operation: OPERATIONS
                .iter()
                .position(|known| *known == operation)
                .map(|at| &self.by_operation[at]),
            clock,
            began: clock.elapsed(),
            given_up_after: timeout / 3,
            has_ended: false,
        }
    }

    /// Lists the operations that were called.
    pub(super) fn read(&self) -> Vec<KmsOperationStats> {
        let all = OPERATIONS.into_iter().zip(&self.by_operation);
        let all = all.map(|(operation, counters)| counters.read(operation));
        all.filter(|stats| !stats.outcomes.is_empty()).collect()
    }
}

/// A call in flight.
pub(super) struct CountedCall<'a> {
    counters: &'a CallCounters,
    of_operation: Option<&'a OfOperation>,
    clock: &'a dyn Clock,
    began: Duration,
    given_up_after: Duration,
    has_ended: bool,
}

impl CountedCall<'_> {
    /// Counts the outcome. If a refusal is expected, it counts as the success.
    pub(super) fn ended<T>(mut self, result: &Result<T, Error>, refusal_expected: bool) {
        use KmsErrorKind::{AccessDenied, Integrity};
        self.has_ended = true;
        let outcome = match KmsOutcome::of(result) {
            KmsOutcome::Failed(AccessDenied | Integrity) if refusal_expected => KmsOutcome::Ok,
            outcome => outcome,
        };
        if let Some(of_operation) = self.of_operation {
            of_operation.count(outcome);
            of_operation.measure(self.clock.elapsed().saturating_sub(self.began));
        }
        self.counters.last.note(self.clock, outcome.failure());
    }
}

/// The call was cancelled. As in the breaker, one that lasted a good part of the time-out counts as not answered.
impl Drop for CountedCall<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        if let Some(of_operation) = self.of_operation {
            of_operation.count(KmsOutcome::Cancelled);
        }
        if self.clock.elapsed().saturating_sub(self.began) >= self.given_up_after {
            let failure = KmsOutcome::TimedOut.failure();
            self.counters.last.note(self.clock, failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_in_the_first_bucket_that_holds_it() {
        let counters = OfOperation::default();
        for (micros, _) in [(0, 0), (100, 0), (101, 1), (10_000_000, 15), (10_000_001, 16)] {
            counters.measure(Duration::from_micros(micros));
        }
        let latency = counters.read(KmsOperation::WrapKey).latency;
        let mut expected = [0; 17];
        expected[0] = 2;
        expected[1] = 1;
        expected[15] = 1;
        expected[16] = 1;
        assert_eq!(latency.buckets, expected);
        assert_eq!(latency.count(), 5);
        assert_eq!(latency.sum, Duration::from_micros(20_000_202));
        assert!(LatencyStats::BOUNDS.is_sorted());
    }

    #[test]
    fn outcomes_have_names_of_their_own() {
        let mut names = KmsOutcome::ALL.map(KmsOutcome::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KmsOutcome::ALL.len());
        assert!(!names.contains(&"other"));
    }
}
