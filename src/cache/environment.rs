//! Shared parts of the cache: the KMSs, the key store, the clock, the limits, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use encx_core::store::KeyStore;

use crate::cache::Limits;
use crate::cache::stats::Counters;
use crate::calls::LastCalls;
use crate::clock::Clock;
use crate::kek::Keks;

/// A cache's configuration and counters.
pub(crate) struct Environment {
    pub(crate) keks: Arc<Keks>,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    /// The outcomes of the calls to the key store.
    pub(crate) store_calls: LastCalls,
    /// Orders reads of the key store and the events that outdate them, more finely than a clock.
    ticks: AtomicU64,
}

impl Environment {
    pub(super) fn new(
        keks: Arc<Keks>,
        store: Arc<dyn KeyStore>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Self {
        Self {
            keks,
            store,
            clock,
            limits,
            counters: Arc::default(),
            store_calls: LastCalls::default(),
            ticks: AtomicU64::new(0),
        }
    }

    /// Starts a read of the key store.
    pub(crate) fn begin_read(&self) -> ReadStart {
        ReadStart {
            at: self.clock.elapsed(),
            tick: self.tick(),
        }
    }

    /// Advances the order of events.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// When a read of the key store began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadStart {
    pub(super) at: Duration,
    pub(super) tick: u64,
}
