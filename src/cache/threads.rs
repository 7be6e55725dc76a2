//! Numbers the threads of this process, so that each has places that only it writes.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many threads can have a number at once.
pub(super) const NUMBERED: usize = 32;

thread_local! {
    static MINE: Number = Number::take();
}

/// One bit for each number: whether it is free.
static FREE: AtomicU64 = AtomicU64::new((1 << NUMBERED) - 1);

/// A thread's number. The next owner inherits what is stored under it.
struct Number(usize);

/// Returns the number of this thread; [`NUMBERED`] if all were taken when it started, or if it is exiting.
#[inline]
pub(super) fn mine() -> usize {
    MINE.try_with(|mine| mine.0).unwrap_or(NUMBERED)
}

impl Number {
    fn take() -> Self {
        let mut taken = NUMBERED;
        let _ = FREE.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
            taken = (free.trailing_zeros() as usize).min(NUMBERED);
            // Clears the lowest set bit.
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
