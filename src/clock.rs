//! Where time comes from: the one place that asks the machine, and the trait through which tests set it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time, and wakes a task later.
///
/// `encx` never asks the machine for the time except through this trait, so that a test can move it.
/// Services use [`SystemClock`]; tests use `testkit::ManualClock`.
///
/// Three views, because they must not be confused: [`elapsed`](Clock::elapsed) never goes back and
/// decides how long a key may stay in memory; [`unix_millis`](Clock::unix_millis) may jump, and only
/// makes the time part of key ids; [`sleep`](Clock::sleep) paces background work.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time since a fixed but arbitrary moment. It never goes back.
    fn elapsed(&self) -> Duration;

    /// Returns the milliseconds since 1970-01-01T00:00:00Z, by the wall clock.
    fn unix_millis(&self) -> u64;

    /// Completes once [`elapsed`](Clock::elapsed) has advanced by `duration`.
    ///
    /// # Cancellation
    ///
    /// The future may be dropped at any time.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's own clock.
///
/// [`elapsed`](Clock::elapsed) is [`Instant`], which on Linux stands still while the machine is suspended:
/// a key in memory does not age while nothing runs.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Creates a clock whose [`elapsed`](Clock::elapsed) time begins now.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine for the time"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine for the time"
    )]
    fn unix_millis(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
