//! The machine's time.

mod coarse;
mod machine;
mod moment;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub(crate) use coarse::forks_are_noticed;
pub use encx_core::clock::Clock;
pub(crate) use moment::Moment;

/// The machine's own clock.
///
/// [`elapsed`](Clock::elapsed) is [`Instant`](std::time::Instant), which on Linux stands still while the machine is
/// suspended: a cached key does not age while nothing runs. All clocks of a process show the same time.
///
/// One thread per process, `encx-clock`, updates [`elapsed_coarsely`](Clock::elapsed_coarsely) twenty times a second
/// while it is in use. A process that was stopped and continued reads the old time until that thread has run again. If
/// the thread cannot run, the machine is asked instead.
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
        coarse::elapsed()
    }

    fn unix_millis(&self) -> u64 {
        machine::unix_millis()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
