//! An in-memory key store that a test can make fail and edit as an attacker.

mod shared_work;
mod sharing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use encx_core::clock::Clock;
use encx_core::key::{DataKeyId, Scope};
use encx_core::store::{
    AuditEntry, AuditLog, AuditPage, AuditQuery, AuditedPart, ChangeCursor, ChangePage, CursorPosition,
    JobStore, KekUse, KeyChange, KeyChanges, KeyHint, KeyPage, KeyQuery, KeyRecord, KeyStore, KeySummary,
    Leases, NewKey, ProcessRegistry, StateChange, StoreError, Timestamp, WrapChange, WrapOutcome,
};
use futures_core::Stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::clock::MachineClock;
use crate::store_suite::AuditedChange;
use shared_work::SharedWork;

const CHANGES_PER_PAGE: usize = 1000;

/// How many hints a subscriber may lag behind before it gets [`KeyHint::Gap`].
const HINTS: usize = 256;

/// Keeps keys in memory, like a database. Clones share one state.
///
/// It passes the conformance suite of every store and pushes hints. For tests it also fails on request, counts its calls,
/// and exposes its rows to tampering. Its clock is the one given to [`with_clock`](Self::with_clock), advanced by a
/// microsecond while it stands still, so that no two writes share a time.
#[derive(Clone)]
pub struct MemoryKeyStore(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    rows: Mutex<Rows>,
    shared_work: Mutex<SharedWork>,
    hints: broadcast::Sender<KeyHint>,
    pushes_hints: AtomicBool,
    faults: Mutex<Faults>,
    rival: Mutex<Option<Rival>>,
    calls: Calls,
}

#[derive(Default)]
struct Faults {
    /// The errors of the next calls, in this order.
    next: VecDeque<StoreError>,
    /// The error of every call.
    lasting: Option<StoreError>,
}

/// Runs before an insert and makes the write that the insert was about to make.
type Rival = Box<dyn FnOnce(NewKey) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

#[derive(Default)]
struct Calls {
    loads: AtomicUsize,
    gets: AtomicUsize,
    pages: AtomicUsize,
    polls: AtomicUsize,
    writes: AtomicUsize,
}

