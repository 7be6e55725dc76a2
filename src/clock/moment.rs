//! A clock's moment that many threads read and some write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Stores a [`Clock`](super::Clock)'s moment.
///
/// One word holds whole seconds and the rest, as [`Duration`] does: reading needs no division, and the greater word is
/// the later moment.
#[derive(Debug)]
pub(crate) struct Moment(AtomicU64);

/// The bits of a second's nanoseconds.
const REST_BITS: u32 = 30;
const MAX_SECONDS: u64 = u64::MAX >> REST_BITS;

impl Moment {
    /// Starts at the clock's time zero.
    pub(crate) const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn new(moment: Duration) -> Self {
        Self(AtomicU64::new(pack(moment)))
    }

    #[inline]
    pub(crate) fn get(&self) -> Duration {
        unpack(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, moment: Duration) {
        self.0.store(pack(moment), Ordering::Release);
    }

    /// Advances, never back.
    pub(crate) fn advance_to(&self, moment: Duration) {
        self.0.fetch_max(pack(moment), Ordering::AcqRel);
    }
}

/// Saturates at more than five centuries.
pub(super) const fn pack(moment: Duration) -> u64 {
    if moment.as_secs() > MAX_SECONDS {
        return pack(Duration::new(MAX_SECONDS, 999_999_999));
    }
    // Loses no bits: 30 hold a second's nanoseconds.
    moment.as_secs() << REST_BITS | moment.subsec_nanos() as u64
}

#[inline]
pub(super) const fn unpack(packed: u64) -> Duration {
    // The remainder has 30 bits.
    #[allow(clippy::cast_possible_truncation)]
    Duration::new(packed >> REST_BITS, (packed & ((1 << REST_BITS) - 1)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_as_it_was_and_later_ones_are_greater() {
        let moments = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(999_999_999),
            Duration::from_secs(1),
            Duration::new(1, 1),
            Duration::new(3600 * 24 * 365 * 100, 999_999_999),
            Duration::new(MAX_SECONDS, 999_999_999),
        ];
        for moment in moments {
            assert_eq!(Moment::new(moment).get(), moment);
        }
        assert!(moments.iter().map(|moment| pack(*moment)).is_sorted());
        assert_eq!(Moment::new(Duration::MAX).get(), moments[moments.len() - 1]);
    }

    #[test]
    fn it_never_goes_back_unless_it_is_set() {
        let moment = Moment::new(Duration::from_secs(5));
        moment.advance_to(Duration::from_secs(3));
        assert_eq!(moment.get(), Duration::from_secs(5));
        moment.advance_to(Duration::from_secs(7));
        assert_eq!(moment.get(), Duration::from_secs(7));
        moment.set(Duration::ZERO);
        assert_eq!(moment.get(), Duration::ZERO);
    }
}
