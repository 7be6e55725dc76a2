//! A clock that a test moves, and the machine's clock.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use encx_core::clock::Clock;

/// A clock that stands still until [`advance`](ManualClock::advance) moves it, which wakes every sleeper that is due.
///
/// Clones share one time, which begins at 2026-01-01T00:00:00Z.
#[derive(Clone)]
pub struct ManualClock(Arc<Shared>);

struct Shared {
    elapsed: watch::Sender<Duration>,
    sleepers: Mutex<Sleepers>,
}

/// The sleepers and when each is due.
#[derive(Default)]
struct Sleepers {
    until: BTreeSet<(Duration, u64)>,
    ever: u64,
}

const START_MILLIS: u64 = 1_767_225_600_000;

impl ManualClock {
    /// Creates a clock that has not moved yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            elapsed: watch::Sender::new(Duration::ZERO),
            sleepers: Mutex::default(),
        }))
    }

    /// Moves the clock, and wakes every sleeper that is due.
    pub fn advance(&self, duration: Duration) {
        self.0.elapsed.send_modify(|elapsed| *elapsed += duration);
    }

    /// Returns when the next sleeper is due, of those not due yet.
    #[cfg(feature = "harness")]
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let now = self.elapsed();
        let after_now = (now, u64::MAX)..;
        self.0
            .sleepers()
            .until
            .range(after_now)
            .next()
            .map(|(until, _)| *until)
    }

    /// Returns the number of sleeps so far.
    #[cfg(feature = "harness")]
    pub(crate) fn sleeps_ever(&self) -> u64 {
        self.0.sleepers().ever
    }
}

impl Shared {
    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a sleeper from the list when it wakes or is dropped.
struct Asleep {
    shared: Arc<Shared>,
    entry: (Duration, u64),
}

impl Asleep {
    fn until(shared: &Arc<Shared>, until: Duration) -> Self {
        let mut sleepers = shared.sleepers();
        sleepers.ever += 1;
        let entry = (until, sleepers.ever);
        sleepers.until.insert(entry);
        Self {
            shared: Arc::clone(shared),
            entry,
        }
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.shared.sleepers().until.remove(&self.entry);
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
        *self.0.elapsed.borrow()
    }

    fn elapsed_coarsely(&self) -> Duration {
        self.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        START_MILLIS + u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX - START_MILLIS)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut elapsed = self.0.elapsed.subscribe();
        let until = self.elapsed().saturating_add(duration);
        let asleep = Asleep::until(&self.0, until);
        Box::pin(async move {
            // `asleep` owns the sender, so the channel is open.
            let _ = elapsed.wait_for(|elapsed| *elapsed >= until).await;
            drop(asleep);
        })
    }
}

/// The machine's own clock, the default of a KMS and a key store.
///
/// Not `encx::SystemClock`: tests of providers need no `encx`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineClock;

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine for the time"
)]
impl Clock for MachineClock {
    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn elapsed_coarsely(&self) -> Duration {
        self.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
