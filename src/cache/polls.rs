//! The results of the last polls of the key store.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use encx_core::store::ChangeCursor;

use crate::cache::Limits;
use crate::cache::running::RunsIn;
use crate::cache::single_flight::{Flights, Tasks};
use crate::clock::Moment;

/// The moment as of which this process knows all changes of its cached keys.
#[derive(Debug)]
pub(crate) struct Polls {
    pub(super) running: RunsIn,
    pub(super) flights: Flights<(), ()>,
    pub(super) cursor: Mutex<ChangeCursor>,
    /// When the last successful poll began.
    pub(super) polled_at: Moment,
    /// Until when its result may be used without asking.
    pub(super) polled_until: Moment,
    /// Where the last successful poll began, in the order of events.
    pub(super) tick: AtomicU64,
    /// When the key store was last asked whether it still has the cached keys.
    pub(super) checked_at: Moment,
    pub(super) unreachable: AtomicBool,
}

impl Polls {
    /// Starts at `now`, with an empty cache that no change can affect.
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

    /// Returns the moment as of which this process knows all changes of its cached keys.
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
