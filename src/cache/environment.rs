//! What all parts of the cache work with: the KMSs, the key store, the clock, the limits, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use encx_core::key::KeyState;
use encx_core::store::{KeyRecord, KeyStore};

use crate::cache::Limits;
use crate::cache::stats::Counters;
use crate::calls::LastCalls;
use crate::clock::Clock;
use crate::error::{Error, Location};
use crate::kek::Keks;

/// What a cache was built with, and what it counts.
pub(crate) struct Environment {
    pub(crate) keks: Arc<Keks>,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    /// How the calls to the key store ended.
    pub(crate) store_calls: LastCalls,
    /// Orders reads of the key store and what makes them too old, more finely than a clock could.
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

    /// Begins a read of the key store.
    pub(crate) fn begin_read(&self) -> ReadStart {
        ReadStart {
            at: self.clock.elapsed(),
            tick: self.tick(),
        }
    }

    /// Counts on.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Makes sure that the state of a version lets it decrypt.
    pub(crate) fn check_decrypts(&self, record: &KeyRecord) -> Result<(), Error> {
        let (id, at) = (record.id, Location::default());
        match record.state {
            state if state.decrypts() => Ok(()),
            KeyState::Compromised if self.limits.accept_compromised => Ok(()),
            KeyState::Compromised => Err(Error::Compromised { id, at }),
            KeyState::Suspended => Err(Error::Suspended { id, at }),
            _ => Err(Error::Destroyed { id, at }),
        }
    }
}

/// When a read of the key store began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadStart {
    pub(super) at: Duration,
    pub(super) tick: u64,
}
