//! Where a thread has at hand the snapshot that it reads again and again.
//!
//! Keys must leave memory when their time is over, whoever else runs, so a snapshot is never a thread's own: to read one,
//! `arc_swap` takes two instructions that lock a cache line, which cost a tenth of what encrypting a field does. A *seat* is
//! one thread's, and needs one such instruction: a lock that nobody else wants, and that is given back by a plain store.
//!
//! Whoever replaces a snapshot *evicts* it first: nobody begins to use it from then on. Nobody waits for another here: a lock
//! that is taken means to read elsewhere, and who is about to use a seat empties it afterwards if it was evicted
//! meanwhile. So it holds nobody up that a thread was interrupted, or does not exist in this process since a `fork`.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};

use arc_swap::{ArcSwapOption, Guard};
use spin::mutex::{SpinMutex, SpinMutexGuard};

use super::snapshot::Snapshot;
use crate::cache::threads::{self, NUMBERED};

/// So often in a row must a thread miss an entry's snapshot before it takes a seat: whoever goes from entry to entry takes none.
const IN_A_ROW: u32 = 8;

/// How many hints to the processor an eviction waits, some microseconds, before it looks for the second time whether a seat
/// can be emptied.
const PAUSE: u32 = 100;

/// Instead of an address, where there is none.
const NOWHERE: usize = 0;

/// By thread, the address of the place whose snapshot may be used in its seat. Apart from the seats and close together,
/// because every eviction reads them all.
static HOLDS: Holds = Holds([const { AtomicUsize::new(NOWHERE) }; NUMBERED]);

static SEATS: [Seat; NUMBERED] = [const { Seat::empty() }; NUMBERED];

/// On lines of their own, which hot calls read and hardly anybody writes.
#[repr(align(128))]
struct Holds([AtomicUsize; NUMBERED]);

/// On lines of its own, which only its thread writes while nobody evicts.
#[repr(align(128))]
struct Seat {
    kept: SpinMutex<Option<SeatedSnapshot>>,
    /// The entry whose snapshot was missed last, and how often in a row.
    missed: AtomicUsize,
    times: AtomicU32,
}

struct SeatedSnapshot {
    of: usize,
    snapshot: Arc<Snapshot>,
}

/// A thread's seat, and what it may be used for.
#[derive(Clone, Copy)]
struct Mine {
    seat: &'static Seat,
    holds: &'static AtomicUsize,
}

/// Where an entry publishes its snapshot. It stays where it is once it was read: seats know it by its address.
pub(super) struct Published {
    current: ArcSwapOption<Snapshot>,
    /// Whether `current` is about to change.
    replacing: AtomicBool,
}

/// The snapshot of an entry, for one call.
pub(crate) enum SnapshotGuard {
    Seated(SeatGuard),
    Shared(Guard<Option<Arc<Snapshot>>>),
}

/// A seat in use.
pub(crate) struct SeatGuard {
    // In this order: the lock is given back before one looks whether the seat is to be emptied.
    kept: SpinMutexGuard<'static, Option<SeatedSnapshot>>,
    _leave: Leave,
}

/// Empties the seat when dropped, if it was evicted.
struct Leave {
    mine: Mine,
    of: usize,
}

impl Published {
    pub(super) const fn new() -> Self {
        Self {
            current: ArcSwapOption::const_empty(),
            replacing: AtomicBool::new(false),
        }
    }

    /// Reads the snapshot. Never waits.
    #[inline(always)]
    pub(super) fn read(&self) -> SnapshotGuard {
        if let Some(mine) = Mine::find() {
            if let Some(seated) = mine.sit(self) {
                return SnapshotGuard::Seated(seated);
            }
            mine.note_miss(self);
        }
        SnapshotGuard::Shared(self.current.load())
    }

    /// Tells whether this is the snapshot now.
    pub(super) fn is(&self, snapshot: &Arc<Snapshot>) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, snapshot))
    }

    /// Replaces the snapshot; one caller at a time. `wait` retries the eviction of the old one.
    pub(super) fn replace(&self, snapshot: Option<Snapshot>, wait: bool) {
        self.replacing.store(true, Ordering::Relaxed);
        // First: who has seen the new one must not hear of the old one again.
        self.evict(wait);
        self.current.store(snapshot.map(Arc::new));
        self.replacing.store(false, Ordering::Release);
    }

    /// Empties all seats that have the snapshot. Nobody takes one again while `replacing` is set, so whoever begins to read from then on reads `current`.
    ///
    /// A seat that is in use is emptied by its user. With `twice`, this makes as good as sure of it.
    fn evict(&self, twice: bool) {
        fence(Ordering::SeqCst);
        let of = self.address();
        let mut in_use = [false; NUMBERED];
        for ((holds, seat), in_use) in HOLDS.0.iter().zip(&SEATS).zip(&mut in_use) {
            if holds.load(Ordering::Relaxed) == of {
                // Not if its thread has taken another's meanwhile.
                let _ = holds.compare_exchange(of, NOWHERE, Ordering::SeqCst, Ordering::Relaxed);
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

    /// Tells it from others for as long as it exists.
    #[inline(always)]
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Another may come to stand at the same address.
        self.evict(true);
    }
}

impl SnapshotGuard {
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Seated(seated) => seated.kept.as_ref().map(|kept| &kept.snapshot),
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
    fn sit(self, published: &Published) -> Option<SeatGuard> {
        let of = published.address();
        if self.holds.load(Ordering::Relaxed) != of {
            return None;
        }
        let seated = SeatGuard {
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
    fn note_miss(self, published: &Published) {
        let (seat, of) = (self.seat, published.address());
        // Only this thread writes these.
        if seat.missed.load(Ordering::Relaxed) != of {
            seat.missed.store(of, Ordering::Relaxed);
            seat.times.store(0, Ordering::Relaxed);
            return;
        }
        let times = seat.times.load(Ordering::Relaxed);
        if times >= IN_A_ROW {
            return self.take(published);
        }
        seat.times.store(times + 1, Ordering::Relaxed);
    }

    /// Takes the snapshot of an entry.
    #[cold]
    #[inline(never)]
    fn take(self, published: &Published) {
        let Some(kept) = self.seat.kept.try_lock() else {
            return;
        };
        let of = published.address();
        // As whoever used the seat: an eviction may come meanwhile.
        let mut seated = SeatGuard {
            kept,
            _leave: Leave { mine: self, of },
        };
        let before = seated.kept.take();
        self.holds.store(of, Ordering::Relaxed);
        // As in `evict`: either that sees what `holds` says now, or this sees that the snapshot is being replaced.
        fence(Ordering::SeqCst);
        let replaced = published.replacing.load(Ordering::Acquire);
        let snapshot = published.current.load_full().filter(|_| !replaced);
        if snapshot.is_none() {
            self.holds.store(NOWHERE, Ordering::Relaxed);
        }
        *seated.kept = snapshot.map(|snapshot| SeatedSnapshot { of, snapshot });
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

/// Empties the seats of all evicted snapshots, should one have been left in its seat all the same. To be called every now
/// and then.
pub(crate) fn tidy() {
    for (holds, seat) in HOLDS.0.iter().zip(&SEATS) {
        if holds.load(Ordering::Relaxed) == NOWHERE {
            (Mine { seat, holds }).empty();
        }
    }
}

impl Seat {
    const fn empty() -> Self {
        Self {
            kept: SpinMutex::new(None),
            missed: AtomicUsize::new(NOWHERE),
            times: AtomicU32::new(0),
        }
    }
}

#[cfg(test)]
mod tests;
