//! Caches unwrapped keys: time to live, single flight, states that follow the key store.
//!
//! An *entry* belongs to one scope. Reading its snapshot never waits. Everything that waits (the key store, the KMS) runs
//! in a *flight*, a separate task that many callers share, so that cancelling one caller does not affect the others. The
//! *sweeper* drops keys that are too old; the *poller* follows changes of state.

mod asking;
mod cached_key;
mod counted;
mod data_cipher;
mod derivation_key;
mod entry;
mod environment;
mod failure;
mod heartbeat;
mod key_meta;
mod later;
mod limits;
mod loader;
mod lookup;
mod nearby;
mod poller;
mod polls;
mod prefetch;
mod refresh;
mod registration;
mod reread;
mod running;
mod serving;
mod single_flight;
mod stats;
mod sweeper;
mod threads;
mod vanished;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, DataKeyId, KeyUsage, Scope};
use encx_core::store::KeyStore;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::error::Error;
use crate::kek::Keks;

pub(crate) use cached_key::CachedKey;
pub(crate) use data_cipher::{DataCipher, check_len};
pub(crate) use derivation_key::DerivationKey;
pub(crate) use entry::{Entry, EntryKey, Records, Snapshot, Used};
pub(crate) use environment::{Environment, ReadStart};
pub(crate) use key_meta::{KeyMeta, Purpose};
pub(crate) use later::Later;
pub(crate) use limits::Limits;
use polls::Polls;
pub(crate) use registration::MAX_NAME_LEN;
use registration::Registration;
use running::RunsIn;
pub(crate) use serving::Serving;
use single_flight::{Flights, Tasks};
use stats::Counters;
pub(crate) use stats::Use;
pub use stats::{Refusals, Stats};

/// How many unknown key ids are remembered, and for how long.
const MAX_UNKNOWN: u64 = 10_000;
const UNKNOWN_TTL: Duration = Duration::from_secs(5);

/// How often to retry after a lost race or a read that turned out too old.
const MAX_ATTEMPTS: usize = 8;

/// Keeps a cache open. When the last clone is dropped, background work stops and every key is dropped.
#[derive(Debug)]
pub(crate) struct CacheHandle(Arc<Cache>);

impl CacheHandle {
    pub(crate) fn new(cache: Cache) -> Arc<Self> {
        Arc::new(Self(Arc::new(cache)))
    }
}

impl Deref for CacheHandle {
    type Target = Arc<Cache>;

    fn deref(&self) -> &Arc<Cache> {
        &self.0
    }
}

impl Drop for CacheHandle {
    fn drop(&mut self) {
        self.0.close();
        self.0.leave_soon();
    }
}

/// The unwrapped keys of one `Crypto`.
pub(crate) struct Cache {
    /// Distinguishes it from the other caches of this process.
    id: u64,
    env: Environment,
    /// Entries of scopes with keys.
    entries: moka::sync::Cache<EntryKey, Arc<Entry>>,
    /// The number of these entries.
    settled: Arc<AtomicU64>,
    /// Entries of scopes that have no keys as far as is known. Separate, so that invented contexts
    /// evict none of the others.
    newcomers: moka::sync::Cache<EntryKey, Arc<Entry>>,
    /// The versions under which this process encrypted in evicted scopes, within the bound on keyrings: a new entry must
    /// still notice if the key store has lost them.
    departed: moka::sync::Cache<Scope, Used>,
    unknown: moka::sync::Cache<(Scope, DataKeyId), Duration>,
    loads: Flights<Scope, Arc<Records>>,
    mints: Flights<Scope, ()>,
    unwraps: Flights<(Scope, DataKeyId), CachedKey>,
    /// How many keys are refreshed at once.
    refreshes: Semaphore,
    sweeper: RunsIn,
    polls: Polls,
    pub(crate) registration: Arc<Registration>,
    tasks: Tasks,
}

impl Deref for Cache {
    type Target = Environment;

    #[inline(always)]
    fn deref(&self) -> &Environment {
        &self.env
    }
}

