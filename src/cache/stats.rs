//! The cache's counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::threads::{self, NUMBERED};
use crate::error::Refusal;
use crate::kek::KmsStats;

/// What a `Crypto` has done since it was built, and what it holds.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::Crypto;
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let stats = crypto.stats();
/// println!("{} keys in memory, {} hits, {} misses", stats.keys, stats.hits, stats.misses);
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Encrypted values, including those that failed although there was a key.
    pub encrypts: u64,
    /// Decrypted values, including those that were refused although there was a key.
    pub decrypts: u64,
    /// Encryptions, decryptions, blind indexes and password hashes whose key was cached.
    pub hits: u64,
    /// Waits for a key, successful or not. A batch waits once for each key.
    pub misses: u64,
    /// Keys unwrapped again in the background before they expired, so that no request waited.
    pub refreshes: u64,
    /// Failed refreshes. Each key is tried again until it expires.
    pub failed_refreshes: u64,
    /// Requests to all registered KMSs, including repeated ones: one for each call, or as many as its provider reports.
    pub kms_calls: u64,
    /// The calls by KMS, in the order of the KMSs' names.
    pub kms: Vec<KmsStats>,
    /// Times a KMS circuit breaker opened.
    pub kms_circuit_openings: u64,
    /// Reads of keys from the key store, without polls for changes.
    pub store_loads: u64,
    /// Uses of a key whose state was older than `state_ttl`, because the key store was unreachable.
    pub stale_serves: u64,
    /// Uses of a key past its `ttl`, because the KMS was unavailable and `stale_if_unavailable` allows it.
    pub stale_key_serves: u64,
    /// Failed polls for changes.
    pub failed_polls: u64,
    /// Refused ciphertexts, by kind.
    pub refused: Refusals,
    /// Cached keyrings, with or without unwrapped keys.
    pub keyrings: u64,
    /// Unwrapped keys in memory.
    pub keys: u64,
}

/// Ciphertexts that a `Crypto` refused to open, by kind. For each, an event of target `encx::refused` says where it is.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext, Field};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// const SSN: Field = Field::new("users", "ssn");
/// let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await?;
/// crypto.decrypt(&context, &sealed, SSN.row(8)).await.unwrap_err();
/// assert_eq!(crypto.stats().refused.authentication, 1);
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// Authentication failed: the ciphertext was changed, or moved from another row, column or context.
    pub authentication: u64,
    /// The data key's row was refused: its KEK or KMS is not allowed, it contains another key, or
    /// the key store has lost it.
    pub key_row: u64,
    /// The data key is suspended, compromised or destroyed.
    pub key_state: u64,
    /// The suite is not accepted.
    pub suite: u64,
    /// The data key does not exist in this encryption context.
    pub unknown_key: u64,
}

/// Counts [`Refusals`].
#[derive(Debug, Default)]
pub(crate) struct RefusalCounters([AtomicU64; Refusal::KINDS]);

impl RefusalCounters {
    pub(crate) fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Refusals {
        let count = |refusal: Refusal| self.0[refusal as usize].load(Ordering::Relaxed);
        Refusals {
            authentication: count(Refusal::Authentication),
            key_row: count(Refusal::KeyRow),
            key_state: count(Refusal::KeyState),
            suite: count(Refusal::Suite),
            unknown_key: count(Refusal::UnknownKey),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Striped,
    /// Values that were encrypted after waiting for their key.
    pub(crate) waited_encrypts: AtomicU64,
    /// Values that were decrypted after waiting for their key.
    pub(crate) waited_decrypts: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) stale_serves: AtomicU64,
    pub(crate) stale_key_serves: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) failed_refreshes: AtomicU64,
    pub(crate) failed_polls: AtomicU64,
    pub(crate) refused: RefusalCounters,
    pub(crate) keys: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one unwrapped key for as long as it is cached.
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

/// A use of a cached key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Decrypt,
    Derive,
    Encrypt,
}

impl Use {
    /// The number of variants; the last one is the last in the alphabet.
    const KINDS: usize = Self::Encrypt as usize + 1;
}

/// Counters that threads increment without sharing a cache line, because every hot call increments one.
///
/// Each of the first [`NUMBERED`] threads has a stripe that only it writes, by a load and a store, which cost a
/// fraction of an atomic addition. All other threads share the last stripe.
#[derive(Debug)]
pub(crate) struct Striped([Stripe; NUMBERED + 1]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; Use::KINDS]);

impl Default for Striped {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Stripe::default()))
    }
}

impl Striped {
    #[inline]
    pub(crate) fn add(&self, to: Use, count: u64) {
        let to = to as usize;
        let Some(Stripe(stripe)) = self.0[..NUMBERED].get(threads::mine()) else {
            self.0[NUMBERED].0[to].fetch_add(count, Ordering::Relaxed);
            return;
        };
        let stripe = &stripe[to];
        stripe.store(stripe.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self, of: Use) -> u64 {
        let of = self.0.iter().map(|stripe| &stripe.0[of as usize]);
        of.map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_however_many_threads_come_and_go() {
        const THREADS: usize = 3 * NUMBERED;
        let (counter, other) = (Striped::default(), Striped::default());
        for _ in 0..5 {
            // All threads at once, so that many share a stripe; then again, so that each stripe has many owners.
            let all_there = Barrier::new(THREADS);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        all_there.wait();
                        for _ in 0..1000 {
                            counter.add(Use::Encrypt, 1);
                            counter.add(Use::Decrypt, 3);
                            other.add(Use::Derive, 2);
                        }
                    });
                }
            });
        }
        let added = 5 * 1000 * THREADS as u64;
        let sums = |counter: &Striped| [Use::Decrypt, Use::Derive, Use::Encrypt].map(|to| counter.sum(to));
        assert_eq!(sums(&counter), [3 * added, 0, added]);
        assert_eq!(sums(&other), [0, 2 * added, 0]);
    }
}
