//! What the cache counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a `Crypto` has done since it was built, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Encryptions and decryptions whose key was in memory.
    pub hits: u64,
    /// How often a key had to be waited for, successfully or not. A batch waits once for each key.
    pub misses: u64,
    /// Calls to all registered KMSs.
    pub kms_calls: u64,
    /// Reads of keys from the key store, polls for changes not counted.
    pub store_loads: u64,
    /// Uses of a key whose state was older than `state_ttl`, because the key store was
    /// unreachable.
    pub stale_serves: u64,
    /// Polls for changes that failed.
    pub failed_polls: u64,
    /// Keyrings in memory, with or without unwrapped keys.
    pub keyrings: u64,
    /// Unwrapped keys in memory.
    pub keys: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Striped,
    pub(crate) misses: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) stale_serves: AtomicU64,
    pub(crate) failed_polls: AtomicU64,
    pub(crate) keys: AtomicU64,
}

/// Counts one unwrapped key for as long as it is in memory.
#[derive(Debug)]
pub(crate) struct KeyGauge(Arc<Counters>);

impl KeyGauge {
    pub(crate) fn new(counters: &Arc<Counters>) -> Self {
        counters.keys.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for KeyGauge {
    fn drop(&mut self) {
        self.0.keys.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A counter that threads add to without sharing a cache line, because every hot call adds to it.
#[derive(Debug, Default)]
pub(crate) struct Striped([Stripe; STRIPES]);

const STRIPES: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Striped {
    pub(crate) fn add(&self, count: u64) {
        self.0[stripe()].0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

fn stripe() -> usize {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        // The remainder is less than STRIPES, so nothing is lost.
        #[allow(clippy::cast_possible_truncation)]
        static MINE: usize = (NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES as u64) as usize;
    }
    MINE.try_with(|mine| *mine).unwrap_or(0)
}