impl Cache {
    pub(crate) fn new(
        keks: Arc<Keks>,
        store: Arc<dyn KeyStore>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        process_name: Option<String>,
    ) -> Self {
        static CACHES: AtomicU64 = AtomicU64::new(0);
        let tasks = Tasks::new();
        let settled = Arc::new(AtomicU64::new(0));
        let departed = moka::sync::Cache::builder()
            .max_capacity(limits.max_keyrings)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        let note_departure = |departed: &moka::sync::Cache<Scope, Used>, entry: &Entry| {
            if let Some(used) = entry.used() {
                departed.insert(entry.scope, used);
            }
        };
        // Least recently used: a new tenant is always admitted, and every task finds the same entry.
        let entries = moka::sync::Cache::builder()
            .max_capacity(limits.max_keyrings)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener({
                let (settled, departed) = (Arc::clone(&settled), departed.clone());
                move |_, entry: Arc<Entry>, _| {
                    settled.fetch_sub(1, Ordering::Relaxed);
                    note_departure(&departed, &entry);
                    entry.detach();
                }
            })
            .build();
        let newcomers = moka::sync::Cache::builder()
            .max_capacity(limits.max_keyrings)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener({
                let departed = departed.clone();
                move |_, entry: Arc<Entry>, _| {
                    // A settled entry stays, and its state need not be saved.
                    if entry.detach_unless_settled() {
                        note_departure(&departed, &entry);
                    }
                }
            })
            .build();
        let unknown = moka::sync::Cache::builder()
            .max_capacity(MAX_UNKNOWN)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Self {
            id: CACHES.fetch_add(1, Ordering::Relaxed),
            loads: Flights::new(&tasks, limits.load_timeout),
            mints: Flights::new(&tasks, limits.load_timeout),
            unwraps: Flights::new(&tasks, limits.load_timeout),
            refreshes: Semaphore::new((keks.max_concurrent_calls / 2).max(1)),
            sweeper: RunsIn::default(),
            polls: Polls::new(&tasks, &limits, clock.elapsed()),
            registration: Registration::new(store.processes().is_some(), process_name, &limits),
            env: Environment::new(keks, store, clock, limits),
            entries,
            settled,
            newcomers,
            departed,
            unknown,
            tasks,
        }
    }

    /// Returns the entry of a context and usage, or makes an empty one.
    pub(crate) fn entry(&self, context: &EncryptionContext, usage: KeyUsage) -> Arc<Entry> {
        let key = EntryKey {
            context: context.clone(),
            usage,
        };
        if let Some(entry) = self.entries.get(&key) {
            return entry;
        }
        let entry = self.newcomers.get_with(key.clone(), || {
            Arc::new(Entry::new(key.clone(), |scope| self.departed.get(&scope)))
        });
        // It may have settled between the two lookups.
        self.entries.get(&key).unwrap_or(entry)
    }

    /// Moves an entry to those with keys, once it has some.
    pub(crate) fn settle(&self, entry: &Arc<Entry>) {
        if entry.records().is_none_or(|records| records.is_empty()) || !entry.become_settled() {
            return;
        }
        let settled = self.entries.get_with(entry.key.clone(), || {
            self.settled.fetch_add(1, Ordering::Relaxed);
            Arc::clone(entry)
        });
        if !Arc::ptr_eq(&settled, entry) {
            // Another task's entry of the same scope settled first. A detached entry encrypts nothing.
            entry.detach();
            if let Some(used) = entry.used() {
                settled.also_used(self, used);
            }
        }
        self.newcomers.invalidate(&entry.key);
    }

    /// Tells whether the bound on keyrings evicts entries, or is about to.
    #[inline]
    fn is_crowded(&self) -> bool {
        self.settled.load(Ordering::Relaxed) >= self.limits.max_keyrings - self.limits.max_keyrings / 8
    }

    /// Lists all entries.
    fn all_entries(&self) -> Vec<Arc<Entry>> {
        let newcomers = self.newcomers.iter().map(|(_, entry)| entry);
        // Newcomers first: an entry that settles during this is listed twice rather than not at all.
        let mut entries: Vec<_> = newcomers.collect();
        entries.extend(self.entries.iter().map(|(_, entry)| entry));
        entries
    }

    fn find_entry(&self, context: &EncryptionContext, usage: KeyUsage) -> Option<Arc<Entry>> {
        let key = EntryKey {
            context: context.clone(),
            usage,
        };
        self.entries.get(&key).or_else(|| self.newcomers.get(&key))
    }

    /// Applies the bounds now rather than at the next access.
    fn apply_bounds(&self) {
        self.entries.run_pending_tasks();
        self.newcomers.run_pending_tasks();
        self.departed.run_pending_tasks();
        self.unknown.run_pending_tasks();
    }

