//! A circuit breaker: stops calls to a KMS that does not answer, so that no caller waits for it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use encx_core::key::KmsName;

use crate::clock::Clock;
use crate::error::Error;

/// The number of consecutive failures that open the breaker.
pub(super) const MAX_FAILURES: u32 = 5;

/// The first pause. It doubles with each further failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Guards one KMS.
///
/// While *closed*, calls go through. After [`MAX_FAILURES`] unanswered calls in a row it *opens*: calls fail at once.
/// After a pause one call, the *probe*, goes through: if it is answered the breaker closes, otherwise it stays open for
/// twice as long.
///
/// Only unavailability counts; a refusal is an answer and closes the breaker like a success. Throttling counts as
/// unavailability, although the KMS answered: further calls would prolong it, and the answer says nothing about the key.
///
/// The clock and subscribers of `tracing` are the service's code, which may call back here: neither runs under the lock.
pub(super) struct Breaker {
    kms: KmsName,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    openings: AtomicU64,
}

/// Whether calls to a KMS are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls are let through.
    Closed,
    /// Calls fail at once, because the KMS did not answer several times in a row.
    Open,
    /// One call may go through, or is in flight, and decides.
    Probing,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Counts phases. The outcome of a call from an earlier phase does not count.
    epoch: u64,
    /// Consecutive failures, while closed.
    failures: u32,
    /// Consecutive pauses, without an answer between them.
    pauses: u32,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    Probing,
}

/// The change that the end of a call causes.
enum Change {
    Closed,
    Opened { pause: Duration },
    StaysOpen { pause: Duration },
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
        self.failures = 0;
    }

    /// Records the end of a call that began in the phase `epoch`.
    fn note(&mut self, epoch: u64, end: End, now: Duration) -> Option<Change> {
        if self.epoch != epoch {
            return None;
        }
        match (end, &self.phase) {
            (End::Answered, Phase::Closed) => self.failures = 0,
            (End::Answered, Phase::Probing) => {
                self.enter(Phase::Closed);
                self.pauses = 0;
                return Some(Change::Closed);
            }
            (End::Failed, Phase::Closed) => {
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    let pause = self.open(now);
                    return Some(Change::Opened { pause });
                }
            }
            (End::Failed, Phase::Probing) => {
                let pause = self.open(now);
                return Some(Change::StaysOpen { pause });
            }
            (End::Cancelled, Phase::Probing) => self.enter(Phase::Open { until: now }),
            // No call is let through while it is open, so none belongs to that phase.
            (End::Cancelled, Phase::Closed) | (_, Phase::Open { .. }) => {}
        }
        None
    }

    fn open(&mut self, now: Duration) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16));
        // Up to a quarter less, so that processes do not all probe at once.
        let pause = doubled
            .min(LONGEST_PAUSE)
            .mul_f64(1.0 - 0.25 * rand::random::<f64>());
        self.pauses = self.pauses.saturating_add(1);
        let until = now.saturating_add(pause);
        self.enter(Phase::Open { until });
        pause
    }
}

impl Breaker {
    pub(super) fn new(kms: KmsName, clock: Arc<dyn Clock>) -> Self {
        Self {
            kms,
            clock,
            state: Mutex::new(State {
                phase: Phase::Closed,
                epoch: 0,
                failures: 0,
                pauses: 0,
            }),
            openings: AtomicU64::new(0),
        }
    }

    /// Returns how often it has opened, not counting failed probes.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// Tells whether the last call let through was not answered.
    pub(super) fn is_failing(&self) -> bool {
        let state = self.state();
        state.failures > 0 || !matches!(state.phase, Phase::Closed)
    }

    /// Returns whether calls are let through now.
    pub(super) fn circuit(&self) -> CircuitState {
        let now = self.clock.elapsed();
        match self.state().phase {
            Phase::Closed => CircuitState::Closed,
            Phase::Open { until } if now < until => CircuitState::Open,
            Phase::Open { .. } | Phase::Probing => CircuitState::Probing,
        }
    }

    /// Fails as [`admit`](Self::admit) would now, without letting a call through.
    pub(super) fn check(&self) -> Result<(), Error> {
        let now = self.clock.elapsed();
        self.refusal(&self.state(), now).map_or(Ok(()), Err)
    }

    /// Lets a call through, or returns how long trying is useless.
    ///
    /// The call reports how it [`ended`](Admitted::ended). One that is dropped before that counts as a failure if it
    /// lasted a good part of its `timeout`, because its caller probably had a shorter time-out. One that is dropped
    /// sooner was cancelled and does not count; the next call probes in its place.
    pub(super) fn admit(&self, timeout: Duration) -> Result<Admitted<'_>, Error> {
        let now = self.clock.elapsed();
        let mut state = self.state();
        if let Some(refusal) = self.refusal(&state, now) {
            return Err(refusal);
        }
        if matches!(state.phase, Phase::Open { .. }) {
            state.enter(Phase::Probing);
        }
        Ok(Admitted {
            breaker: self,
            epoch: state.epoch,
            given_up_at: now.saturating_add(timeout / 3),
            told: false,
        })
    }

    fn refusal(&self, state: &State, now: Duration) -> Option<Error> {
        let retry_in = match state.phase {
            Phase::Closed => return None,
            Phase::Open { until } => until.checked_sub(now).filter(|left| !left.is_zero())?,
            // The probe decides, at an unknown time.
            Phase::Probing => FIRST_PAUSE,
        };
        let kms = self.kms.clone();
        Some(Error::KmsCircuitOpen { kms, retry_in })
    }

    fn note(&self, epoch: u64, end: End) {
        let now = self.clock.elapsed();
        let changed = self.state().note(epoch, end, now);
        let kms = &self.kms;
        match changed {
            None => {}
            Some(Change::Closed) => tracing::info!(target: "encx::kms", %kms, "the KMS answers again"),
            Some(Change::Opened { pause }) => {
                self.openings.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    target: "encx::kms", %kms, failures = MAX_FAILURES, ?pause,
                    "the KMS is unavailable; calls to it are paused"
                );
            }
            Some(Change::StaysOpen { pause }) => {
                tracing::debug!(target: "encx::kms", %kms, ?pause, "the KMS is still unavailable");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("kms", &self.kms)
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

enum End {
    Answered,
    Failed,
    Cancelled,
}

/// A call that was let through.
pub(super) struct Admitted<'a> {
    breaker: &'a Breaker,
    epoch: u64,
    given_up_at: Duration,
    told: bool,
}

impl Admitted<'_> {
    /// Records how the call ended, which decides whether the next ones are let through.
    pub(super) fn ended<T>(mut self, outcome: &Result<T, Error>) {
        self.told = true;
        let end = match outcome {
            Err(error) if error.is_unavailability() => End::Failed,
            _ => End::Answered,
        };
        self.breaker.note(self.epoch, end);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.told {
            let given_up = self.breaker.clock.elapsed() >= self.given_up_at;
            let end = if given_up { End::Failed } else { End::Cancelled };
            self.breaker.note(self.epoch, end);
        }
    }
}
