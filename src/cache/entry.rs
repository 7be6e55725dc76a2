//! One scope's cached keys.

mod decide;
mod next;
mod records;
mod refresh_schedule;
mod snapshot;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, DataKeyId, KeyUsage, Scope};
use encx_core::store::KeyRecord;
use encx_suite::Epoch;

use crate::cache::failure::Failure;
use crate::cache::key_meta::KeyMeta;
use crate::cache::{CachedKey, Environment, ReadStart};
use crate::error::Error;

pub(super) use decide::{Decision, Found, Load, Request, SoFar, Surroundings, Trust, Why};
pub(crate) use records::{Records, Used};
use refresh_schedule::ScheduledKey;
pub(crate) use snapshot::{DerivationKeys, Snapshot};
use state::State;

/// Identifies an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EntryKey {
    pub(crate) context: EncryptionContext,
    pub(crate) usage: KeyUsage,
}

/// One scope's entry in the cache.
pub(crate) struct Entry {
    pub(crate) key: EntryKey,
    pub(crate) scope: Scope,
    published: ArcSwapOption<Snapshot>,
    detached: AtomicBool,
    used: AtomicBool,
    /// Whether a version without a cached key is waiting to become active.
    lacks_next: AtomicBool,
    state: Mutex<State>,
}

impl Entry {
    /// Makes an empty entry. `used` returns what this process encrypted under in an earlier entry of the same scope.
    pub(crate) fn new(key: EntryKey, used: impl FnOnce(Scope) -> Option<Used>) -> Self {
        let scope = Scope::of(key.usage, &key.context);
        let state = State {
            used: used(scope),
            ..State::default()
        };
        Self {
            key,
            scope,
            published: ArcSwapOption::const_empty(),
            detached: AtomicBool::new(false),
            used: AtomicBool::new(false),
            lacks_next: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// Returns the greatest version under which this process has encrypted, if any.
    pub(crate) fn used(&self) -> Option<Used> {
        self.state().used
    }

    /// Merges what this process encrypted under in another entry of the same scope, and checks the
    /// known records against it.
    pub(in crate::cache) fn also_used(&self, env: &Environment, used: Used) {
        let mut state = self.state();
        let merged = Some(used.or_later(state.used));
        if state.used == merged {
            return;
        }
        state.used = merged;
        if let Some(known) = state.records.take() {
            state.records = Some(Arc::new(Records {
                list: known.list.clone(),
                read_at: known.read_at,
                tick: known.tick,
                used: merged,
            }));
            self.rebuild(env, &mut state);
        }
    }

    /// Records that a handle used this entry.
    #[inline]
    pub(crate) fn mark_used(&self) {
        // Read first: a cache line that many cores write is slow, one that they only read is not.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Tells whether a handle used this entry since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Records that the entry is among those with keys. `false` if it already was, or was dropped.
    pub(crate) fn become_settled(&self) -> bool {
        let mut state = self.state();
        !self.is_detached() && !std::mem::replace(&mut state.settled, true)
    }

    /// Empties the entry permanently, unless it is among those with keys. Returns whether it did.
    pub(crate) fn detach_unless_settled(&self) -> bool {
        let mut state = self.state();
        // Under one lock: an emptied entry must never settle.
        if !state.settled {
            self.empty(&mut state);
        }
        !state.settled
    }

    /// Reads the snapshot. Never waits.
    #[inline(always)]
    pub(crate) fn snapshot(&self) -> Guard<Option<Arc<Snapshot>>> {
        self.published.load()
    }

    /// Replaces the snapshot; the caller holds the state lock. No call that starts after this uses the old one.
    fn show(&self, _state: &State, snapshot: Option<Snapshot>) {
        self.published.store(snapshot.map(Arc::new));
    }

    /// Keeps the epoch that began under a snapshot, unless the snapshot was replaced.
    #[cold]
    pub(crate) fn keep_epoch(&self, of: &Arc<Snapshot>, epoch: Arc<Epoch>) {
        // Snapshots are only made under this lock.
        let _state = self.state();
        let current = self.published.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, of)) {
            let snapshot = Snapshot {
                active: of.active.clone(),
                decrypting: of.decrypting.clone(),
                derivation_keys: of.derivation_keys.clone(),
                known_at: of.known_at,
                known_until: of.known_until,
                epoch: Some(epoch),
            };
            self.published.store(Some(Arc::new(snapshot)));
        }
    }

    /// Tells whether the cache has dropped this entry. It then holds nothing.
    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    pub(crate) fn records(&self) -> Option<Arc<Records>> {
        self.state().records.clone()
    }

    /// Returns an unwrapped key that has not expired.
    pub(crate) fn key(&self, id: DataKeyId, now: Duration) -> Option<CachedKey> {
        let state = self.state();
        state.find(id).filter(|key| now < key.expires_at).cloned()
    }

    /// Decides what a call does next about its key, and marks a cached key that it asks for as used, unless the call has just
    /// loaded that key itself.
    pub(super) fn decide(&self, request: Request, so_far: &SoFar, around: &Surroundings<'_>) -> Decision {
        let state = self.state();
        let decision = state.decide(request, so_far, around);
        let asked_for = match &decision {
            Decision::Use(found) => found.key.as_ref().map(|key| key.id),
            Decision::Load(Load::Key(record)) => Some(record.id),
            _ => None,
        };
        if !so_far.has_loaded
            && let Some(key) = asked_for.and_then(|id| state.find(id))
        {
            key.mark_used();
        }
        decision
    }

    /// Tells whether a key is cached, expired or not.
    pub(crate) fn has_key(&self, id: DataKeyId) -> bool {
        self.state().find(id).is_some()
    }

    /// Tells whether the cached key is the one with this expiry.
    pub(crate) fn holds(&self, id: DataKeyId, expires_at: Duration) -> bool {
        self.state()
            .find(id)
            .is_some_and(|key| key.expires_at == expires_at)
    }

    /// Records a failed attempt to unwrap a key again: the cached key may have to be dropped, or may serve longer.
    pub(crate) fn note_failure(&self, env: &Environment, id: DataKeyId, error: &Error) {
        if self.take_failure(env, id, error, env.clock.elapsed()) {
            tracing::warn!(target: "encx::cache", key = %id, %error, "a cached key is dropped, because unwrapping it again failed");
        }
    }

    /// Returns whether the key was dropped.
    fn take_failure(&self, env: &Environment, id: DataKeyId, error: &Error, now: Duration) -> bool {
        let mut state = self.state();
        let Some(key) = state.find(id) else { return false };
        let goes = match Failure::of(error) {
            Failure::Other => false,
            Failure::Unanswered => {
                let until = now.saturating_add(env.limits.silence_counts_for());
                key.unanswered_until.advance_to(until);
                false
            }
            Failure::Quota => {
                key.unanswered_until.set(Duration::ZERO);
                now >= key.expires_at
            }
            Failure::Refused => true,
        };
        let leaves = goes && state.expected != Some(id);
        if leaves {
            state.keys.retain(|held| held.key.id != id);
            self.rebuild(env, &mut state);
        }
        leaves
    }

    /// Takes the records that the key store returned, unless a later read was faster. Returns what the entry then
    /// knows, or what was read if it is too old to use.
    pub(crate) fn publish_records(
        &self,
        env: &Environment,
        mut rows: Vec<KeyRecord>,
        read: ReadStart,
    ) -> Result<Arc<Records>, Error> {
        rows.sort_by_key(|record| record.id);
        for row in &rows {
            row.check_belongs(&self.key.context, self.key.usage)?;
        }
        let mut state = self.state();
        let used = state.used;
        // Exactly this capacity: collecting in place would keep the rows' larger allocation.
        let mut list = Vec::with_capacity(rows.len());
        list.extend(rows.into_iter().map(cached));
        let records = Arc::new(Records {
            list,
            read_at: read.at,
            tick: read.tick,
            used,
        });
        // Of two concurrent reads, the one that began later may have seen less.
        let is_older = |known: &Records| {
            known.tick > read.tick || (state.published > read.tick && !known.are_followed_by(&records))
        };
        if let Some(known) = state.records.as_ref().filter(|known| is_older(known)) {
            return Ok(Arc::clone(known));
        }
        if read.tick >= state.not_before && !self.is_detached() {
            state.records = Some(Arc::clone(&records));
            state.published = env.tick();
            self.rebuild(env, &mut state);
        }
        Ok(records)
    }

    /// Makes the form of a key that this entry keeps. Its unwrapping began at `began`.
    pub(in crate::cache) fn keep_key(
        &self,
        env: &Environment,
        id: DataKeyId,
        key: &DataKey,
        began: Duration,
    ) -> CachedKey {
        let expires_at = began.saturating_add(env.limits.ttl);
        let meta = KeyMeta::new(id, expires_at, &env.counters);
        CachedKey::new(meta, self.key.usage, self.scope, key, env.limits.suite)
    }

    /// Caches a key whose record is about to be stored, so that a caller that reads the record before this process
    /// knows that it was stored need not unwrap the key.
    pub(crate) fn expect_record<'a>(&'a self, env: &'a Environment, key: &CachedKey) -> Expected<'a> {
        let mut state = self.state();
        if !self.is_detached() {
            state.expected = Some(key.id);
            // Almost always the only one.
            state.keys.reserve_exact(1);
            state.keys.push(ScheduledKey::new(key, &env.limits));
        }
        Expected { entry: self, env }
    }

    /// Takes an unwrapped key, unless its state has since forbidden it.
    pub(crate) fn publish_key(&self, env: &Environment, key: &CachedKey) {
        let mut state = self.state();
        if !self.is_detached() {
            state.keys.retain(|known| known.key.id != key.id);
            // Almost always the only one.
            state.keys.reserve_exact(1);
            state.keys.push(ScheduledKey::new(key, &env.limits));
            self.rebuild(env, &mut state);
        }
    }

    /// Lists the records of the cached keys, unless they were read since `tick`.
    pub(in crate::cache) fn held_records(&self, tick: u64) -> Vec<Arc<KeyRecord>> {
        let state = self.state();
        let Some(records) = state.records.as_ref().filter(|records| records.tick < tick) else {
            return Vec::new();
        };
        let held = state.keys.iter();
        held.filter_map(|held| records.find(held.key.id).cloned())
            .collect()
    }

    /// Tells whether records were read before a change that is known to have happened.
    pub(crate) fn is_outdated(&self, records: &Records) -> bool {
        records.tick < self.state().not_before
    }

    /// Refuses, from now on, records that were read before `tick`.
    pub(crate) fn expect_change(&self, tick: u64) {
        let mut state = self.state();
        // Never backwards: another change may have been announced since.
        state.not_before = state.not_before.max(tick);
    }

    /// Forgets the records, so that the next caller reads again.
    pub(crate) fn forget(&self, tick: u64) {
        let mut state = self.state();
        state.not_before = state.not_before.max(tick);
        state.records = None;
        state.keep_expected();
        self.show(&state, None);
    }

    /// Drops expired keys, and adds those that must be unwrapped again to `due`. Returns when the
    /// entry must be swept next.
    pub(super) fn sweep(
        self: &Arc<Self>,
        env: &Environment,
        now: Duration,
        due: &mut Vec<Due>,
    ) -> Option<Duration> {
        let mut guard = self.state();
        let state = &mut *guard;
        let limits = &env.limits;
        let before = state.keys.len();
        let records = state.records.as_ref();
        state.keys.retain(|held| {
            let record = records.and_then(|records| records.find(held.key.id));
            held.is_kept(now, limits, || {
                record.is_some_and(|record| env.keks.are_failing(record))
            })
        });
        if state.keys.len() < before {
            self.rebuild(env, state);
        }
        state.keep_next();
        for held in &mut state.keys {
            if held.look(now, limits) {
                due.push(Due {
                    entry: Arc::clone(self),
                    id: held.key.id,
                    expires_at: held.key.expires_at,
                });
            }
        }
        state.keys.iter().map(|held| held.next(now, limits)).min()
    }

    /// Empties the entry permanently, because the cache has dropped it.
    pub(crate) fn detach(&self) {
        self.empty(&mut self.state());
    }

    fn empty(&self, state: &mut State) {
        self.detached.store(true, Ordering::Release);
        state.records = None;
        state.keys = Vec::new();
        self.lacks_next.store(false, Ordering::Relaxed);
        self.show(state, None);
    }

    /// Makes a new snapshot, and drops keys whose state forbids every use.
    fn rebuild(&self, env: &Environment, state: &mut State) {
        let Some(records) = state.records.clone() else {
            state.keep_expected();
            self.show(state, None);
            return;
        };
        let decrypts = |id| {
            let record = records.find(id).filter(|record| !record.lacks_wraps());
            record.is_some_and(|record| env.limits.check_decrypts(record).is_ok())
        };
        state
            .keys
            .retain(|held| decrypts(held.key.id) || state.expected == Some(held.key.id));
        let (active, is_whole) = match records.active() {
            Ok(active) => (active.filter(|active| state.find(active.id).is_some()), true),
            Err(_) => (None, false),
        };
        // Only an unwrapped version counts: a row alone may claim anything.
        if let Some(active) = active {
            state.used = Some(Used::with(state.used, active));
        }
        let active_id = active.map(|active| active.id);
        let (mut active, mut others, mut derivation_keys) = (None, Vec::new(), Vec::new());
        for ScheduledKey { key, .. } in state.keys.iter().filter(|held| decrypts(held.key.id)) {
            match key {
                CachedKey::Cipher(key) if active_id == Some(key.id) => active = Some(Arc::clone(key)),
                CachedKey::Cipher(key) => others.push(Arc::clone(key)),
                CachedKey::DerivationKey(key) => derivation_keys.push(Arc::clone(key)),
            }
        }
        others.sort_by_key(|key| key.id);
        derivation_keys.sort_by_key(|key| key.id);
        let usable = records
            .iter()
            .filter(|record| env.limits.check_decrypts(record).is_ok())
            .count();
        let derivation_keys = (!derivation_keys.is_empty()).then(|| {
            Arc::new(DerivationKeys {
                active: derivation_keys
                    .iter()
                    .find(|key| active_id == Some(key.id))
                    .cloned(),
                complete: is_whole && derivation_keys.len() == usable,
                all: derivation_keys.into(),
            })
        });
        let snapshot = Snapshot {
            active,
            decrypting: (!others.is_empty()).then(|| others.into()),
            derivation_keys,
            known_at: records.read_at,
            epoch: None,
            known_until: records.read_at.saturating_add(env.limits.state_ttl),
        };
        self.lacks_next
            .store(state.lacks_next(&records), Ordering::Relaxed);
        self.show(state, Some(snapshot));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key to unwrap again.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) entry: Arc<Entry>,
    pub(super) id: DataKeyId,
    /// Distinguishes the cached key from the one that will replace it.
    pub(super) expires_at: Duration,
}

/// Prepares a record for the cache. Its context was compared with the entry's, so it is dropped: it would take more
/// memory than the rest of the record.
fn cached(mut record: KeyRecord) -> Arc<KeyRecord> {
    record.context = BTreeMap::new();
    record.wraps.shrink_to_fit();
    Arc::new(record)
}

/// A cached key that waits for its record. Dropping this drops the key, unless the record has arrived.
pub(crate) struct Expected<'a> {
    entry: &'a Entry,
    env: &'a Environment,
}

impl Expected<'_> {
    /// Takes the scope's first version, now that it is stored.
    pub(crate) fn stored(self, record: KeyRecord, read: ReadStart) {
        let mut state = self.entry.state();
        let known = state.records.as_ref().and_then(|records| records.find(record.id));
        if known.is_none() && !self.entry.is_detached() {
            // A read that began before now may not have seen it, and this process has not seen what happened to it since.
            state.not_before = state.not_before.max(self.env.tick());
            state.used = Some(Used::with(state.used, &record));
            state.published = state.not_before;
            state.records = Some(Arc::new(Records {
                list: vec![cached(record)],
                read_at: read.at,
                tick: read.tick,
                used: state.used,
            }));
        }
        // Released before `self` is dropped, which makes the snapshot.
        drop(state);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut state = self.entry.state();
        state.expected = None;
        self.entry.rebuild(self.env, &mut state);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