impl MemoryKeyStore {
    /// Creates an empty store that uses the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(MachineClock)
    }

    /// Creates an empty store that uses the given clock.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        Self(Arc::new(Shared {
            clock: Arc::new(clock),
            rows: Mutex::default(),
            shared_work: Mutex::default(),
            hints: broadcast::Sender::new(HINTS),
            pushes_hints: AtomicBool::new(true),
            faults: Mutex::default(),
            rival: Mutex::default(),
            calls: Calls::default(),
        }))
    }

    /// Stops pushing hints to new subscribers: they see changes only by polling, as behind a connection pooler.
    #[must_use]
    pub fn without_hints(self) -> Self {
        self.0.pushes_hints.store(false, Ordering::SeqCst);
        self
    }

    /// Makes the next `calls` calls of any method fail with this error. A second call adds to the first. Calls
    /// of [`Leases`], [`JobStore`], [`ProcessRegistry`] and [`AuditLog`] neither fail nor count: processes
    /// make them in the background.
    pub fn fail_next(&self, calls: usize, error: StoreError) {
        lock(&self.0.faults)
            .next
            .extend(std::iter::repeat_n(error, calls));
    }

    /// Makes every call fail with this error, including those of leases, jobs and the registry, until
    /// [`clear_faults`](Self::clear_faults).
    pub fn fail_until_cleared(&self, error: StoreError) {
        lock(&self.0.faults).lasting = Some(error);
    }

    /// Makes every call fail with [`StoreError::Unavailable`], including those of leases, jobs and the registry, until
    /// called with `false`.
    pub fn set_unavailable(&self, unavailable: bool) {
        let error = || StoreError::unavailable(std::io::Error::other("the test made the store unavailable"));
        lock(&self.0.faults).lasting = unavailable.then(error);
    }

    /// Removes every injected fault.
    pub fn clear_faults(&self) {
        *lock(&self.0.faults) = Faults::default();
    }

    /// Runs a rival before the next insert, which then sees the rival's writes.
    #[cfg(feature = "harness")]
    pub(crate) fn before_next_insert<F>(&self, rival: impl FnOnce(NewKey) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *lock(&self.0.rival) = Some(Box::new(|new| Box::pin(rival(new))));
    }

    /// Returns the number of calls so far.
    #[cfg(feature = "harness")]
    pub(crate) fn calls_ever(&self) -> usize {
        self.loads() + self.gets() + self.pages() + self.polls() + self.writes()
    }

    /// Counts the calls of [`KeyStore::load`], including failed ones.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.0.calls.loads.load(Ordering::SeqCst)
    }

    /// Counts the calls of [`KeyStore::get`], including failed ones.
    #[must_use]
    pub fn gets(&self) -> usize {
        self.0.calls.gets.load(Ordering::SeqCst)
    }

    /// Counts the calls of [`KeyStore::page`], [`KeyStore::summary`] and [`KeyStore::keks`], including failed ones.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.0.calls.pages.load(Ordering::SeqCst)
    }

    /// Counts the calls of [`KeyStore::changed_since`], including failed ones.
    #[must_use]
    pub fn polls(&self) -> usize {
        self.0.calls.polls.load(Ordering::SeqCst)
    }

    /// Counts the calls of [`KeyStore::insert`], [`KeyStore::apply`] and
    /// [`KeyStore::replace_wraps`], including failed ones.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.0.calls.writes.load(Ordering::SeqCst)
    }

    /// Returns all current rows, sorted by id, without counting as a call.
    #[must_use]
    pub fn records(&self) -> Vec<KeyRecord> {
        lock(&self.0.rows).by_id.values().cloned().collect()
    }

    /// Returns the audit log: a row for every change, oldest first.
    #[must_use]
    pub fn audit_log(&self) -> Vec<AuditedChange> {
        let changes =
            |entry: &AuditEntry| AuditedChange::new(entry.key, entry.from, entry.to, entry.reason.clone());
        self.rows().audited.iter().map(changes).collect()
    }

    /// Edits the rows like an attacker with write access to the database: no rule is checked, no time
    /// advances, no hint is pushed.
    ///
    /// Of rows with the same id the last one stays, as in a table with a primary key. The edit may call the store: it
    /// edits a copy, which is written back afterwards.
    /// copy, and what it changed is written afterwards.
    pub fn tamper(&self, edit: impl FnOnce(&mut Vec<KeyRecord>)) {
        let before: BTreeMap<_, _> = self.rows().by_id.clone();
        let mut records: Vec<_> = before.values().cloned().collect();
        edit(&mut records);
        let after: BTreeMap<_, _> = records.into_iter().map(|record| (record.id, record)).collect();
        let mut rows = self.rows();
        for record in before.values().filter(|record| !after.contains_key(&record.id)) {
            rows.remove(record);
        }
        let is_edited = |record: &KeyRecord| before.get(&record.id) != Some(record);
        after
            .into_values()
            .filter(is_edited)
            .for_each(|record| rows.put(record));
    }

    fn begin(&self, calls: &AtomicUsize) -> Result<(), StoreError> {
        calls.fetch_add(1, Ordering::SeqCst);
        let mut faults = lock(&self.0.faults);
        let fault = faults.lasting.clone().or_else(|| faults.next.pop_front());
        fault.map_or(Ok(()), Err)
    }

    fn check_available(&self) -> Result<(), StoreError> {
        lock(&self.0.faults).lasting.clone().map_or(Ok(()), Err)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        lock(&self.0.rows)
    }

    /// Returns the clock's time in microseconds. Not under a lock: the clock is the test's code, and may call back here.
    fn now(&self) -> i64 {
        micros(&*self.0.clock)
    }

    /// Pushes a hint. Not under a lock: it wakes subscribers.
    fn hint(&self, hint: KeyHint) {
        // An error means that there is no subscriber.
        let _ = self.0.hints.send(hint);
    }
}

