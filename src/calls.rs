//! The outcomes of the last calls to a KMS or to the key store.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// Remembers outcomes of calls. Written where calls are made, never by a hot call.
#[derive(Debug, Default)]
pub(crate) struct LastCalls(Mutex<CallMemory>);

/// The remembered outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallMemory {
    pub(crate) answered: Option<When>,
    pub(crate) failed: Option<(When, CallFailure)>,
    /// Whether the last call failed.
    pub(crate) is_failing: bool,
}

/// A moment by both views of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) unix_millis: u64,
    pub(crate) elapsed: Duration,
}

impl CallMemory {
    /// Tells whether any call has ended.
    pub(crate) fn has_any(&self) -> bool {
        self.answered.is_some() || self.failed.is_some()
    }
}

impl When {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self {
            unix_millis: clock.unix_millis(),
            elapsed: clock.elapsed(),
        }
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallFailure {
    pub(crate) name: &'static str,
    /// Whether there was no answer; otherwise the answer was a refusal.
    pub(crate) is_silence: bool,
    /// Whether the refusal concerns one KEK, and says nothing about calls for others.
    pub(crate) is_of_one_kek: bool,
}

impl LastCalls {
    /// Records the outcome of a call. The clock is the service's code, so it is not called under the lock.
    pub(crate) fn note(&self, clock: &dyn Clock, failure: Option<CallFailure>) {
        let now = When::now(clock);
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.is_failing = failure.is_some();
        match failure {
            None => memory.answered = Some(now),
            Some(failure) => memory.failed = Some((now, failure)),
        }
    }

    pub(crate) fn read(&self) -> CallMemory {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
