//! Where a thread has at hand the snapshot that it reads again and again.
//!
//! Keys must leave memory when their time is over, whoever else runs, so a snapshot is never a thread's own: to read one,
//! `arc_swap` takes two instructions that lock a cache line, which cost a tenth of what encrypting a field does. A *seat* is
//! one thread's, and needs one such instruction: a lock that nobody else wants, and that is given back by a plain store.
//!
//! Whoever replaces a snapshot *evicts* it first: nobody begins to use it from then on. Nobody waits for another here: a lock
//! that is taken means to read elsewhere, and who is about to use a seat empties it afterwards if it was evicted
//! meanwhile. So it holds nobody up that a thread was interrupted, or does not exist in this process since a `fork`.

#[cfg(test)]
mod tests;

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};

use arc_swap::Guard;
use spin::mutex::{SpinMutex, SpinMutexGuard};

use super::{Entry, Snapshot};
use crate::cache::threads::{self, NUMBERED};

/// So often in a row must a thread miss an entry's snapshot before it takes a seat: whoever goes from entry to entry takes none.
const IN_A_ROW: u32 = 8;

/// How many hints to the processor an eviction waits, some microseconds, before it looks for the second time whether a seat
/// can be emptied.
const PAUSE: u32 = 100;

/// In the place of an entry's address, where none is.
const NO_ENTRY: usize = 0;

/// By thread, the address of the entry whose snapshot may be used in its seat. Apart from the seats and close together,
/// because every eviction reads them all.
static HOLDS: Holds = Holds([const { AtomicUsize::new(NO_ENTRY) }; NUMBERED]);

static SEATS: [Seat; NUMBERED] = [const { Seat::empty() }; NUMBERED];

/// On lines of their own, which hot calls read and hardly anybody writes.
#[repr(align(128))]
struct Holds([AtomicUsize; NUMBERED]);

/// On lines of its own, which only its thread writes while nobody evicts.
#[repr(align(128))]
struct Seat {
    kept: SpinMutex<Option<Kept>>,
    /// The entry whose snapshot was missed last, and how often in a row.
    missed: AtomicUsize,
    times: AtomicU32,
}

struct Kept {
    of: usize,
    set: Arc<Snapshot>,
}

/// A thread's seat, and what it may be used for.
#[derive(Clone, Copy)]
struct Mine {
    seat: &'static Seat,
    holds: &'static AtomicUsize,
}

/// The snapshot of an entry, for one call.
pub(crate) enum Live {
    Seated(Seated),
    Shared(Guard<Option<Arc<Snapshot>>>),
}

/// A seat in use.
pub(crate) struct Seated {
    // In this order: the lock is given back before one looks whether the seat is to be emptied.
    kept: SpinMutexGuard<'static, Option<Kept>>,
    _leave: Leave,
}

/// Empties the seat when dropped, if it was evicted.
struct Leave {
    mine: Mine,
    of: usize,
}

impl Live {
    /// Reads an entry's snapshot.
    #[inline(always)]
    pub(super) fn of(entry: &Entry) -> Self {
        if let Some(mine) = Mine::find() {
            if let Some(seated) = mine.sit(entry) {
                return Self::Seated(seated);
            }
            mine.note_miss(entry);
        }
        Self::Shared(entry.live.load())
    }

    #[inline(always)]
    pub(crate) fn set(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Seated(seated) => seated.kept.as_ref().map(|kept| &kept.set),
            Self::Shared(shared) => shared.as_ref(),
        }
    }
}

impl Mine {
    #[inline(always)]
    fn find() -> Option<Self> {
        let number = threads::mine();
        Some(Self {
            holds: HOLDS.0.get(number)?,
            seat: SEATS.get(number)?,
        })
    }

    /// Uses the seat, if it has the snapshot of this entry.
    #[inline(always)]
    fn sit(self, entry: &Entry) -> Option<Seated> {
        let of = address(entry);
        if self.holds.load(Ordering::Relaxed) != of {
            return None;
        }
        let seated = Seated {
            kept: self.seat.kept.try_lock()?,
            _leave: Leave { mine: self, of },
        };
        // Not always: it may have been emptied between the two looks.
        if seated.kept.as_ref().is_none_or(|kept| kept.of != of) {
            return None;
        }
        // What is missed from now on is not missed in a row with what was before.
        self.seat.missed.store(of, Ordering::Relaxed);
        Some(seated)
    }

