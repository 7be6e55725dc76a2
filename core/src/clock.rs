//! The clock trait, through which tests control time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Tells the time, and wakes a task later.
///
/// `encx` reads the time only through this trait, so that a test can move it. Services use `encx::SystemClock`; tests
/// use `encx_testkit::ManualClock`.
///
/// The methods are not interchangeable:
///
/// - [`elapsed`](Clock::elapsed) never goes back, and decides how long a key may stay in memory.
/// - [`elapsed_coarsely`](Clock::elapsed_coarsely) is a cheaper `elapsed` for calls whose key is in memory.
/// - [`unix_millis`](Clock::unix_millis) may jump, and only makes the time part of key ids.
/// - [`sleep`](Clock::sleep) paces background work.
///
/// ```
/// use std::pin::Pin;
/// use std::time::Duration;
///
/// use encx::{Clock, SystemClock};
///
/// /// A clock that runs ten times as fast, for a test of a service.
/// #[derive(Debug)]
/// struct Fast(SystemClock);
///
/// impl Clock for Fast {
///     fn elapsed(&self) -> Duration {
///         self.0.elapsed() * 10
///     }
///
///     fn elapsed_coarsely(&self) -> Duration {
///         self.0.elapsed_coarsely() * 10
///     }
///
///     fn unix_millis(&self) -> u64 {
///         self.0.unix_millis()
///     }
///
///     fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
///         self.0.sleep(duration / 10)
///     }
/// }
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time since a fixed but arbitrary moment. It never goes back.
    fn elapsed(&self) -> Duration;

    /// Returns a recent [`elapsed`](Clock::elapsed): never ahead of it, and at most a tenth of a second behind unless the
    /// machine is overloaded.
    ///
    /// Every encryption and decryption calls this, so it should cost a few nanoseconds. A clock with nothing cheaper than
    /// `elapsed` returns that.
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
