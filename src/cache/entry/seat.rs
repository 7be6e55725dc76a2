//! Gives a thread fast access to the snapshot that it reads repeatedly.
//!
//! Keys must leave memory when they expire, even if their threads are idle, so a thread cannot own a snapshot. Reading
//! one through `arc_swap` takes two instructions that lock a cache line, a tenth of the time of encrypting a field. A
//! *seat* belongs to one thread and needs one such instruction: an uncontended lock, released by a plain store.
//!
//! Replacing a snapshot first *evicts* it, so that no new call uses it. Threads never wait for each other: if a lock is
//! taken, the reader reads elsewhere, and the user of an evicted seat empties it when it is done. So a thread that was
//! interrupted, or that does not exist after a `fork`, blocks no other.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};

use arc_swap::{ArcSwapOption, Guard};
use spin::mutex::{SpinMutex, SpinMutexGuard};

use super::snapshot::Snapshot;
use crate::cache::threads::{self, NUMBERED};

/// How often in a row a thread must miss an entry's snapshot before it takes a seat. Alternating
/// between entries takes none.
const IN_A_ROW: u32 = 8;

/// How many spin hints an eviction waits, some microseconds, before its second attempt to empty a seat.
const PAUSE: u32 = 100;

/// Stands for no address.
const NOWHERE: usize = 0;

/// By thread, the address of the `Published` whose snapshot its seat may serve. Separate from the seats and contiguous,
/// because every eviction reads them all.
static HOLDS: Holds = Holds([const { AtomicUsize::new(NOWHERE) }; NUMBERED]);

static SEATS: [Seat; NUMBERED] = [const { Seat::empty() }; NUMBERED];

/// On cache lines of its own, which hot calls read and which are rarely written.
#[repr(align(128))]
struct Holds([AtomicUsize; NUMBERED]);

/// On cache lines of its own, which only its thread writes unless it is evicted.
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

/// A thread's seat, and the address that it may serve.
#[derive(Clone, Copy)]
struct Mine {
    seat: &'static Seat,
    holds: &'static AtomicUsize,
}

/// An entry's published snapshot. It must not move after the first read: seats identify it by its address.
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
    // In this order: the lock is released before `Leave` checks for an eviction.
    kept: SpinMutexGuard<'static, Option<SeatedSnapshot>>,
    _leave: Leave,
}

/// On drop, empties the seat if it was evicted.
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

    /// Tells whether this is the current snapshot.
    pub(super) fn is(&self, snapshot: &Arc<Snapshot>) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, snapshot))
    }

    /// Replaces the snapshot; one caller at a time. `wait` retries the eviction of the old one.
    pub(super) fn replace(&self, snapshot: Option<Snapshot>, wait: bool) {
        self.replacing.store(true, Ordering::Relaxed);
        // First: a thread that has seen the new snapshot must not see the old one again.
        self.evict(wait);
        self.current.store(snapshot.map(Arc::new));
        self.replacing.store(false, Ordering::Release);
    }

    /// Empties all seats with this snapshot. No seat takes it while `replacing` is set, so later readers read `current`.
    ///
    /// A seat in use is emptied by its user. With `twice`, eviction tries again after a pause, which is
    /// almost certain to succeed.
    fn evict(&self, twice: bool) {
        fence(Ordering::SeqCst);
        let of = self.address();
        let mut in_use = [false; NUMBERED];
        for ((holds, seat), in_use) in HOLDS.0.iter().zip(&SEATS).zip(&mut in_use) {
            if holds.load(Ordering::Relaxed) == of {
                // Fails if its thread has since taken another snapshot.
                let _ = holds.compare_exchange(of, NOWHERE, Ordering::SeqCst, Ordering::Relaxed);
                *in_use = !(Mine { seat, holds }).empty();
            }
        }
        if let Some(mine) = in_use.get_mut(threads::mine()) {
            // This thread's own seat, if in use, is emptied when the current call ends.
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

    /// Identifies it for as long as it exists.
    #[inline(always)]
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Another `Published` may later have the same address.
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
        // It may have been emptied between the two checks.
        if seated.kept.as_ref().is_none_or(|kept| kept.of != of) {
            return None;
        }
        // A hit interrupts the run of misses.
        self.seat.missed.store(of, Ordering::Relaxed);
        Some(seated)
    }

    /// Counts a miss, and takes the snapshot after several misses in a row.
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
        // Guards the seat like any use: an eviction may happen now.
        let mut seated = SeatGuard {
            kept,
            _leave: Leave { mine: self, of },
        };
        let before = seated.kept.take();
        self.holds.store(of, Ordering::Relaxed);
        // Pairs with the fence in `evict`: either `evict` sees this `holds`, or this sees that the
        // snapshot is being replaced.
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

    /// Drops an evicted snapshot. `false` if the seat is in use.
    #[cold]
    #[inline(never)]
    fn empty(self) -> bool {
        loop {
            let Some(mut kept) = self.seat.kept.try_lock() else {
                return false;
            };
            let gone = kept.take_if(|kept| self.holds.load(Ordering::Relaxed) != kept.of);
            let stays = kept.as_ref().map(|kept| kept.of);
            // Release the lock before keys are wiped, so that the thread need not read elsewhere.
            drop(kept);
            drop(gone);
            // A concurrent eviction may have found the seat in use because of this call.
            if stays.is_none_or(|of| self.holds.load(Ordering::Relaxed) == of) {
                return true;
            }
        }
    }
}

impl Drop for Leave {
    #[inline(always)]
    fn drop(&mut self) {
        // The lock was released before, but the processor may read here first while other cores still see the lock. So
        // `evict` tries twice, and `tidy` finds the rest.
        compiler_fence(Ordering::SeqCst);
        if self.mine.holds.load(Ordering::Relaxed) != self.of {
            self.mine.empty();
        }
    }
}

/// Empties the seats of evicted snapshots that eviction has missed. Call it regularly.
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
