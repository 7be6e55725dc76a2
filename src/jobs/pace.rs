//! Paces a job: a limit on items a second, and pauses between tries.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// How many times something retryable is tried.
pub(super) const MAX_TRIES: u32 = 6;

/// The first pause between two tries. Each pause doubles, less up to a quarter: 12 to 15 seconds in all, long enough
/// for a circuit breaker to close again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A limit on items a second, shared by all ranges of a worker.
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    per_second: Option<u32>,
    /// When the next items may start.
    free_at: Mutex<Duration>,
}

impl Pace {
    pub(super) fn new(clock: Arc<dyn Clock>, per_second: Option<u32>) -> Self {
        Self {
            clock,
            per_second,
            free_at: Mutex::default(),
        }
    }

    /// Returns the size of a range: in a throttled job at most a second's worth, because a stop waits for the ranges in hand.
    pub(super) fn range(&self, wanted: u32) -> u32 {
        wanted.min(self.per_second.unwrap_or(u32::MAX)).max(1)
    }

    /// Returns how many items may start at once: a second's worth.
    pub(super) fn burst(&self) -> usize {
        self.per_second
            .and_then(|per_second| usize::try_from(per_second).ok())
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Waits until `items` more may start.
    pub(super) async fn admit(&self, items: usize) {
        let Some(per_second) = self.per_second else { return };
        let now = self.clock.elapsed();
        let begin = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = now.max(*free_at);
            let items = u32::try_from(items).unwrap_or(u32::MAX);
            *free_at = begin + Duration::from_secs_f64(f64::from(items) / f64::from(per_second));
            begin
        };
        if begin > now {
            self.clock.sleep(begin.saturating_sub(now)).await;
        }
    }
}

/// Returns how long to wait after this many tries.
pub(super) fn pause_after(tries: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(8));
    doubled.mul_f64(1.0 - 0.25 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_worth_a_second_at_most() {
        let clock: Arc<dyn Clock> = Arc::new(encx_testkit::ManualClock::new());
        let pace = |per_second| Pace::new(Arc::clone(&clock), per_second);
        assert_eq!(pace(None).range(500), 500);
        assert_eq!(pace(Some(10)).range(500), 10);
        assert_eq!(pace(Some(1000)).range(500), 500);
        assert_eq!((pace(Some(1)).range(500), pace(Some(1)).burst()), (1, 1));
    }

    #[test]
    fn pauses_double_and_add_up_to_a_quarter_of_a_minute() {
        let all: Duration = (1..MAX_TRIES).map(pause_after).sum();
        assert!(
            all > Duration::from_secs(11) && all < Duration::from_secs(16),
            "{all:?}"
        );
    }
}
