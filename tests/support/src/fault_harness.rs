//! A KMS, a key store that can be held and broken, a clock, and processes on them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use encx::keys::{DataKeyId, KeyManager, KeyState, KeyUsage, Scope};
use encx::store::{
    ChangeCursor, ChangePage, Coordination, KeyChanges, KeyHint, KeyPage, KeyQuery, KeyRecord, KeyStore,
    NewKey, StateChange, StoreError, WrapChange, WrapOutcome,
};
use encx::{Ciphertext, Clock, Crypto, CryptoBuilder, EncryptionContext, Error, Field, Plaintext};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};
use futures_core::Stream;
use tokio::sync::watch;

pub(crate) const SSN: Field = Field::new("users", "ssn");
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn context(tenant: impl std::fmt::Display) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .build()
        .unwrap()
}

/// A KMS, a key store and a clock that several processes share.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) kms: MemoryKms,
    /// The database itself: what other processes see of it, whatever happens to `store`.
    pub(crate) rows: MemoryKeyStore,
    /// The connection of the process under test.
    pub(crate) store: Connection,
}

impl World {
    /// Its key store pushes no hints, so that nothing is seen except by polls.
    pub(crate) fn new() -> Self {
        Self::of(false)
    }

    pub(crate) fn with_hints() -> Self {
        Self::of(true)
    }

    /// Its key store knows the processes that use it.
    pub(crate) fn in_a_fleet(mut self) -> Self {
        self.store.coordinates = true;
        self
    }

    fn of(hints: bool) -> Self {
        let clock = ManualClock::new();
        let rows = MemoryKeyStore::with_clock(clock.clone());
        Self {
            store: Connection::new(rows.clone(), hints),
            kms: MemoryKms::new(),
            clock,
            rows,
        }
    }

    /// Asks neither the KMS nor the key store while it builds: tests count calls, and order faults before.
    pub(crate) fn builder(&self) -> CryptoBuilder {
        Crypto::builder(self.kms.clone(), self.store.clone())
            .clock(self.clock.clone())
            .connect_lazily()
    }

    pub(crate) async fn process(&self) -> Crypto {
        self.built(self.builder()).await
    }

    /// Builds, and waits for the first poll, so that none is under way when the test begins.
    pub(crate) async fn built(&self, builder: CryptoBuilder) -> Crypto {
        let before = self.rows.polls();
        let crypto = builder.build().await.unwrap();
        until("the first poll", || self.rows.polls() > before).await;
        settle().await;
        crypto
    }

    /// Manages keys in another process: the one under test is told nothing.
    pub(crate) fn elsewhere(&self) -> KeyManager {
        Crypto::builder(self.kms.clone(), self.rows.clone())
            .clock(self.clock.clone())
            .build_key_manager()
            .unwrap()
    }

    /// Lets time go by as it does, bit by bit: polls, sweeps and whatever else is due have their turn.
    pub(crate) async fn pass(&self, time: Duration) {
        self.pass_with(time, || {}).await;
    }

    /// The same, with a request between the bits.
    pub(crate) async fn pass_with(&self, time: Duration, mut request: impl FnMut()) {
        let until = self.clock.elapsed() + time;
        while self.clock.elapsed() < until {
            self.clock
                .advance((until - self.clock.elapsed()).min(10 * SECOND));
            settle().await;
            request();
        }
    }

    /// Suspends in another process the version that encrypts.
    pub(crate) async fn suspend_elsewhere(&self, context: &EncryptionContext) -> DataKeyId {
        let versions = self.elsewhere().list(context).await.unwrap();
        let active = versions.iter().find(|version| version.state == KeyState::Active);
        let id = active.unwrap().id;
        let manager = self.elsewhere();
        manager.set_state(context, id, KeyState::Suspended).await.unwrap();
        id
    }

    /// Lets half of the default `state_ttl` go by, and waits for the poll that comes in it.
    pub(crate) async fn next_poll(&self) {
        let before = self.rows.polls();
        self.clock.advance(MINUTE / 2);
        until("the next poll", || self.rows.polls() > before).await;
        settle().await;
    }

    /// The same, while the key store is down.
    pub(crate) async fn next_failed_poll(&self, process: &Crypto) {
        let before = process.stats().failed_polls;
        self.clock.advance(MINUTE / 2);
        until("the next poll to fail", || process.stats().failed_polls > before).await;
        settle().await;
    }
}

/// Encrypts something under a context.
pub(crate) async fn seal(crypto: &Crypto, context: &EncryptionContext) -> Ciphertext {
    let sealed = within(crypto.encrypt(context, "123-45-6789", SSN.row(1))).await;
    sealed.unwrap()
}

/// Decrypts what [`seal`] encrypted.
pub(crate) async fn open(
    crypto: &Crypto,
    context: &EncryptionContext,
    sealed: &Ciphertext,
) -> Result<Plaintext, Error> {
    within(crypto.decrypt(context, sealed, SSN.row(1))).await
}

