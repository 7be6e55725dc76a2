//! The machine's time.

mod machine;
mod moment;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use encx_core::clock::Clock;
pub(crate) use moment::Moment;

/// The machine's own clock.
///
/// [`elapsed`](Clock::elapsed) is [`Instant`](std::time::Instant), which on Linux stands still while the machine is
/// suspended: a cached key does not age while nothing runs. All clocks of a process show the same time.
///
/// On Linux, [`elapsed_coarsely`](Clock::elapsed_coarsely) is the time of the kernel's last tick (`CLOCK_MONOTONIC_COARSE`),
/// at most 30 ms behind; elsewhere it equals `elapsed`.
///
/// ```
/// use encx::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let began = clock.elapsed();
/// assert!(clock.elapsed() >= began);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock {
    _private: (),
}

impl SystemClock {
    /// Creates a handle on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        // The first call defines time zero.
        let _ = machine::since_start();
        Self::default()
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        machine::since_start()
    }

    #[inline]
    fn elapsed_coarsely(&self) -> Duration {
        machine::coarsely_since_start()
    }

    fn unix_millis(&self) -> u64 {
        machine::unix_millis()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