    /// Notes that the snapshot of an entry was not here, and takes it if that was so several times in a row.
    #[inline(always)]
    fn note_miss(self, entry: &Entry) {
        let (seat, of) = (self.seat, address(entry));
        // Only this thread writes these.
        if seat.missed.load(Ordering::Relaxed) != of {
            seat.missed.store(of, Ordering::Relaxed);
            seat.times.store(0, Ordering::Relaxed);
            return;
        }
        let times = seat.times.load(Ordering::Relaxed);
        if times >= IN_A_ROW {
            return self.take(entry);
        }
        seat.times.store(times + 1, Ordering::Relaxed);
    }

    /// Takes the snapshot of an entry.
    #[cold]
    #[inline(never)]
    fn take(self, entry: &Entry) {
        let Some(kept) = self.seat.kept.try_lock() else {
            return;
        };
        let of = address(entry);
        // As whoever used the seat: an eviction may come meanwhile.
        let mut seated = Seated {
            kept,
            _leave: Leave { mine: self, of },
        };
        let before = seated.kept.take();
        self.holds.store(of, Ordering::Relaxed);
        // As in `evict`: either that sees what `holds` says now, or this sees that the snapshot is being replaced.
        fence(Ordering::SeqCst);
        let replaced = entry.replacing.load(Ordering::Acquire);
        let set = entry.live.load_full().filter(|_| !replaced);
        if set.is_none() {
            self.holds.store(NO_ENTRY, Ordering::Relaxed);
        }
        *seated.kept = set.map(|set| Kept { of, set });
        drop(seated);
        drop(before);
    }

    /// Lets go of a snapshot that was evicted. `false` if the seat is in use.
    #[cold]
    #[inline(never)]
    fn empty(self) -> bool {
        loop {
            let Some(mut kept) = self.seat.kept.try_lock() else {
                return false;
            };
            let gone = kept.take_if(|kept| self.holds.load(Ordering::Relaxed) != kept.of);
            let stays = kept.as_ref().map(|kept| kept.of);
            // The lock is given back before keys are wiped, so that the thread need not read elsewhere meanwhile.
            drop(kept);
            drop(gone);
            // Who evicted it just now may have found the seat in use, by this.
            if stays.is_none_or(|of| self.holds.load(Ordering::Relaxed) == of) {
                return true;
            }
        }
    }
}

impl Drop for Leave {
    #[inline(always)]
    fn drop(&mut self) {
        // The lock was given back before. The processor may look here first all the same, while others still see the lock:
        // therefore `evict` looks twice, and `tidy` finds the rest.
        compiler_fence(Ordering::SeqCst);
        if self.mine.holds.load(Ordering::Relaxed) != self.of {
            self.mine.empty();
        }
    }
}

/// Empties all seats that have the snapshot of an entry. Nobody takes one again while the entry's `replacing` is set, so whoever
/// begins to read from then on reads the entry itself.
///
/// A seat that is in use is emptied by its user. With `twice`, this makes as good as sure of it.
pub(super) fn evict(entry: &Entry, twice: bool) {
    fence(Ordering::SeqCst);
    let of = address(entry);
    let mut in_use = [false; NUMBERED];
    for ((holds, seat), in_use) in HOLDS.0.iter().zip(&SEATS).zip(&mut in_use) {
        if holds.load(Ordering::Relaxed) == of {
            // Not if its thread has taken another entry's meanwhile.
            let _ = holds.compare_exchange(of, NO_ENTRY, Ordering::SeqCst, Ordering::Relaxed);
            *in_use = !(Mine { seat, holds }).empty();
        }
    }
    if let Some(mine) = in_use.get_mut(threads::mine()) {
        // This thread's own, if in use, is emptied when the call is done that is going on.
        *mine = false;
    }
    if twice && in_use.contains(&true) {
        (0..PAUSE).for_each(|_| spin_loop());
        for ((holds, seat), _) in HOLDS
            .0
            .iter()
            .zip(&SEATS)
            .zip(in_use)
            .filter(|(_, in_use)| *in_use)
        {
            (Mine { seat, holds }).empty();
        }
    }
}

/// Empties the seats of all evicted snapshots, should one have been left in its seat all the same. To be called every now
/// and then.
pub(crate) fn tidy() {
    for (holds, seat) in HOLDS.0.iter().zip(&SEATS) {
        if holds.load(Ordering::Relaxed) == NO_ENTRY {
            (Mine { seat, holds }).empty();
        }
    }
}

impl Seat {
    const fn empty() -> Self {
        Self {
            kept: SpinMutex::new(None),
            missed: AtomicUsize::new(NO_ENTRY),
            times: AtomicU32::new(0),
        }
    }
}

/// Tells entries apart for as long as they exist. An entry evicts its snapshot when it is dropped.
#[inline(always)]
fn address(entry: &Entry) -> usize {
    std::ptr::from_ref(entry).addr()
}
