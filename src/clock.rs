//! The machine's time: the one place that asks for it.

mod coarse;
mod moment;

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use coarse::forks_are_noticed;
pub use encx_core::clock::Clock;
pub(crate) use moment::Moment;

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
