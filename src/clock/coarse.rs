//! The machine's time as of a moment ago, for calls that cannot afford to ask the machine.
//!
//! One thread per process, the *keeper*, writes the time into one word. It is a thread rather than a task because keys
//! must age even while every runtime is blocked or gone. It runs only while the word is read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::machine::since_start;
use super::moment::{pack, unpack};

/// How often the keeper writes. The read time lags by this, plus the machine's own delay.
const EVERY: Duration = Duration::from_millis(50);

/// After how many rounds without a read the keeper ends.
const ROUNDS_UNREAD: u32 = 200;

/// How long to wait before another attempt to start the thread.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The word's value while there is no keeper.
const NO_KEEPER: u64 = 0;

static WORD: Word = Word {
    time: AtomicU64::new(NO_KEEPER),
    read: AtomicBool::new(false),
};
static MAY_KEEP: AtomicBool = AtomicBool::new(false);
static NEXT_TRY: AtomicU64 = AtomicU64::new(0);

/// Both in one cache line, which the readers share.
#[repr(align(128))]
struct Word {
    time: AtomicU64,
    read: AtomicBool,
}

/// Allows a keeper, because from now on a `fork` calls [`forget`] in the child. Before that, every read asks the
/// machine: a child would have the word but not the thread, and its time would stand still.
pub(crate) fn forks_are_noticed() {
    encx_core::memory::forget_in_copies(forget);
    MAY_KEEP.store(true, Ordering::Release);
}

/// Makes the next read ask the machine and start a new keeper. A running keeper ends.
///
/// It runs between `fork` and `exec`, so it must only store to atomics.
fn forget() {
    WORD.time.store(NO_KEEPER, Ordering::Release);
}

/// Returns the time as of a moment ago, or the exact time if there is no keeper.
#[inline]
pub(super) fn elapsed() -> Duration {
    let time = WORD.time.load(Ordering::Relaxed);
    if time == NO_KEEPER {
        return begin();
    }
    // Read first: a cache line that many cores write is slow, one that they only read is not.
    if !WORD.read.load(Ordering::Relaxed) {
        WORD.read.store(true, Ordering::Relaxed);
    }
    unpack(time)
}

/// Returns the exact time, and starts a keeper.
#[cold]
fn begin() -> Duration {
    let now = since_start();
    if !MAY_KEEP.load(Ordering::Acquire) || pack(now) < NEXT_TRY.load(Ordering::Relaxed) {
        return now;
    }
    let first = written(now);
    // Before the thread exists, so that a concurrent caller does not start a second one.
    if let Err(kept) = WORD
        .time
        .compare_exchange(NO_KEEPER, first, Ordering::AcqRel, Ordering::Acquire)
    {
        // The same time for all, so that it does not go back for this thread.
        return unpack(kept);
    }
    let keeper = thread::Builder::new().name("encx-clock".to_owned());
    if let Err(error) = keeper.spawn(move || keep(first)) {
        NEXT_TRY.store(pack(now.saturating_add(PAUSE_AFTER_FAILURE)), Ordering::Relaxed);
        let _ = WORD
            .time
            .compare_exchange(first, NO_KEEPER, Ordering::AcqRel, Ordering::Relaxed);
        // Last: a subscriber that asks for the time must not find it standing still.
        tracing::debug!(target: "encx::clock", %error, "no thread for the coarse clock; asking the machine each time");
    }
    now
}

/// Writes the time repeatedly. Ends when it is no longer read, or another keeper owns the word.
fn keep(mut last: u64) {
    let mut rounds = 0;
    loop {
        thread::sleep(EVERY);
        rounds += 1;
        let unread = rounds == ROUNDS_UNREAD && !WORD.read.swap(false, Ordering::Relaxed);
        if rounds == ROUNDS_UNREAD {
            rounds = 0;
        }
        let next = if unread { NO_KEEPER } else { written(since_start()) };
        // Overwrites only its own value: after `forget` another keeper may have started.
        let kept = WORD
            .time
            .compare_exchange(last, next, Ordering::AcqRel, Ordering::Relaxed);
        if unread || kept.is_err() {
            return;
        }
        last = next;
    }
}

/// Encodes a time. Time zero would read as `NO_KEEPER`.
fn written(time: Duration) -> u64 {
    pack(time).max(NO_KEEPER + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the keeper makes a condition true.
    fn until(mut condition: impl FnMut() -> bool) {
        let begin = since_start();
        while !condition() {
            assert!(since_start() - begin < Duration::from_secs(60), "waited in vain");
            thread::yield_now();
        }
    }

    /// A single test, because all tests of this process share one word.
    #[test]
    fn the_time_is_kept_while_it_may_be_and_is_never_ahead() {
        forks_are_noticed();
        let first = elapsed();
        assert!(first <= since_start());
        // It advances without further calls.
        until(|| elapsed() > first);
        let mut last = elapsed();
        for _ in 0..10_000 {
            let now = elapsed();
            assert!(last <= now && now <= since_start());
            last = now;
        }
        // Again after `forget`, as in the child of a fork.
        for _ in 0..3 {
            forget();
            let anew = elapsed();
            assert!(anew >= last);
            until(|| elapsed() > anew);
            last = elapsed();
        }
    }
}
