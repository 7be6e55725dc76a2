//! What the last polls of the key store found out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use encx_core::store::ChangeCursor;

use crate::cache::Limits;
use crate::cache::running::RunsIn;
use crate::cache::single_flight::{Flights, Tasks};
use crate::clock::Moment;

/// As of when this process knows all changes of the keys that it has in memory.
#[derive(Debug)]
pub(crate) struct Polls {
    pub(super) running: RunsIn,
    pub(super) flights: Flights<(), ()>,
    pub(super) cursor: Mutex<ChangeCursor>,
    /// When the last poll that succeeded began.
    pub(super) polled_at: Moment,
    /// Until when that is believed without asking anybody.
    pub(super) polled_until: Moment,
    /// Where the last poll that succeeded began, in the order of events.
    pub(super) tick: AtomicU64,
    /// When the key store was last asked whether it still has the keys in memory.
    pub(super) checked_at: Moment,
    pub(super) unreachable: AtomicBool,
}

impl Polls {
    /// Begins at `now`, when nothing is in memory yet that could have changed.
    pub(super) fn new(tasks: &Tasks, limits: &Limits, now: Duration) -> Self {
        Self {
            running: RunsIn::default(),
            flights: Flights::new(tasks, limits.load_timeout),
            cursor: Mutex::new(ChangeCursor::now()),
            polled_at: Moment::new(now),
            polled_until: Moment::new(now.saturating_add(limits.state_ttl)),
            tick: AtomicU64::new(0),
            checked_at: Moment::new(now),
            unreachable: AtomicBool::new(false),
        }
    }

    /// Returns the moment as of which this process knows all changes of the keys that it has in memory.
    pub(super) fn polled_at(&self) -> Duration {
        self.polled_at.get()
    }

    /// Returns the moment until which that suffices.
    #[inline]
    pub(super) fn polled_until(&self) -> Duration {
        self.polled_until.get()
    }

    /// Tells whether the last poll failed.
    pub(super) fn is_store_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Acquire)
    }
}
