//! The one place that asks the machine for the time.
#![allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine for the time"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far the machine's coarse clock may lag: at most 10 ms on Linux, 16 ms on Windows.
const MAX_LAG: Duration = Duration::from_millis(20);

/// When this process first asked.
struct Start {
    coarse: coarsetime::Instant,
    exact: Instant,
}

/// Returns the time since this process first asked, and [`MAX_LAG`]: so the coarse time, whose start may have lagged, is
/// never ahead.
pub(super) fn since_start() -> Duration {
    start().exact.elapsed() + MAX_LAG
}

/// Returns a time that is at most twice [`MAX_LAG`] behind. On Linux it is that of the kernel's last tick, which takes a
/// fifth of the time of an `Instant`.
#[inline]
pub(super) fn coarsely_since_start() -> Duration {
    let since = coarsetime::Instant::now().duration_since(start().coarse);
    Duration::from_nanos(since.as_nanos())
}

fn start() -> &'static Start {
    static START: OnceLock<Start> = OnceLock::new();
    START.get_or_init(|| Start {
        coarse: coarsetime::Instant::now(),
        exact: Instant::now(),
    })
}

/// Returns the milliseconds since 1970.
pub(super) fn unix_millis() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_time_advances_and_is_never_ahead() {
        let first = coarsely_since_start();
        let mut last = first;
        while last <= first + Duration::from_millis(50) {
            let now = coarsely_since_start();
            let exact = since_start();
            assert!(last <= now && now <= exact, "{last:?} {now:?} {exact:?}");
            last = now;
        }
    }
}
