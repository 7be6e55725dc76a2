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

/// Linux also keeps the time of its last tick, at most 10 ms ago. Reading it takes a fifth of the time of an `Instant`.
#[cfg(any(target_os = "android", target_os = "linux"))]
mod monotonic {
    use std::sync::OnceLock;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// Returns the time since this process first asked.
    pub(in crate::clock) fn since_start() -> Duration {
        read(ClockId::Monotonic).saturating_sub(*start())
    }

    /// Returns the same as of the kernel's last tick.
    #[inline]
    pub(in crate::clock) fn coarsely_since_start() -> Duration {
        read(ClockId::MonotonicCoarse).saturating_sub(*start())
    }

    #[inline]
    fn start() -> &'static Duration {
        static START: OnceLock<Duration> = OnceLock::new();
        START.get_or_init(|| read(ClockId::Monotonic))
    }

    #[inline]
    fn read(clock: ClockId) -> Duration {
        let at = clock_gettime(clock);
        // Both count from the start of the machine.
        let (seconds, nanos) = (at.tv_sec.unsigned_abs(), at.tv_nsec.unsigned_abs());
        Duration::new(seconds, u32::try_from(nanos).unwrap_or(0))
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
        while last <= first + Duration::from_millis(30) {
            let now = coarsely_since_start();
            assert!(last <= now && now <= since_start());
            last = now;
        }
    }
}
