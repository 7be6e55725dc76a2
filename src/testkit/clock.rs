//! A clock that stands still until a test moves it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;

/// Stands still until [`advance`](ManualClock::advance) is called, and then wakes who slept long enough.
///
/// Clones share one time. It begins at 2026-01-01T00:00:00Z.
#[derive(Clone)]
pub struct ManualClock(Arc<watch::Sender<Duration>>);

const START_MILLIS: u64 = 1_767_225_600_000;

impl ManualClock {
    /// Creates a clock that has not moved yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Duration::ZERO)))
    }

    /// Moves the clock, and wakes every sleeper whose time has come.
    pub fn advance(&self, duration: Duration) {
        self.0.send_modify(|elapsed| *elapsed += duration);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.elapsed()).finish()
    }
}

impl Clock for ManualClock {
    fn elapsed(&self) -> Duration {
        *self.0.borrow()
    }

    fn elapsed_coarsely(&self) -> Duration {
        self.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        START_MILLIS + u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX - START_MILLIS)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut elapsed = self.0.subscribe();
        let until = self.elapsed().saturating_add(duration);
        Box::pin(async move {
            // An error means that the clock is gone: nobody will ever move it again.
            if elapsed.wait_for(|elapsed| *elapsed >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