impl Default for MemoryKeyStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeyStore")
            .field("keys", &self.rows().by_id.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        self.begin(&self.0.calls.loads)?;
        let rows = self.rows();
        let scopes: BTreeSet<_> = scopes.iter().collect();
        Ok(scopes.into_iter().flat_map(|scope| rows.of(scope)).collect())
    }

    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError> {
        self.begin(&self.0.calls.gets)?;
        let rows = self.rows();
        let ids: BTreeSet<_> = ids.iter().collect();
        Ok(ids
            .into_iter()
            .filter_map(|id| rows.by_id.get(id).cloned())
            .collect())
    }

    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        let rival = lock(&self.0.rival).take();
        if let Some(rival) = rival {
            rival(new.clone()).await;
        }
        self.begin(&self.0.calls.writes)?;
        let now = self.now();
        let record = {
            let mut rows = self.rows();
            let at = rows.tick(now);
            let writes = new.plan(&rows.of(&new.scope), at)?;
            if rows.by_id.contains_key(&new.id) {
                // The id exists in another scope: `plan` refuses it in this one.
                return Err(StoreError::Conflict);
            }
            rows.write(writes, new.id, new.reason.as_deref())?
        };
        self.hint(KeyHint::Changed { scope: new.scope });
        Ok(record)
    }

    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError> {
        self.begin(&self.0.calls.writes)?;
        let now = self.now();
        let record = {
            let mut rows = self.rows();
            let at = rows.tick(now);
            let writes = change.plan(&rows.of(&change.scope), at)?;
            rows.write(writes, change.id, change.reason.as_deref())?
        };
        self.hint(KeyHint::Changed { scope: change.scope });
        Ok(record)
    }

    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError> {
        self.begin(&self.0.calls.writes)?;
        let now = self.now();
        let (mut outcomes, mut changed) = (Vec::with_capacity(changes.len()), Vec::new());
        {
            let mut rows = self.rows();
            for change in changes {
                let at = rows.tick(now);
                let planned = change.plan(rows.by_id.get(&change.id), at);
                if let Ok(record) = &planned {
                    rows.audit(record, change.reason.as_deref());
                    rows.put(record.clone());
                    changed.push(change.scope);
                }
                outcomes.push(WrapOutcome::new(change.id, planned));
            }
        }
        for scope in changed {
            self.hint(KeyHint::Changed { scope });
        }
        Ok(outcomes)
    }

    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError> {
        self.begin(&self.0.calls.pages)?;
        let one_more = usize::try_from(query.limit)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let rows = self.rows();
        let matching = rows.by_id.values().filter(|record| query.matches(record));
        Ok(KeyPage::of_one_more(
            matching.take(one_more).cloned().collect(),
            query.limit,
        ))
    }

    async fn summary(&self) -> Result<KeySummary, StoreError> {
        self.begin(&self.0.calls.pages)?;
        Ok(KeySummary::of(self.rows().by_id.values()))
    }

    async fn keks(&self) -> Result<Vec<KekUse>, StoreError> {
        self.begin(&self.0.calls.pages)?;
        Ok(KekUse::of(self.rows().by_id.values()))
    }

    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError> {
        self.begin(&self.0.calls.polls)?;
        let now = self.now();
        let mut rows = self.rows();
        let (at, after) = match cursor.position() {
            CursorPosition::At { at, after, .. } => (at, after),
            // A time before every later write.
            CursorPosition::Now => (rows.tick(now), None),
            // `Start`.
            _ => (Timestamp::from_micros(i64::MIN), None),
        };
        let is_later = |record: &KeyRecord| {
            record.changed_at > at || (record.changed_at == at && after.is_none_or(|after| record.id > after))
        };
        let mut later: Vec<_> = rows.by_id.values().filter(|record| is_later(record)).collect();
        later.sort_by_key(|record| (record.changed_at, record.id));
        let more = later.len() > CHANGES_PER_PAGE;
        later.truncate(CHANGES_PER_PAGE);
        // Every write has its own time and the lock orders them, so no change can still appear before the last one; a
        // database needs an overlap here. A later time comes from an edit, and writes will pass it.
        let last = later.last().map(|record| (record.changed_at, Some(record.id)));
        let next = cursor.following(
            last.unwrap_or((at, after)),
            Timestamp::from_micros(rows.last),
            more,
        );
        let changes = later
            .into_iter()
            .map(|record| KeyChange::new(record.id, record.scope, record.state, record.revision));
        Ok(ChangePage::new(changes.collect(), next, more))
    }

    fn changes(&self) -> KeyChanges {
        match self.0.pushes_hints.load(Ordering::SeqCst) {
            true => KeyChanges::new(Hints::new(self.0.hints.subscribe())),
            false => KeyChanges::never(),
        }
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn jobs(&self) -> Option<&dyn JobStore> {
        Some(self)
    }

    fn processes(&self) -> Option<&dyn ProcessRegistry> {
        Some(self)
    }

    fn audit(&self) -> Option<&dyn AuditLog> {
        Some(self)
    }
}