/// Opens what [`seal`] encrypted, and fails if that has to wait for anybody.
pub(crate) fn open_at_once(crypto: &Crypto, context: &EncryptionContext, sealed: &Ciphertext) {
    at_once(crypto.decrypt(context, sealed, SSN.row(1)))
        .expect("a key in memory")
        .unwrap();
}

/// Encrypts, and fails if that has to wait for anybody.
pub(crate) fn seal_at_once(crypto: &Crypto, context: &EncryptionContext) {
    at_once(crypto.encrypt(context, "", SSN.row(1)))
        .expect("a key in memory")
        .unwrap();
}

/// Makes a ciphertext that names a key which nobody has.
pub(crate) fn with_unknown_key(sealed: &Ciphertext) -> Ciphertext {
    let mut bytes = sealed.as_bytes().to_vec();
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    bytes[2..18].copy_from_slice(&id.to_bytes());
    Ciphertext::parse(bytes).unwrap()
}

/// Long enough for a machine that does much else; reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let met = tokio::time::timeout(DEADLINE, met).await;
    assert!(met.is_ok(), "waited in vain for {what}");
}

/// Fails instead of hanging.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.expect("done before the deadline")
}

/// Lets every task of a single-threaded runtime run until it waits for something that only the test can bring.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Polls once, without a runtime being needed: what is done without waiting is done.
pub(crate) fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Holds whoever comes by, and knows how many it holds.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<(watch::Sender<bool>, watch::Sender<usize>)>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new((watch::Sender::new(false), watch::Sender::new(0))))
    }

    pub(crate) fn hold(&self) {
        self.0.0.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.0.0.send_replace(false);
    }

    pub(crate) fn waiting(&self) -> usize {
        *self.0.1.borrow()
    }

    pub(crate) async fn until_waiting(&self, n: usize) {
        until("calls at the gate", || self.waiting() == n).await;
    }

    async fn pass(&self) {
        struct Waiting<'a>(&'a watch::Sender<usize>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        self.0.1.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(&self.0.1);
        // The sender lives in `self`, so it cannot be gone.
        let _ = self.0.0.subscribe().wait_for(|held| !held).await;
    }
}

/// One process's connection to a database, which can hang, break and lag by itself.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    rows: MemoryKeyStore,
    hints: bool,
    coordinates: bool,
    /// Holds loads that have read already: what they bring grows old meanwhile.
    pub(crate) loads: Gate,
    /// Holds loads of several scopes before they read.
    pub(crate) wide_loads: Gate,
    /// Holds inserts before they write.
    pub(crate) early_inserts: Gate,
    /// Holds inserts that are done already: their caller does not know it yet.
    pub(crate) inserts: Gate,
    /// Holds polls before they ask.
    pub(crate) polls: Gate,
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

/// Hints that never end, of keys that nobody holds.
struct Flood;

impl Stream for Flood {
    type Item = KeyHint;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<KeyHint>> {
        let scope = Scope::from_bytes([7; Scope::LEN]);
        Poll::Ready(Some(KeyHint::Changed { scope }))
    }
}

impl Connection {
    pub(crate) fn new(rows: MemoryKeyStore, hints: bool) -> Self {
        Self {
            rows,
            hints,
            coordinates: false,
            loads: Gate::new(),
            wide_loads: Gate::new(),
            early_inserts: Gate::new(),
            inserts: Gate::new(),
            polls: Gate::new(),
            faults: Arc::default(),
        }
    }

    /// Makes every call fail until `false` is set.
    pub(crate) fn set_down(&self, down: bool) {
        self.faults.down.store(down, Ordering::SeqCst);
    }

    /// Makes every load fail until `false` is set, while polls succeed.
    pub(crate) fn fail_loads(&self, fail: bool) {
        self.faults.loads_fail.store(fail, Ordering::SeqCst);
    }

    /// Makes one query for changes fail, after `queries` more that succeed.
    pub(crate) fn fail_poll_after(&self, queries: usize) {
        self.faults.polls_left.store(queries + 1, Ordering::SeqCst);
    }

    /// Makes every load fail that asks for this context's data key, among others or alone.
    pub(crate) fn corrupt(&self, context: &EncryptionContext) {
        *self.faults.corrupt.lock().unwrap() = Some(Scope::of(KeyUsage::Data, context));
    }

    /// Makes every load take this long.
    pub(crate) fn slow_down(&self, clock: &ManualClock, latency: Duration) {
        *self.faults.latency.lock().unwrap() = Some((clock.clone(), latency));
    }

    /// Pushes hints without end to whoever subscribes from now on.
    pub(crate) fn flood_with_hints(&self) {
        self.faults.flood.store(true, Ordering::SeqCst);
    }

    pub(crate) fn changes_are_pushed(&self) -> bool {
        self.hints
    }

    pub(crate) fn panic_in_next_load(&self) {
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

    fn coordination(&self) -> Option<&dyn Coordination> {
        self.rows.coordination().filter(|_| self.coordinates)
    }
}