    /// Caches a key that this process has just made, so that its next use needs no KMS call.
    pub(crate) fn adopt(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        id: DataKeyId,
        key: &DataKey,
        began: Duration,
    ) {
        if let Some(entry) = self.find_entry(context, usage) {
            entry.publish_key(self, &entry.keep_key(self, id, key, began));
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let Counters {
            hits,
            waited_encrypts,
            waited_decrypts,
            misses,
            loads,
            stale_serves,
            stale_key_serves,
            refreshes,
            failed_refreshes,
            failed_polls,
            refused,
            keys,
        } = &*self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.apply_bounds();
        let (encrypts, decrypts) = (hits.sum(Use::Encrypt), hits.sum(Use::Decrypt));
        Stats {
            encrypts: encrypts + load(waited_encrypts),
            decrypts: decrypts + load(waited_decrypts),
            hits: encrypts + decrypts + hits.sum(Use::Derive),
            misses: load(misses),
            refreshes: load(refreshes),
            failed_refreshes: load(failed_refreshes),
            kms_calls: self.keks.calls(),
            kms: self.keks.stats(),
            kms_circuit_openings: self.keks.circuit_openings(),
            store_loads: load(loads),
            stale_serves: load(stale_serves),
            stale_key_serves: load(stale_key_serves),
            failed_polls: load(failed_polls),
            refused: refused.read(),
            keyrings: self.entries.entry_count(),
            keys: load(keys),
        }
    }

    /// Starts background work that is not running, if there is a runtime: at first, after its runtime ended,
    /// and in a forked process.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Error> {
        self.ensure_sweeper()?;
        self.ensure_poller()?;
        self.ensure_heartbeat()
    }

    /// Stops all work and drops every key.
    pub(crate) fn close(&self) {
        self.tasks.close();
        for entry in self.all_entries() {
            entry.detach();
        }
        self.entries.invalidate_all();
        self.newcomers.invalidate_all();
        self.apply_bounds();
    }

    /// Closes, and completes once all tasks have ended.
    pub(crate) async fn shutdown(&self) {
        self.close();
        self.tasks.ended().await;
        // A task that was ending may have put a key into a new entry while the others were emptied.
        self.close();
        self.leave().await;
    }

    /// Starts a task that ends when the cache is closed.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        self.tasks.spawn(work)
    }

    /// Tells whether it was shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.tasks.is_closed()
    }

    /// Returns the error of a call that may not wait and has no key.
    pub(crate) fn why_not_ready(&self) -> Error {
        if self.tasks.is_closed() {
            Error::ShutDown
        } else {
            Error::NotReady
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("limits", &self.limits)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Aad, Crypto};
    use encx_testkit::{MemoryKeyStore, MemoryKms, block_on};

    #[test]
    fn the_builder_says_who_draws_nonces_and_encrypts() -> Result<(), Error> {
        use encx_suite::Backend;
        use encx_suite::NonceSource::{OperatingSystem, Thread};

        let default = encx_suite::backend();

        block_on(async {
            let (kms, store) = (MemoryKms::new(), MemoryKeyStore::new());
            let builder = || Crypto::builder(kms.clone(), store.clone());
            let context = EncryptionContext::from_pairs([("tenantId", "a")])?;
            let mut cases = vec![
                (builder(), (Thread, default)),
                (builder().os_nonces(), (OperatingSystem, default)),
            ];
            let compiled = Backend::COMPILED.iter();
            cases.extend(compiled.map(|backend| (builder().backend(*backend), (Thread, *backend))));
            for (builder, expected) in cases {
                let crypto = builder.build().await?;
                crypto.encrypt(&context, "x", Aad::unbound()).await?;
                let entry = crypto.core().cache().entry(&context, KeyUsage::Data);
                let guard = entry.snapshot();
                let snapshot = guard.as_ref().expect("it has encrypted");
                let options = snapshot.active.as_ref().expect("a key").options();
                assert_eq!((options.nonces, options.backend), expected);
            }
            Ok(())
        })
    }

    /// Two entries of one scope, which a race or the bound on keyrings can cause.
    #[test]
    fn what_the_loser_of_a_race_has_used_is_kept() -> Result<(), Error> {
        block_on(async {
            let store = MemoryKeyStore::new();
            let crypto = Crypto::builder(MemoryKms::new(), store.clone()).build().await?;
            let context = EncryptionContext::from_pairs([("tenantId", "a")])?;
            crypto.encrypt(&context, "x", Aad::unbound()).await?;
            let cache = crypto.core().cache();
            let winner = cache.entry(&context, KeyUsage::Data);
            let first = winner.used().expect("it has encrypted");
            for lost in [
                Used {
                    revision: first.revision.next(),
                    ..first
                },
                Used {
                    id: DataKeyId::generate(0, Some(first.id)).expect("there are greater ones"),
                    ..first
                },
            ] {
                let read = cache.begin_read();
                let loser = Arc::new(Entry::new(winner.key.clone(), |_| Some(lost)));
                loser.publish_records(cache, store.records(), read)?;
                cache.settle(&loser);
                assert!(loser.is_detached() && !winner.is_detached());
                assert_eq!(winner.used(), Some(lost));
                // The key store has lost it.
                let refused = winner.records().expect("it is loaded").active().map(drop);
                assert!(
                    matches!(refused, Err(Error::RolledBack { used, .. }) if used == lost.id),
                    "{refused:?}"
                );
            }
            // Merging an entry that has used less changes nothing.
            let used = winner.used();
            winner.also_used(cache, first);
            assert_eq!(winner.used(), used);
            Ok(())
        })
    }
}
