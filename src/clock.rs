//! Where time comes from: the one place that asks the machine, and the trait through which tests set it.

mod coarse;
mod moment;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use coarse::{forget as forget_coarse_time, forks_are_noticed};
pub(crate) use moment::Moment;

/// Tells the time, and wakes a task later.
///
/// `encx` never asks the machine for the time except through this trait, so that a test can move it.
/// Services use [`SystemClock`]; tests use `testkit::ManualClock`.
///
/// The views must not be confused: [`elapsed`](Clock::elapsed) never goes back and decides how long a key may stay in
/// memory; [`elapsed_coarsely`](Clock::elapsed_coarsely) is the same for calls that find their key in memory, which
/// have no time to ask the machine; [`unix_millis`](Clock::unix_millis) may jump, and only makes the time part of
/// key ids; [`sleep`](Clock::sleep) paces background work.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time since a fixed but arbitrary moment. It never goes back.
    fn elapsed(&self) -> Duration;

    /// Returns [`elapsed`](Clock::elapsed) as of a moment ago: never ahead of it, and behind it by a tenth of a second
    /// at most while the machine is not overloaded.
    ///
    /// Every encryption and decryption asks, so it must cost no more than a load from memory. A clock that has nothing
    /// cheaper than `elapsed` returns that.
    fn elapsed_coarsely(&self) -> Duration;

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
/// a key in memory does not age while nothing runs. All clocks of a process show the same time.
///
/// [`elapsed_coarsely`](Clock::elapsed_coarsely) is kept by one thread per process, `encx-clock`, which runs while it is
/// asked for and wakes twenty times a second. A process that was stopped and goes on reads the old time until that
/// thread has run again. Where it cannot run the machine is asked instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock {
    _private: (),
}

impl SystemClock {
    /// Creates a handle on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        // The first one is the beginning of time.
        let _ = since_start();
        Self::default()
    }
}

/// Asks the machine how long ago this process first asked it.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine for the time"
)]
fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        since_start()
    }

    #[inline]
    fn elapsed_coarsely(&self) -> Duration {
        coarse::elapsed()
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
