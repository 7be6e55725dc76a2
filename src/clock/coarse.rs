//! The machine's time as of a moment ago, for calls that cannot afford to ask the machine.
//!
//! One thread per process, the *keeper*, writes the time into one word. A thread and not a task: it goes on while
//! every runtime is blocked or gone, and keys must grow old then too. It runs only while somebody reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::machine::since_start;
use super::moment::{pack, unpack};

/// How often the keeper writes. What is read lags by this, and by what the machine is late.
const EVERY: Duration = Duration::from_millis(50);

/// After how many rounds in which nobody read the keeper ends.
const ROUNDS_UNREAD: u32 = 200;

/// How long a thread that could not be started is not tried again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Stands in the word when there is no keeper.
const NOBODY: u64 = 0;

static WORD: Word = Word {
    time: AtomicU64::new(NOBODY),
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

/// Allows a keeper, now that [`forget`] will be called in a process that `fork` makes. Until then every look asks the
/// machine: a child has the word and not the thread, and its time would stand still.
pub(crate) fn forks_are_noticed() {
    encx_core::memory::forget_in_copies(forget);
    MAY_KEEP.store(true, Ordering::Release);
}

/// Makes the next look ask the machine, and a keeper start anew. The one that runs, if any, ends.
///
/// It is called between `fork` and `exec`, so it must do nothing but store to atomics.
fn forget() {
    WORD.time.store(NOBODY, Ordering::Release);
}

/// Returns the time as of a moment ago; the exact one if nobody keeps it.
#[inline]
pub(super) fn elapsed() -> Duration {
    let time = WORD.time.load(Ordering::Relaxed);
    if time == NOBODY {
        return begin();
    }
    // Read first: a line that many cores write is slow, one that they read is not.
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
    // Before the thread is there: whoever comes meanwhile starts no second one.
    if let Err(kept) = WORD
        .time
        .compare_exchange(NOBODY, first, Ordering::AcqRel, Ordering::Acquire)
    {
        // The same time for all, so that it does not go back for this thread.
        return unpack(kept);
    }
    let keeper = thread::Builder::new().name("encx-clock".to_owned());
    if let Err(error) = keeper.spawn(move || keep(first)) {
        NEXT_TRY.store(pack(now.saturating_add(PAUSE_AFTER_FAILURE)), Ordering::Relaxed);
        let _ = WORD
            .time
            .compare_exchange(first, NOBODY, Ordering::AcqRel, Ordering::Relaxed);
        // Last: a subscriber that asks for the time must not find it standing still.
        tracing::debug!(target: "encx::clock", %error, "no thread for the coarse clock; asking the machine each time");
    }
    now
}

/// Writes the time again and again. Ends when nobody reads it any more, or the word is not its own any more.
fn keep(mut last: u64) {
    let mut rounds = 0;
    loop {
        thread::sleep(EVERY);
        rounds += 1;
        let unread = rounds == ROUNDS_UNREAD && !WORD.read.swap(false, Ordering::Relaxed);
        if rounds == ROUNDS_UNREAD {
            rounds = 0;
        }
        let next = if unread { NOBODY } else { written(since_start()) };
        // Only what this thread wrote is overwritten: after `forget` another may have begun.
        let kept = WORD
            .time
            .compare_exchange(last, next, Ordering::AcqRel, Ordering::Relaxed);
        if unread || kept.is_err() {
            return;
        }
        last = next;
    }
}

/// Gives the word for a time. The very first moment would read as `NOBODY`.
fn written(time: Duration) -> u64 {
    pack(time).max(NOBODY + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for a condition, which the keeper brings about.
    fn until(mut condition: impl FnMut() -> bool) {
        let begin = since_start();
        while !condition() {
            assert!(since_start() - begin < Duration::from_secs(60), "waited in vain");
            thread::yield_now();
        }
    }

    /// All in one test: there is one word for all tests of this process.
    #[test]
    fn the_time_is_kept_while_it_may_be_and_is_never_ahead() {
        forks_are_noticed();
        let first = elapsed();
        assert!(first <= since_start());
        // It moves on without anybody's help.
        until(|| elapsed() > first);
        let mut last = elapsed();
        for _ in 0..10_000 {
            let now = elapsed();
            assert!(last <= now && now <= since_start());
            last = now;
        }
        // Again after it was forgotten, as in the child of a fork.
        for _ in 0..3 {
            forget();
            let anew = elapsed();
            assert!(anew >= last);
            until(|| elapsed() > anew);
            last = elapsed();
        }
    }
}
