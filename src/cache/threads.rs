//! Numbers for the threads of this process, so that each has places of its own that nobody else writes.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many threads have a number at once.
pub(super) const NUMBERED: usize = 32;

thread_local! {
    static MINE: Number = Number::take();
}

/// Bit by bit, whether a number is free.
static FREE: AtomicU64 = AtomicU64::new((1 << NUMBERED) - 1);

/// A thread's number. What is kept under it is taken up by the next owner as this one left it.
struct Number(usize);

/// Returns the number of this thread; [`NUMBERED`] if it came when all were taken, or is about to end.
#[inline]
pub(super) fn mine() -> usize {
    MINE.try_with(|mine| mine.0).unwrap_or(NUMBERED)
}

impl Number {
    fn take() -> Self {
        let mut taken = NUMBERED;
        let _ = FREE.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
            taken = (free.trailing_zeros() as usize).min(NUMBERED);
            // Without the lowest bit that is set.
            (free != 0).then(|| free & (free - 1))
        });
        Self(taken)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if self.0 < NUMBERED {
            FREE.fetch_or(1 << self.0, Ordering::AcqRel);
        }
    }
}
