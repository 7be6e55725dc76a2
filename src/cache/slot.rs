//! One scope's keys in memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use crate::cache::stats::KeyGauge;
use crate::cache::{Cache, ReadStart};
use crate::context::EncryptionContext;
use crate::error::Error;
use crate::key::{DataKeyId, KeyState, KeyUsage, Scope};
use crate::store::KeyRecord;
use crate::suite::SuiteKey;

/// Finds a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) context: EncryptionContext,
    pub(crate) usage: KeyUsage,
}

/// A data key, unwrapped and expanded. It is zeroised when the last user lets go of it.
pub(crate) struct LiveKey {
    pub(crate) id: DataKeyId,
    pub(crate) key: SuiteKey,
    /// The clock's time from which it may not be used any more.
    pub(crate) expires_at: Duration,
    _gauge: KeyGauge,
}

impl LiveKey {
    /// Takes a key over whose unwrapping began at `began`.
    pub(crate) fn new(cache: &Cache, id: DataKeyId, key: SuiteKey, began: Duration) -> Arc<Self> {
        let expires_at = began.saturating_add(cache.limits.ttl);
        Arc::new(Self {
            id,
            key,
            expires_at,
            _gauge: KeyGauge::new(&cache.counters),
        })
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveKey")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What a hot call reads: the usable keys of a slot, as they were at one moment.
#[derive(Debug)]
pub(crate) struct KeySet {
    /// The key that encrypts.
    pub(crate) active: Option<Arc<LiveKey>>,
    /// The keys that decrypt, sorted by id.
    decrypting: Box<[Arc<LiveKey>]>,
    /// When the states were read.
    pub(crate) known_at: Duration,
}

impl KeySet {
    pub(crate) fn find(&self, id: DataKeyId) -> Option<&Arc<LiveKey>> {
        let at = self.decrypting.binary_search_by_key(&id, |key| key.id).ok()?;
        self.decrypting.get(at)
    }
}

/// All versions of a scope, as one read of the key store found them.
#[derive(Debug)]
pub(crate) struct Records {
    /// Sorted by id.
    list: Vec<Arc<KeyRecord>>,
    /// The clock's time when the read began.
    pub(crate) read_at: Duration,
    /// Where that read stands in the order of events.
    pub(crate) tick: u64,
    /// The greatest version that this slot has encrypted under.
    newest_active: Option<DataKeyId>,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<KeyRecord>> {
        self.list.iter()
    }

    pub(crate) fn find(&self, id: DataKeyId) -> Option<&Arc<KeyRecord>> {
        let at = self.list.binary_search_by_key(&id, |record| record.id).ok()?;
        self.list.get(at)
    }

    /// Returns the active version; `None` if there is none.
    pub(crate) fn active(&self) -> Result<Option<&Arc<KeyRecord>>, Error> {
        let Some(active) = self.iter().rfind(|record| record.state == KeyState::Active) else {
            return Ok(None);
        };
        match self.newest_active {
            // A process never encrypts under a smaller id than one that it has used.
            Some(used) if active.id < used => Err(Error::RolledBack {
                found: active.id,
                used,
            }),
            _ => Ok(Some(active)),
        }
    }

    pub(crate) fn is_shredded(&self) -> bool {
        !self.is_empty() && self.iter().all(|record| record.state == KeyState::Destroyed)
    }

    pub(crate) fn why_none_is_active(&self) -> Error {
        if self.is_shredded() {
            Error::Shredded
        } else {
            Error::NoActiveKey
        }
    }

    pub(crate) fn why_unknown(&self, id: DataKeyId) -> Error {
        if self.is_shredded() {
            Error::Shredded
        } else {
            Error::UnknownKey { id }
        }
    }
}

/// One scope's place in the cache.
pub(crate) struct Slot {
    pub(crate) key: SlotKey,
    pub(crate) scope: Scope,
    live: ArcSwapOption<KeySet>,
    detached: AtomicBool,
    used: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: Option<Arc<Records>>,
    keys: Vec<Arc<LiveKey>>,
    /// Reads that began before this are too old to be believed.
    not_before: u64,
    newest_active: Option<DataKeyId>,
    /// A key that is kept although no record of it is known yet.
    expected: Option<DataKeyId>,
    /// Whether the slot stands among those that have keys.
    settled: bool,
}

impl State {
    /// Drops all keys, of which nothing is known, but the one that waits for its record.
    fn keep_expected(&mut self) {
        self.keys.retain(|key| self.expected == Some(key.id));
    }
}

impl Slot {
    pub(crate) fn new(key: SlotKey) -> Self {
        let scope = Scope::of(key.usage, &key.context);
        Self {
            key,
            scope,
            live: ArcSwapOption::empty(),
            detached: AtomicBool::new(false),
            used: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Notes that a handle used this slot.
    pub(crate) fn mark_used(&self) {
        // Read first: a line that many cores write is slow, one that they read is not.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Tells whether a handle used this slot since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Notes that the slot stands among those that have keys. `false` if it did already, or was dropped.
    pub(crate) fn become_settled(&self) -> bool {
        let mut state = self.state();
        !self.is_detached() && !std::mem::replace(&mut state.settled, true)
    }

    /// Empties the slot for good, unless it stands among those that have keys.
    pub(crate) fn detach_unless_settled(&self) {
        let mut state = self.state();
        // In one step: a slot that was emptied must not come to stand there.
        if !state.settled {
            self.empty(&mut state);
        }
    }

    /// Reads the snapshot, without a lock.
    pub(crate) fn live(&self) -> Guard<Option<Arc<KeySet>>> {
        self.live.load()
    }

    /// Tells whether the cache has dropped this slot. It then holds nothing any more.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    pub(crate) fn records(&self) -> Option<Arc<Records>> {
        self.state().records.clone()
    }

    /// Returns an unwrapped key that has not expired.
    pub(crate) fn key(&self, id: DataKeyId, now: Duration) -> Option<Arc<LiveKey>> {
        self.state()
            .keys
            .iter()
            .find(|key| key.id == id && now < key.expires_at)
            .cloned()
    }

    /// Takes over what the key store said, unless a later read was faster. Returns what the slot then knows, or
    /// what was read if it came too late to be believed.
    pub(crate) fn publish_records(
        &self,
        cache: &Cache,
        mut rows: Vec<KeyRecord>,
        read: ReadStart,
    ) -> Result<Arc<Records>, Error> {
        rows.sort_by_key(|record| record.id);
        for row in &rows {
            row.check_belongs(&self.key.context, self.key.usage)?;
        }
        let mut state = self.state();
        let newest_active = state.newest_active;
        let list = rows.into_iter().map(Arc::new).collect();
        let records = Arc::new(Records {
            list,
            read_at: read.at,
            tick: read.tick,
            newest_active,
        });
        if let Some(known) = state.records.as_ref().filter(|known| known.tick > read.tick) {
            return Ok(Arc::clone(known));
        }
        if read.tick >= state.not_before && !self.is_detached() {
            state.records = Some(Arc::clone(&records));
            self.rebuild(cache, &mut state);
        }
        Ok(records)
    }

    /// Has a key ready whose record is about to be stored: whoever reads the record before we know that it was
    /// stored need not have the key unwrapped.
    pub(crate) fn expect_record<'a>(&'a self, cache: &'a Cache, key: &Arc<LiveKey>) -> Expected<'a> {
        let mut state = self.state();
        if !self.is_detached() {
            state.expected = Some(key.id);
            state.keys.push(Arc::clone(key));
        }
        Expected { slot: self, cache }
    }

    /// Takes over an unwrapped key, unless its state has come to forbid it.
    pub(crate) fn publish_key(&self, cache: &Cache, key: &Arc<LiveKey>) {
        let mut state = self.state();
        if !self.is_detached() {
            state.keys.retain(|known| known.id != key.id);
            state.keys.push(Arc::clone(key));
            self.rebuild(cache, &mut state);
        }
    }

    /// Tells whether records were read before a change that is known to have happened.
    pub(crate) fn is_outdated(&self, records: &Records) -> bool {
        records.tick < self.state().not_before
    }

    /// Refuses, from now on, what was read before `tick`.
    pub(crate) fn expect_change(&self, tick: u64) {
        let mut state = self.state();
        // Never back: another change may have been announced meanwhile.
        state.not_before = state.not_before.max(tick);
    }

    /// Forgets what the key store said, so that the next caller reads again.
    pub(crate) fn forget(&self, tick: u64) {
        let mut state = self.state();
        state.not_before = state.not_before.max(tick);
        state.records = None;
        state.keep_expected();
        self.live.store(None);
    }

    /// Drops keys that have expired. Returns when the next one will.
    pub(crate) fn sweep(&self, cache: &Cache, now: Duration) -> Option<Duration> {
        let mut state = self.state();
        if state.keys.iter().any(|key| key.expires_at <= now) {
            state.keys.retain(|key| now < key.expires_at);
            self.rebuild(cache, &mut state);
        }
        state.keys.iter().map(|key| key.expires_at).min()
    }

    /// Empties the slot for good, because the cache has dropped it.
    pub(crate) fn detach(&self) {
        self.empty(&mut self.state());
    }

    fn empty(&self, state: &mut State) {
        self.detached.store(true, Ordering::Release);
        state.records = None;
        state.keys = Vec::new();
        self.live.store(None);
    }

    /// Makes a new snapshot, and drops keys whose state forbids every use.
    fn rebuild(&self, cache: &Cache, state: &mut State) {
        let Some(records) = state.records.clone() else {
            state.keep_expected();
            self.live.store(None);
            return;
        };
        let decrypts = |id| {
            records
                .find(id)
                .is_some_and(|record| cache.check_decrypts(record).is_ok())
        };
        state
            .keys
            .retain(|key| decrypts(key.id) || state.expected == Some(key.id));
        let active = records.active().ok().flatten();
        let active = active.and_then(|active| state.keys.iter().find(|key| key.id == active.id).cloned());
        // Only what was unwrapped counts: a row alone may say anything.
        state.newest_active = state.newest_active.max(active.as_ref().map(|key| key.id));
        let set = KeySet {
            active,
            decrypting: {
                let usable = state.keys.iter().filter(|key| decrypts(key.id));
                let mut keys: Vec<_> = usable.cloned().collect();
                keys.sort_by_key(|key| key.id);
                keys.into()
            },
            known_at: records.read_at,
        };
        self.live.store(Some(Arc::new(set)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that waits for its record. It is dropped with this, unless the record has come.
pub(crate) struct Expected<'a> {
    slot: &'a Slot,
    cache: &'a Cache,
}

impl Expected<'_> {
    /// Takes over the scope's first version, now that it was stored.
    pub(crate) fn stored(self, record: KeyRecord, read: ReadStart) {
        let mut state = self.slot.state();
        let known = state.records.as_ref().and_then(|records| records.find(record.id));
        if known.is_none() && !self.slot.is_detached() {
            // Who began to read before now may not have seen it, and we have not seen what happened to it since.
            state.not_before = state.not_before.max(self.cache.tick());
            state.newest_active = state.newest_active.max(Some(record.id));
            state.records = Some(Arc::new(Records {
                list: vec![Arc::new(record)],
                read_at: read.at,
                tick: read.tick,
                newest_active: state.newest_active,
            }));
        }
        // Let go before `self` is dropped, which makes the snapshot.
        drop(state);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut state = self.slot.state();
        state.expected = None;
        self.slot.rebuild(self.cache, &mut state);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("key", &self.key)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
