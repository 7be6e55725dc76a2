//! Unwrapped keys in memory: time to live, single flight, states that follow the key store.
//!
//! A *slot* belongs to one scope. Reading is lock-free through its snapshot; everything that waits (the key
//! store, the KMS) runs in a *flight*, a task of its own that many callers share, so that a caller who goes away
//! strands nobody. The *sweeper* empties slots whose keys are too old; the *poller* follows changes of state.

mod ahead;
mod background;
mod deriver;
mod fleet;
mod flight;
mod life;
mod live_key;
mod nearby;
mod refresh;
mod slot;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::context::EncryptionContext;
use crate::error::{Error, Hot};
use crate::kek::Keks;
use crate::key::{DataKey, DataKeyId, KeyState, KeyUsage, Scope};
use crate::store::{KeyRecord, KeyStore, NewKey, are_shredded, load_all_usages};

use background::Background;
pub(crate) use deriver::Deriver;
use fleet::Fleet;
pub(crate) use fleet::MAX_NAME_LEN;
use flight::{Flights, Tasks};
pub(crate) use life::{Life, Purpose, Unwrapped};
pub(crate) use live_key::{LiveKey, check_len};
use refresh::Failure;
pub(crate) use slot::{KeySet, Records, Slot, SlotKey};
use stats::Counters;
pub use stats::Stats;

/// How long and how much is kept; see the builder of `Crypto` for what each limit means.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) ttl: Duration,
    /// The last part of `ttl`, from 0 up to 1.
    pub(crate) refresh_ahead: f64,
    pub(crate) stale_encrypt: Duration,
    pub(crate) stale_decrypt: Duration,
    pub(crate) state_ttl: Duration,
    pub(crate) max_keyrings: u64,
    pub(crate) load_timeout: Duration,
    pub(crate) fail_closed_on_stale_state: bool,
    pub(crate) create_on_first_use: bool,
    pub(crate) accept_compromised: bool,
}

/// How many unknown key ids are remembered, and for how long.
const MAX_UNKNOWN: u64 = 10_000;
const UNKNOWN_TTL: Duration = Duration::from_secs(5);

/// How often a lost race or a read that turned out too old is followed by another try.
const MAX_ATTEMPTS: usize = 8;

/// Holds a cache open. When the last clone goes, background work stops and every key is dropped.
#[derive(Debug)]
pub(crate) struct CacheHandle(Arc<Cache>);

impl CacheHandle {
    pub(crate) fn new(cache: Cache) -> Arc<Self> {
        Arc::new(Self(Arc::new(cache)))
    }
}

