//! A key store that a test can hold, break and slow down.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use encx::keys::{DataKeyId, KeyUsage, Scope};
use encx::store::{
    AuditLog, ChangeCursor, ChangePage, JobStore, KekUse, KeyChanges, KeyHint, KeyPage, KeyQuery, KeyRecord,
    KeyStore, KeySummary, Leases, NewKey, ProcessRegistry, StateChange, StoreError, WrapChange, WrapOutcome,
};
use encx::{Clock, EncryptionContext};
use encx_testkit::{ManualClock, MemoryKeyStore};
use futures_core::Stream;

use crate::gate::Gate;
use crate::registry::Registry;

/// One process's connection to a database, which can hang, break and lag separately.
#[derive(Clone, Debug)]
pub struct Connection {
    rows: MemoryKeyStore,
    hints: bool,
    pub(crate) coordinates: bool,
    pub(crate) registers: bool,
    /// Its registry of processes, in which adding counts can fail separately.
    pub registry: Registry,
    /// Holds loads after they have read: their results age until the test releases them.
    pub loads: Gate,
    /// Holds loads of several scopes before they read.
    pub wide_loads: Gate,
    /// Holds inserts before they write.
    pub early_inserts: Gate,
    /// Holds inserts after they are done: their caller does not know it yet.
    pub inserts: Gate,
    /// Holds polls before they query.
    pub polls: Gate,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    down: AtomicBool,
    loads_fail: AtomicBool,
    /// How many polls succeed before one fails, plus one; 0 for all.
    polls_left: AtomicUsize,
    corrupt: Mutex<Option<Scope>>,
    latency: Mutex<Option<(ManualClock, Duration)>>,
    panics: AtomicUsize,
    flood: AtomicBool,
}

/// Endless hints about keys that no process holds.
struct Flood;

impl Stream for Flood {
    type Item = KeyHint;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<KeyHint>> {
        let scope = Scope::from_bytes([7; Scope::LEN]);
        Poll::Ready(Some(KeyHint::Changed { scope }))
    }
}

impl Connection {
    /// Connects to a working database. With `hints` it pushes changes.
    pub fn new(rows: MemoryKeyStore, hints: bool) -> Self {
        Self {
            registry: Registry::new(rows.clone()),
            rows,
            hints,
            coordinates: false,
            registers: true,
            loads: Gate::new(),
            wide_loads: Gate::new(),
            early_inserts: Gate::new(),
            inserts: Gate::new(),
            polls: Gate::new(),
            faults: Arc::default(),
        }
    }

    /// Makes every call fail until `false` is set.
    pub fn set_down(&self, down: bool) {
        self.faults.down.store(down, Ordering::SeqCst);
    }

    /// Makes every load fail until `false` is set, while polls succeed.
    pub fn fail_loads(&self, fail: bool) {
        self.faults.loads_fail.store(fail, Ordering::SeqCst);
    }

    /// Makes one query for changes fail, after `queries` more that succeed.
    pub fn fail_poll_after(&self, queries: usize) {
        self.faults.polls_left.store(queries + 1, Ordering::SeqCst);
    }

    /// Makes every load fail that includes this context's data key.
    pub fn corrupt(&self, context: &EncryptionContext) {
        *self.faults.corrupt.lock().unwrap() = Some(Scope::of(KeyUsage::Data, context));
    }

    /// Makes every load take this long.
    pub fn slow_down(&self, clock: &ManualClock, latency: Duration) {
        *self.faults.latency.lock().unwrap() = Some((clock.clone(), latency));
    }

    /// Pushes endless hints to processes that subscribe from now on.
    pub fn flood_with_hints(&self) {
        self.faults.flood.store(true, Ordering::SeqCst);
    }

    /// Whether it pushes changes.
    pub fn changes_are_pushed(&self) -> bool {
        self.hints
    }

    /// Makes the next load panic.
    pub fn panic_in_next_load(&self) {
        self.faults.panics.store(1, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.faults.down.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable(std::io::Error::other("down")));
        }
        Ok(())
    }
}

#[async_trait]
impl KeyStore for Connection {
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        let panics = &self.faults.panics;
        let ordered = panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(ordered.is_err(), "the test wants a panic here");
        self.check()?;
        if self.faults.loads_fail.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable(std::io::Error::other("loads fail")));
        }
        let corrupt = *self.faults.corrupt.lock().unwrap();
        if corrupt.is_some_and(|corrupt| scopes.contains(&corrupt)) {
            let what = "a row of the test".to_owned();
            return Err(StoreError::Corrupt { what });
        }
        if scopes.len() > 1 {
            self.wide_loads.pass().await;
        }
        let latency = self.faults.latency.lock().unwrap().clone();
        if let Some((clock, latency)) = latency {
            clock.sleep(latency).await;
        }
        let loaded = self.rows.load(scopes).await;
        if scopes.len() == 1 {
            self.loads.pass().await;
        }
        loaded
    }

    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError> {
        self.check()?;
        self.rows.get(ids).await
    }

    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        self.check()?;
        self.early_inserts.pass().await;
        let inserted = self.rows.insert(new).await;
        self.inserts.pass().await;
        inserted
    }

    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError> {
        self.check()?;
        self.rows.apply(change).await
    }

    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError> {
        self.check()?;
        self.rows.replace_wraps(changes).await
    }

    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError> {
        self.check()?;
        self.rows.page(query).await
    }

    async fn summary(&self) -> Result<KeySummary, StoreError> {
        self.check()?;
        self.rows.summary().await
    }

    async fn keks(&self) -> Result<Vec<KekUse>, StoreError> {
        self.check()?;
        self.rows.keks().await
    }

    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError> {
        self.polls.pass().await;
        self.check()?;
        let left = &self.faults.polls_left;
        if left.load(Ordering::SeqCst) > 0 && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(StoreError::unavailable(std::io::Error::other("cut off")));
        }
        self.rows.changed_since(cursor).await
    }

    fn changes(&self) -> KeyChanges {
        if self.faults.flood.load(Ordering::SeqCst) {
            KeyChanges::new(Flood)
        } else if self.hints {
            self.rows.changes()
        } else {
            KeyChanges::never()
        }
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.rows.leases().filter(|_| self.coordinates)
    }

    fn jobs(&self) -> Option<&dyn JobStore> {
        self.rows.jobs().filter(|_| self.coordinates)
    }

    fn processes(&self) -> Option<&dyn ProcessRegistry> {
        let registers = self.coordinates && self.registers && self.rows.processes().is_some();
        registers.then_some(&self.registry)
    }

    fn audit(&self) -> Option<&dyn AuditLog> {
        self.rows.audit()
    }
}
