//! The calls of an in-memory KMS: counts, and the last calls in detail.

use std::collections::VecDeque;
use std::fmt;

use encx_core::key::KekId;
use encx_core::kms::{KmsContext, KmsErrorKind, KmsOperation};

/// How many calls are kept in detail. A test that makes more uses the counts.
const KEPT: usize = 100;

/// How often each method of a [`MemoryKms`](super::MemoryKms) was called, failed calls included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KmsCalls {
    /// Calls of `describe_kek`.
    pub describe: u64,
    /// Calls of `generate_data_key`.
    pub generate: u64,
    /// Calls of `rewrap_key`.
    pub rewrap: u64,
    /// Calls of `unwrap_key`.
    pub unwrap: u64,
    /// Calls of `wrap_key`.
    pub wrap: u64,
}

impl KmsCalls {
    /// Returns the number of calls of any method.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.describe + self.generate + self.rewrap + self.unwrap + self.wrap
    }
}

/// One call of a [`MemoryKms`](super::MemoryKms). It prints as one line in a failed assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KmsCall {
    /// The called operation.
    pub operation: KmsOperation,
    /// The KEK in the call.
    pub kek: KekId,
    /// The pairs in the call, sorted by key; none for `describe_kek`.
    pub pairs: Vec<(String, String)>,
    /// The outcome; `None` while it is in flight, or if it was cancelled.
    pub outcome: Option<Result<(), KmsErrorKind>>,
}

impl fmt::Display for KmsCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KEK `{}`", self.operation, self.kek)?;
        for (n, (key, value)) in self.pairs.iter().enumerate() {
            let before = if n == 0 { " for " } else { ", " };
            write!(f, "{before}{key}={value}")?;
        }
        match self.outcome {
            None => write!(f, ": no answer yet"),
            Some(Ok(())) => write!(f, ": done"),
            Some(Err(kind)) => write!(f, ": {kind}"),
        }
    }
}

/// Counts calls, and keeps the last of them.
#[derive(Default)]
pub(super) struct CallLog {
    counts: KmsCalls,
    last: VecDeque<(u64, KmsCall)>,
    /// The number of the next call. Never reset, so that a call from before a reset does not end a later one.
    next: u64,
}

impl CallLog {
    /// Records the start of a call, and returns its number.
    pub(super) fn begin(
        &mut self,
        operation: KmsOperation,
        kek: &KekId,
        context: Option<&KmsContext>,
    ) -> u64 {
        let counts = &mut self.counts;
        *match operation {
            KmsOperation::GenerateDataKey => &mut counts.generate,
            KmsOperation::RewrapKey => &mut counts.rewrap,
            KmsOperation::UnwrapKey => &mut counts.unwrap,
            KmsOperation::WrapKey => &mut counts.wrap,
            // `DescribeKek`.
            _ => &mut counts.describe,
        } += 1;
        let pairs = context.into_iter().flat_map(KmsContext::pairs);
        let call = KmsCall {
            operation,
            kek: kek.clone(),
            pairs: pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            outcome: None,
        };
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back((self.next, call));
        self.next += 1;
        self.next - 1
    }

    /// Records the outcome of a call.
    pub(super) fn end(&mut self, number: u64, outcome: Result<(), KmsErrorKind>) {
        if let Some((_, call)) = self.last.iter_mut().find(|(of, _)| *of == number) {
            call.outcome = Some(outcome);
        }
    }

    pub(super) fn counts(&self) -> KmsCalls {
        self.counts
    }

    /// Returns the number of calls so far.
    #[cfg(feature = "harness")]
    pub(super) fn ever(&self) -> u64 {
        self.next
    }

    pub(super) fn last(&self) -> Vec<KmsCall> {
        self.last.iter().map(|(_, call)| call.clone()).collect()
    }

    pub(super) fn reset(&mut self) {
        self.counts = KmsCalls::default();
        self.last.clear();
    }
}