impl std::ops::Deref for CacheHandle {
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
    /// Tells it from the other caches of this process.
    id: u64,
    pub(crate) keks: Arc<Keks>,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    /// Scopes that have keys.
    slots: moka::sync::Cache<SlotKey, Arc<Slot>>,
    /// How many of these there are.
    settled: Arc<AtomicU64>,
    /// Scopes that have no keys, as far as is known: whoever invents contexts pushes none of the others out.
    newcomers: moka::sync::Cache<SlotKey, Arc<Slot>>,
    unknown: moka::sync::Cache<(Scope, DataKeyId), Duration>,
    loads: Flights<Scope, Arc<Records>>,
    mints: Flights<Scope, ()>,
    unwraps: Flights<(Scope, DataKeyId), Unwrapped>,
    /// How many keys are refreshed at once.
    refreshes: Semaphore,
    background: Background,
    pub(crate) fleet: Arc<Fleet>,
    tasks: Tasks,
    /// Orders reads of the key store and what makes them too old, more finely than a clock could.
    ticks: AtomicU64,
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
        // Least recently used: a new tenant is always admitted, and every task finds the same slot.
        let slots = moka::sync::Cache::builder()
            .max_capacity(limits.max_keyrings)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener({
                let settled = Arc::clone(&settled);
                move |_, slot: Arc<Slot>, _| {
                    settled.fetch_sub(1, Ordering::Relaxed);
                    slot.detach();
                }
            })
            .build();
        let newcomers = moka::sync::Cache::builder()
            .max_capacity(limits.max_keyrings)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener(|_, slot: Arc<Slot>, _| slot.detach_unless_settled())
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
            background: Background::new(&tasks, &limits, clock.elapsed()),
            fleet: Fleet::new(store.coordination().is_some(), process_name, &limits),
            counters: Arc::new(Counters::default()),
            keks,
            store,
            clock,
            limits,
            slots,
            settled,
            newcomers,
            unknown,
            tasks,
            ticks: AtomicU64::new(0),
        }
    }

    /// Makes a call that does not wait with the slot of a context and usage, which is made if there is none.
    pub(crate) fn with_slot<T>(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        call: impl FnMut(&Arc<Slot>) -> T,
    ) -> T {
        nearby::with_slot(self, context, usage, call)
    }

    /// Finds the slot of a context and usage, or makes an empty one.
    pub(crate) fn slot(&self, context: &EncryptionContext, usage: KeyUsage) -> Arc<Slot> {
        let key = SlotKey {
            context: context.clone(),
            usage,
        };
        if let Some(slot) = self.slots.get(&key) {
            return slot;
        }
        let slot = self
            .newcomers
            .get_with(key.clone(), || Arc::new(Slot::new(key.clone())));
        // It may have settled between the two looks.
        self.slots.get(&key).unwrap_or(slot)
    }

    /// Moves a slot to those that have keys, once it has some.
    pub(crate) fn settle(&self, slot: &Arc<Slot>) {
        if slot.records().is_none_or(|records| records.is_empty()) || !slot.become_settled() {
            return;
        }
        let settled = self.slots.get_with(slot.key.clone(), || {
            self.settled.fetch_add(1, Ordering::Relaxed);
            Arc::clone(slot)
        });
        if !Arc::ptr_eq(&settled, slot) {
            // Somebody else's slot of the same scope settled first.
            slot.detach();
        }
        self.newcomers.invalidate(&slot.key);
    }

    /// Tells whether the bound on keyrings is about to drop some, or does.
    #[inline]
    fn is_crowded(&self) -> bool {
        self.settled.load(Ordering::Relaxed) >= self.limits.max_keyrings - self.limits.max_keyrings / 8
    }

    /// Lists all slots.
    fn all_slots(&self) -> Vec<Arc<Slot>> {
        let newcomers = self.newcomers.iter().map(|(_, slot)| slot);
        // Newcomers first: one that settles meanwhile is listed twice rather than not at all.
        let mut slots: Vec<_> = newcomers.collect();
        slots.extend(self.slots.iter().map(|(_, slot)| slot));
        slots
    }

    fn find_slot(&self, context: &EncryptionContext, usage: KeyUsage) -> Option<Arc<Slot>> {
        let key = SlotKey {
            context: context.clone(),
            usage,
        };
        self.slots.get(&key).or_else(|| self.newcomers.get(&key))
    }

    /// Applies the bounds now, and not when somebody comes by.
    fn apply_bounds(&self) {
        self.slots.run_pending_tasks();
        self.newcomers.run_pending_tasks();
        self.unknown.run_pending_tasks();
    }

    /// Tells whether the states of a snapshot may be relied on now without asking anybody. `None` if somebody has to be
    /// asked.
    #[inline]
    pub(crate) fn is_set_current(&self, set: &KeySet, now: Duration) -> Option<Hot<()>> {
        if now <= set.known_until || now <= self.background.polled_until() {
            return Some(Ok(()));
        }
        self.is_old_set_current(set, now)
    }

    #[cold]
    fn is_old_set_current(&self, set: &KeySet, now: Duration) -> Option<Hot<()>> {
        match self.is_current(set.known_at, now) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(Error::boxed(error))),
        }
    }

    /// Tells whether states that were read at `known_at` may be relied on now without asking anybody.
    ///
    /// `Err` says that they may not be used at all; `Ok(false)` that the caller has to ask.
    pub(crate) fn is_current(&self, known_at: Duration, now: Duration) -> Result<bool, Error> {
        let age = now.saturating_sub(known_at.max(self.background.polled_at()));
        if age <= self.limits.state_ttl {
            return Ok(true);
        }
        if !self.background.is_store_unreachable() {
            return Ok(false);
        }
        if self.limits.fail_closed_on_stale_state {
            return Err(Error::StaleState);
        }
        if age > self.limits.ttl {
            // Not for ever: the KMS alone does not know that a key was suspended.
            return Ok(false);
        }
        self.counters.stale_serves.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Returns the key that encrypts, making or unwrapping it if need be.
    pub(crate) async fn active_key(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<LiveKey>, Error> {
        self.active(slot).await?.cipher()
    }

    /// Returns the active key, making or unwrapping it if need be.
    pub(crate) async fn active(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Unwrapped, Error> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        self.prepare().await?;
        for attempt in 0..MAX_ATTEMPTS {
            let mut records = self.records(slot).await?;
            if let Some(record) = records.active()? {
                // To make a key is not to use it again.
                if attempt == 0 {
                    slot.mark_key_used(record.id);
                }
                if !self.may_unwrap(slot, &records, record.id, Purpose::Encrypt) {
                    records = self.reload(slot).await?;
                }
            }
            match records.active()? {
                Some(record) => {
                    let key = self.live_key(slot, record, Purpose::Encrypt).await?;
                    let now = self.records_now(slot).await?;
                    if now.active()?.is_some_and(|active| active.id == key.id) {
                        return Ok(key);
                    }
                }
                None if records.is_empty() => self.mint(slot).await?,
                None => {
                    let error = records.why_none_is_active();
                    tracing::info!(target: "encx::refused", %error, "there is no key to encrypt with");
                    return Err(error);
                }
            }
        }
        Err(Error::Interrupted)
    }

    /// Returns the key that decrypts what names this id, unwrapping it if need be.
    pub(crate) async fn key_by_id(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: DataKeyId,
    ) -> Result<Arc<LiveKey>, Error> {
        self.by_id(slot, id).await?.cipher()
    }

    /// Returns the key of this id, unwrapping it if need be.
    pub(crate) async fn by_id(self: &Arc<Self>, slot: &Arc<Slot>, id: DataKeyId) -> Result<Unwrapped, Error> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let mut records = self.records_with(slot, id).await?;
        slot.mark_key_used(id);
        if !self.may_unwrap(slot, &records, id, Purpose::Decrypt) {
            records = self.reload(slot).await?;
        }
        let record = self.check_found(&records, id)?;
        let key = self.live_key(slot, record, Purpose::Decrypt).await?;
        let now = self.records_now(slot).await?;
        self.check_found(&now, id)?;
        Ok(key)
    }

    /// Finds the version that decrypts what names this id, if it may.
    fn check_found<'a>(&self, records: &'a Records, id: DataKeyId) -> Result<&'a Arc<KeyRecord>, Error> {
        let refused = match records.find(id) {
            None => Error::UnknownKey { id },
            Some(_) if records.is_shredded() => Error::Shredded,
            Some(record) => match self.check_decrypts(record) {
                Ok(()) => return Ok(record),
                Err(error) => error,
            },
        };
        tracing::info!(target: "encx::refused", key = %id, error = %refused, "the state of the key forbids its use");
        Err(refused)
    }

    /// Returns what is known of a scope after a KMS was waited for, perhaps long: the key may have been withdrawn meanwhile,
    /// and this process may have said that it holds it no more.
    async fn records_now(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Records>, Error> {
        match slot.records() {
            Some(records) => Ok(records),
            // The slot was dropped, or what was known of it forgotten.
            None => self.reload(slot).await,
        }
    }

    /// Tells whether a key that was loaded a while ago may still be used.
    pub(crate) async fn still_allows(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: DataKeyId,
        purpose: Purpose,
    ) -> bool {
        let Ok(records) = self.records_now(slot).await else {
            return false;
        };
        match purpose {
            Purpose::Encrypt => records
                .active()
                .is_ok_and(|active| active.is_some_and(|active| active.id == id)),
            Purpose::Decrypt => records
                .find(id)
                .is_some_and(|record| self.check_decrypts(record).is_ok()),
        }
    }

    /// Tells whether a key is unwrapped already, or its record was read recently enough to unwrap it.
    ///
    /// Polls are not believed here: what the key store does not list as changed, such as a row that somebody
    /// edited or deleted by hand, is found out when the key's time is over. While the key store is unreachable, there
    /// is nothing better than what is known.
    fn may_unwrap(&self, slot: &Slot, records: &Records, id: DataKeyId, purpose: Purpose) -> bool {
        slot.key_for(id, purpose, self.clock.elapsed(), &self.limits)
            .is_some()
            || self.is_fresh(records)
    }

    /// Tells whether records were read recently enough to unwrap by them.
    fn is_fresh(&self, records: &Records) -> bool {
        self.clock.elapsed().saturating_sub(records.read_at) <= self.limits.state_ttl
            || self.background.is_store_unreachable()
    }

    /// Returns all versions of the slot's scope, for who needs no key.
    pub(crate) async fn current_records(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Records>, Error> {
        self.prepare().await?;
        self.records(slot).await
    }

    /// Reads the scopes of slots that have not been read yet, in one query for many. Failures are left to the
    /// loads that follow.
    pub(crate) async fn preload(self: &Arc<Self>, slots: &[Arc<Slot>]) {
        let unread = slots.iter().filter(|slot| slot.records().is_none());
        let unread: Vec<_> = unread.map(Arc::clone).collect();
        if unread.len() > 1 && self.prepare().await.is_ok() {
            tokio::select! {
                _ = background::read(self, &unread) => {}
                () = self.clock.sleep(self.limits.load_timeout) => {}
            }
        }
    }

    /// Returns all versions of the slot's scope, as fresh as `state_ttl` asks.
    async fn records(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Records>, Error> {
        match slot.records() {
            Some(records) if self.is_current(records.read_at, self.clock.elapsed())? => Ok(records),
            Some(_) => self.reload(slot).await,
            None => self.load(slot, 0).await,
        }
    }

    /// Returns all versions of the slot's scope, if `id` is one of them.
    pub(crate) async fn records_with(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: DataKeyId,
    ) -> Result<Arc<Records>, Error> {
        self.prepare().await?;
        let records = self.records(slot).await?;
        if records.find(id).is_some() {
            return Ok(records);
        }
        // Another process may have made it a moment ago. Whoever asks for garbage asks the database once per id
        // and a while, and at most one query per scope is under way.
        let name = (slot.scope, id);
        let now = self.clock.elapsed();
        if self.unknown.get(&name).is_some_and(|until| now < until) {
            return Err(refuse_unknown(&records, id));
        }
        let records = self.reload(slot).await?;
        if records.find(id).is_none() {
            self.unknown.insert(name, now.saturating_add(UNKNOWN_TTL));
            return Err(refuse_unknown(&records, id));
        }
        Ok(records)
    }

    /// Reads the slot's scope again, not satisfied with a read that began before this call.
    pub(crate) async fn reload(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Records>, Error> {
        self.load(slot, self.tick()).await
    }

    /// Reads again what this process has of a scope, after it changed it itself.
    pub(crate) async fn refresh(self: &Arc<Self>, context: &EncryptionContext, usage: KeyUsage) {
        if let Some(slot) = self.find_slot(context, usage) {
            slot.expect_change(self.tick());
            if self.reload(&slot).await.is_err() {
                // What the caller has just changed may not be undone by what is in memory.
                slot.forget(self.tick());
            }
        }
    }

    /// Takes over a key that this process has just made, so that its next use asks no KMS.
    pub(crate) fn adopt(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        id: DataKeyId,
        key: &DataKey,
        began: Duration,
    ) {
        if let Some(slot) = self.find_slot(context, usage) {
            slot.publish_key(self, &Unwrapped::new(self, &slot, id, key, began));
        }
    }

    pub(crate) fn check_decrypts(&self, record: &KeyRecord) -> Result<(), Error> {
        let id = record.id;
        match record.state {
            state if state.decrypts() => Ok(()),
            KeyState::Compromised if self.limits.accept_compromised => Ok(()),
            KeyState::Compromised => Err(Error::Compromised { id }),
            KeyState::Suspended => Err(Error::Suspended { id }),
            _ => Err(Error::Destroyed { id }),
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

    pub(crate) fn stats(&self) -> Stats {
        let Counters {
            hits,
            misses,
            loads,
            stale_serves,
            stale_key_serves,
            refreshes,
            failed_refreshes,
            failed_polls,
            keys,
        } = &*self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.apply_bounds();
        Stats {
            hits: hits.sum(),
            misses: load(misses),
            refreshes: load(refreshes),
            failed_refreshes: load(failed_refreshes),
            kms_calls: self.keks.calls(),
            kms_circuit_openings: self.keks.circuit_openings(),
            store_loads: load(loads),
            stale_serves: load(stale_serves),
            stale_key_serves: load(stale_key_serves),
            failed_polls: load(failed_polls),
            keyrings: self.slots.entry_count(),
            keys: load(keys),
        }
    }

    /// Starts background work, if there is a runtime.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Error> {
        self.background.ensure_running(self)
    }

    /// Stops all work and drops every key.
    pub(crate) fn close(&self) {
        self.tasks.close();
        for slot in self.all_slots() {
            slot.detach();
        }
        self.slots.invalidate_all();
        self.newcomers.invalidate_all();
        self.apply_bounds();
    }

    /// Closes, and completes once no task is left.
    pub(crate) async fn shutdown(&self) {
        self.close();
        self.tasks.ended().await;
        // A slot that came while the others were emptied may have got a key from a task that was ending.
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

    /// Says why a call that may not wait has no key.
    pub(crate) fn why_not_ready(&self) -> Error {
        if self.tasks.is_closed() {
            Error::ShutDown
        } else {
            Error::NotReady
        }
    }

    /// Makes sure that there is a runtime, that background work runs, and that states are known well enough.
    async fn prepare(self: &Arc<Self>) -> Result<(), Error> {
        if self.tasks.is_closed() {
            return Err(Error::ShutDown);
        }
        self.background.ensure_running(self)?;
        self.fleet.introduced(&*self.clock).await;
        let age = self.clock.elapsed().saturating_sub(self.background.polled_at());
        if age <= self.limits.state_ttl || self.background.is_store_unreachable() {
            return Ok(());
        }
        // The poller is late, as after a pause of the whole process. If the poll fails, states are stale, which
        // `is_current` decides about.
        self.background.poll_once(self).await
    }

    async fn load(self: &Arc<Self>, slot: &Arc<Slot>, not_before: u64) -> Result<Arc<Records>, Error> {
        let suffices = |records: &Records| records.tick >= not_before && !slot.is_outdated(records);
        for _ in 0..MAX_ATTEMPTS {
            // Somebody else may have read it since.
            if let Some(records) = slot.records().filter(|records| suffices(records)) {
                return Ok(records);
            }
            let (cache, of) = (Arc::clone(self), Arc::clone(slot));
            let records = self
                .loads
                .join(slot.scope, &self.clock, async move {
                    let read = cache.begin_read();
                    cache.counters.loads.fetch_add(1, Ordering::Relaxed);
                    let rows = cache.store.load(&[of.scope]).await?;
                    let records = of.publish_records(&cache, rows, read)?;
                    cache.settle(&of);
                    Ok(records)
                })
                .await?;
            // A flight that was under way already may have read before the change that we look for.
            if suffices(&records) {
                return Ok(records);
            }
        }
        Err(Error::Interrupted)
    }

    async fn live_key(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        record: &Arc<KeyRecord>,
        purpose: Purpose,
    ) -> Result<Unwrapped, Error> {
        let in_memory = || {
            let key = slot.key_for(record.id, purpose, self.clock.elapsed(), &self.limits)?;
            self.note_use(&key, self.clock.elapsed());
            Some(key)
        };
        if let Some(key) = in_memory() {
            return Ok(key);
        }
        let failed = match self.unwrap(slot, record, Duration::ZERO).await {
            Err(error) if error.is_unavailability() => error,
            unwrapped => return unwrapped,
        };
        // Again here, for a flight that was given up as a whole.
        slot.note_failure(self, record.id, &failed);
        in_memory().ok_or(failed)
    }

    /// Counts the use of a key that is past its time.
    #[inline]
    pub(crate) fn note_use(&self, key: &Life, now: Duration) {
        if now >= key.expires_at {
            self.note_stale_use(key);
        }
    }

    #[cold]
    fn note_stale_use(&self, key: &Life) {
        self.counters.count(&self.counters.stale_key_serves);
        if key.becomes_stale() {
            tracing::warn!(
                target: "encx::cache", key = %key.id,
                "a key past its `ttl` serves, because the KMS does not answer"
            );
        }
    }

    /// Has a key that is in memory unwrapped again. `false` if there was no need, or it is there no more.
    async fn refresh_key(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: DataKeyId,
        expires_at: Duration,
    ) -> Result<bool, Error> {
        let mut records = match slot.records() {
            Some(records) => records,
            None => return Ok(false),
        };
        if !self.is_fresh(&records) {
            records = self.reload(slot).await?;
        }
        let Some(record) = records.find(id).filter(|_| slot.holds(id, expires_at)) else {
            return Ok(false);
        };
        match self.unwrap(slot, record, expires_at).await {
            Ok(key) => Ok(key.expires_at > expires_at),
            Err(error) => {
                if error.is_unavailability() {
                    slot.note_failure(self, id, &error);
                }
                Err(error)
            }
        }
    }

    /// Has the KMS unwrap a key, unless one is in memory that expires later than `than`.
    async fn unwrap(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        record: &Arc<KeyRecord>,
        than: Duration,
    ) -> Result<Unwrapped, Error> {
        let (cache, of, record) = (Arc::clone(self), Arc::clone(slot), Arc::clone(record));
        self.unwraps
            .join((slot.scope, record.id), &self.clock, async move {
                // Somebody may have unwrapped it between our look and this flight's start.
                let began = cache.clock.elapsed();
                if let Some(key) = of.key(record.id, began).filter(|key| key.expires_at > than) {
                    return Ok(key);
                }
                let SlotKey { context, usage } = &of.key;
                let mut unwrapped = cache.keks.unwrap(&record, context, *usage).await;
                if let Err(error) = &unwrapped
                    && Failure::of(error) == Failure::Refused
                    && of.has_key(record.id)
                {
                    // A key in memory is not dropped for a wrap that was replaced since its row was read.
                    let records = cache.reload(&of).await.ok();
                    let now = records.as_ref().and_then(|records| records.find(record.id));
                    if let Some(now) = now.filter(|now| now.wraps != record.wraps) {
                        unwrapped = cache.keks.unwrap(now, context, *usage).await;
                    }
                }
                match unwrapped {
                    Ok(unwrapped) => {
                        let key = Unwrapped::new(&cache, &of, record.id, &unwrapped, began);
                        of.publish_key(&cache, &key);
                        Ok(key)
                    }
                    Err(error) => {
                        of.note_failure(&cache, record.id, &error);
                        Err(error)
                    }
                }
            })
            .await
    }

    /// Makes the first version of the slot's scope, or finds that another process did.
    async fn mint(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), Error> {
        if !self.limits.create_on_first_use {
            return Err(Error::NoKeys);
        }
        let (cache, of) = (Arc::clone(self), Arc::clone(slot));
        self.mints
            .join(slot.scope, &self.clock, async move {
                // Somebody may have made it between our look and this flight's start.
                let known = match of.records() {
                    Some(records) => records,
                    None => cache.load(&of, 0).await?,
                };
                if !known.is_empty() {
                    return Ok(());
                }
                // After a shredding nothing begins by itself, also of a usage that there was no key for.
                if are_shredded(&load_all_usages(&*cache.store, &of.key.context).await?) {
                    return Err(Error::Shredded);
                }
                let began = cache.clock.elapsed();
                let SlotKey { context, usage } = &of.key;
                let id = DataKeyId::generate(cache.clock.unix_millis(), None)?;
                let (made, wraps) = cache.keks.generate(context, *usage, id).await?;
                let mut new = NewKey::new(id, *usage, context, made.check(id));
                new.wraps = wraps;
                let key = Unwrapped::new(&cache, &of, id, &made, began);
                drop(made);
                let expected = of.expect_record(&cache, &key);
                let read = cache.begin_read();
                match cache.store.insert(&new).await {
                    Ok(record) => {
                        record.check_belongs(context, *usage)?;
                        expected.stored(record, read);
                        cache.settle(&of);
                        Ok(())
                    }
                    // The winner's key is loaded instead; ours encrypted nothing and is dropped here.
                    Err(error) if error.is_lost_race() => {
                        of.forget(cache.tick());
                        Ok(())
                    }
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}

/// Says why there is no such key, to who asks and to who watches.
fn refuse_unknown(records: &Records, id: DataKeyId) -> Error {
    let error = records.why_unknown(id);
    tracing::info!(target: "encx::refused", key = %id, %error, "no such key in this context");
    error
}

/// When a read of the key store began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadStart {
    at: Duration,
    tick: u64,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("limits", &self.limits)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
