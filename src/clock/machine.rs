//! The one place that asks the machine for the time.
#![allow(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine for the time"
)]

use std::time::{SystemTime, UNIX_EPOCH};

pub(super) use self::monotonic::{coarsely_since_start, since_start};

/// Returns the milliseconds since 1970.
pub(super) fn unix_millis() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// Linux also keeps the time of its last tick, which takes a fifth of the time of an `Instant` to read. Both are the same clock.
#[cfg(any(target_os = "android", target_os = "linux"))]
mod monotonic {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    /// How far the last tick may be in the past: 10 ms at the lowest tick rate.
    const MAX_LAG: Duration = Duration::from_millis(10);

    struct Start {
        exact: Instant,
        coarse: coarsetime::Instant,
    }

    /// Returns the time since this process first asked, and [`MAX_LAG`]: the coarse time, whose start lagged, is never ahead.
    pub(in crate::clock) fn since_start() -> Duration {
        start().exact.elapsed() + MAX_LAG
    }

    /// Returns a time that is at most three times [`MAX_LAG`] behind.
    #[inline]
    pub(in crate::clock) fn coarsely_since_start() -> Duration {
        // Not `now`, which writes to a global that all threads share.
        let now = coarsetime::Instant::now_without_cache_update();
        Duration::from_nanos(now.duration_since(start().coarse).as_nanos())
    }

    #[inline]
    fn start() -> &'static Start {
        static START: OnceLock<Start> = OnceLock::new();
        START.get_or_init(|| {
            loop {
                let exact = Instant::now();
                let coarse = coarsetime::Instant::now_without_cache_update();
                // A thread that is interrupted between the two would be behind for as long as the process lives.
                if exact.elapsed() < MAX_LAG {
                    return Start { exact, coarse };
                }
            }
        })
    }
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
mod monotonic {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    /// Returns the time since this process first asked.
    pub(in crate::clock) fn since_start() -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    /// Returns the same: there is no cheaper clock.
    pub(in crate::clock) fn coarsely_since_start() -> Duration {
        since_start()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