#[async_trait]
impl AuditLog for MemoryKeyStore {
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.check_available()?;
        let one_more = usize::try_from(query.limit)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let rows = self.rows();
        let matching = rows.audited.iter().filter(|entry| query.matches(entry));
        Ok(AuditPage::of_one_more(
            matching.take(one_more).cloned().collect(),
            query.limit,
        ))
    }
}

#[derive(Default)]
struct Rows {
    by_id: BTreeMap<DataKeyId, KeyRecord>,
    by_scope: BTreeMap<Scope, BTreeSet<DataKeyId>>,
    audited: Vec<AuditEntry>,
    last: i64,
}

impl Rows {
    /// Returns the scope's records, sorted by version, as ids and versions grow together.
    fn of(&self, scope: &Scope) -> Vec<KeyRecord> {
        let ids = self.by_scope.get(scope).into_iter().flatten();
        let mut records: Vec<_> = ids.filter_map(|id| self.by_id.get(id).cloned()).collect();
        records.sort_by_key(|record| (record.version, record.id));
        records
    }

    fn put(&mut self, record: KeyRecord) {
        self.by_scope.entry(record.scope).or_default().insert(record.id);
        let scope = record.scope;
        if let Some(old) = self.by_id.insert(record.id, record)
            && old.scope != scope
        {
            self.by_scope.entry(old.scope).or_default().remove(&old.id);
        }
    }

    fn write(
        &mut self,
        writes: Vec<KeyRecord>,
        id: DataKeyId,
        reason: Option<&str>,
    ) -> Result<KeyRecord, StoreError> {
        for record in writes {
            self.audit(&record, reason);
            self.put(record);
        }
        self.by_id.get(&id).cloned().ok_or(StoreError::NotFound { id })
    }

    /// Logs a change before it overwrites the current row.
    fn audit(&mut self, record: &KeyRecord, reason: Option<&str>) {
        let old = self.by_id.get(&record.id);
        let what = match old {
            None => AuditedPart::Added,
            Some(old) if old.state == record.state && old.suspended_from == record.suspended_from => {
                AuditedPart::Wraps
            }
            Some(_) => AuditedPart::State,
        };
        let number = i64::try_from(self.audited.len()).map_or(i64::MAX, |len| len.saturating_add(1));
        let mut entry = AuditEntry::new(
            number,
            record.changed_at,
            record.id,
            record.scope,
            what,
            record.state,
        );
        entry.from = old.map(|old| old.state);
        entry.reason = reason.map(str::to_owned);
        self.audited.push(entry);
    }

    fn remove(&mut self, record: &KeyRecord) {
        self.by_id.remove(&record.id);
        self.by_scope.entry(record.scope).or_default().remove(&record.id);
    }

    /// Returns the time of a write: `now`, in microseconds, or a microsecond after the last write.
    fn tick(&mut self, now: i64) -> Timestamp {
        self.last = now.max(self.last.saturating_add(1));
        Timestamp::from_micros(self.last)
    }
}

fn micros(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.unix_millis()).map_or(i64::MAX, |millis| millis.saturating_mul(1000))
}

type Received = (Result<KeyHint, RecvError>, broadcast::Receiver<KeyHint>);

/// Turns the channel into a stream.
struct Hints(Pin<Box<dyn Future<Output = Received> + Send>>);

impl Hints {
    fn new(mut receiver: broadcast::Receiver<KeyHint>) -> Self {
        Self(Box::pin(async move { (receiver.recv().await, receiver) }))
    }
}

impl Stream for Hints {
    type Item = KeyHint;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<KeyHint>> {
        let (received, receiver) = ready!(self.0.as_mut().poll(context));
        *self = Self::new(receiver);
        Poll::Ready(match received {
            Ok(hint) => Some(hint),
            Err(RecvError::Lagged(_)) => Some(KeyHint::Gap),
            Err(RecvError::Closed) => None,
        })
    }
}

/// Locks a mutex that a panicking test may have poisoned. Its rows are whole, because no write panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
