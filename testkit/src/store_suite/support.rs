//! Shared helpers of the cases: keys to add, wraps for them, and races.

use std::sync::Arc;
use std::time::Duration;

use encx_core::clock::Clock;
use encx_core::context::EncryptionContext;
use encx_core::key::{
    DataKeyId, KekId, KeyCheck, KeyState, KeyUsage, KeyVersion, KmsName, Scope, WrappedKey,
};
use encx_core::store::{
    ChangeCursor, CursorPosition, JobStore, KeyChange, KeyQuery, KeyRecord, KeyStore, Leases, NewKey,
    ProcessId, ProcessRegistry, StateChange, StoreError, StoredWrap, Timestamp,
};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{StoreFixture, StoreOffer};
use crate::clock::MachineClock;

/// A store, as fixtures open it.
pub(super) type Store = Arc<dyn KeyStore>;

/// The number of racers.
pub(super) const RACERS: usize = 16;

/// A term longer than any case.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// A term short enough to wait for.
pub(super) const SHORT: Duration = Duration::from_millis(50);

/// Opens handles on a store that offers this; `None` if the fixture says that it does not.
pub(super) async fn handles<const N: usize>(
    fixture: &dyn StoreFixture,
    what: StoreOffer,
) -> Option<[Store; N]> {
    let mut stores = Vec::with_capacity(N);
    for _ in 0..N {
        let store = fixture.open().await;
        for (what, offered) in [
            (StoreOffer::AuditLog, store.audit().is_some()),
            (StoreOffer::Jobs, store.jobs().is_some()),
            (StoreOffer::Leases, store.leases().is_some()),
            (StoreOffer::Processes, store.processes().is_some()),
        ] {
            assert_eq!(
                offered,
                fixture.offers(what),
                "the fixture says whether its store has {what:?}"
            );
        }
        stores.push(store);
    }
    fixture.offers(what).then(|| stores.try_into().unwrap())
}

/// The leases of a handle from [`handles`].
pub(super) fn leases(store: &Store) -> &dyn Leases {
    store.leases().unwrap()
}

/// The jobs of a handle from [`handles`].
pub(super) fn jobs(store: &Store) -> &dyn JobStore {
    store.jobs().unwrap()
}

/// The registry of a handle from [`handles`].
pub(super) fn processes(store: &Store) -> &dyn ProcessRegistry {
    store.processes().unwrap()
}

/// Returns the store's time, as well as the store can tell: a poll may lag behind.
pub(super) async fn now(store: &Store) -> Timestamp {
    if let Some(leases) = store.leases() {
        let clock = leases.acquire_lease("clock", ProcessId::random(), Duration::ZERO);
        return clock.await.unwrap().unwrap().since;
    }
    if let Some(processes) = store.processes() {
        return processes.list_processes().await.unwrap().now;
    }
    let page = store.changed_since(&ChangeCursor::now()).await.unwrap();
    match page.next.position() {
        CursorPosition::At { at, .. } => at,
        other => panic!("a poll ends at a moment, not {other:?}"),
    }
}

/// Waits until a moment by the store's clock.
pub(super) async fn wait_until(store: &Store, moment: Timestamp) {
    while now(store).await < moment {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a term that began earlier has passed.
pub(super) async fn outwait(store: &Store, term: Duration) {
    let end = now(store).await.as_micros() + i64::try_from(term.as_micros()).unwrap();
    wait_until(store, Timestamp::from_micros(end)).await;
}

/// Makes the keys of one scope in sequence.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) usage: KeyUsage,
    pub(super) context: EncryptionContext,
    last: Option<(DataKeyId, KeyVersion)>,
}

impl Family {
    pub(super) fn new(tenant: &str) -> Self {
        Self::of(KeyUsage::Data, &[("tenantId", tenant), ("purpose", "suite")])
    }

    pub(super) fn of(usage: KeyUsage, pairs: &[(&str, &str)]) -> Self {
        Self {
            usage,
            context: EncryptionContext::from_pairs(pairs.iter().copied()).unwrap(),
            last: None,
        }
    }

    pub(super) fn scope(&self) -> Scope {
        Scope::of(self.usage, &self.context)
    }

    /// Describes the next version, with one wrap, without advancing.
    pub(super) fn next(&self, state: KeyState) -> NewKey {
        let id = new_id(self.last.map(|(id, _)| id));
        let version = match self.last {
            Some((_, version)) => version.next().unwrap(),
            None => KeyVersion::FIRST,
        };
        NewKey::new(
            id,
            self.usage,
            &self.context,
            KeyCheck::from_bytes(check_bytes(id)),
        )
        .with_version(version)
        .with_state(state)
        .with_wrap(wrap("kek-1", 1))
    }

    /// Advances past a version.
    pub(super) fn passed(&mut self, id: DataKeyId, version: KeyVersion) {
        self.last = Some((id, version));
    }

    /// Adds the next version.
    pub(super) async fn add(&mut self, store: &Store, state: KeyState) -> KeyRecord {
        let record = store.insert(&self.next(state)).await.unwrap();
        self.passed(record.id, record.version);
        record
    }

    pub(super) async fn load(&self, store: &Store) -> Vec<KeyRecord> {
        store.load(&[self.scope()]).await.unwrap()
    }
}

/// Makes a greater id.
pub(super) fn new_id(after: Option<DataKeyId>) -> DataKeyId {
    DataKeyId::generate(MachineClock.unix_millis(), after).unwrap()
}

/// Makes a check value with bytes of every kind, different for every key.
pub(super) fn check_bytes(id: DataKeyId) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&id.to_bytes());
    bytes[17] = 0xff;
    bytes[18] = 0x80;
    bytes
}

/// Makes a wrap whose bytes contain a zero, which no text does, and the seed.
pub(super) fn wrap(kek: &str, seed: u8) -> StoredWrap {
    let bytes = vec![0, seed, 0xff, 0x27, 0x5c, 0];
    StoredWrap::new(
        KmsName::default(),
        WrappedKey::new(KekId::new(kek).unwrap(), bytes),
    )
}

/// Changes a key's state, given the revision that was last seen.
pub(super) async fn change(store: &Store, record: &KeyRecord, to: KeyState) -> Result<KeyRecord, StoreError> {
    store.apply(&StateChange::new(record, to)).await
}

/// Loads one key.
pub(super) async fn current(store: &Store, id: DataKeyId) -> KeyRecord {
    let found = store.get(&[id]).await.unwrap();
    assert_eq!(found.len(), 1, "one key has the id {id}");
    found.into_iter().next().unwrap()
}

/// Lists all keys of a query, page by page.
pub(super) async fn list(store: &Store, query: &KeyQuery) -> Vec<KeyRecord> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = store.page(&query).await.unwrap();
        let limit = usize::try_from(query.limit).unwrap();
        assert!(page.records.len() <= limit, "a page holds at most its limit");
        let last = page.records.last().map(|record| record.id);
        found.extend(page.records);
        match page.next {
            Some(next) => {
                assert_eq!(
                    Some(next),
                    last,
                    "the next page begins after the last key of this one"
                );
                query.after = Some(next);
            }
            None => return found,
        }
    }
}

/// Polls to the end, and returns the changes and where to continue.
pub(super) async fn poll(store: &Store, from: ChangeCursor) -> (Vec<KeyChange>, ChangeCursor) {
    let mut cursor = from;
    let mut found = Vec::new();
    loop {
        let page = store.changed_since(&cursor).await.unwrap();
        assert!(
            !(page.more && page.changes.is_empty()),
            "a page that promises more lists something"
        );
        found.extend(page.changes);
        cursor = page.next;
        if !page.more {
            return (found, cursor);
        }
    }
}

/// Runs [`RACERS`] racers at once, and returns their results.
pub(super) async fn race<F, T>(racer: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let start = Arc::new(Barrier::new(RACERS));
    let mut tasks = JoinSet::new();
    for number in 0..RACERS {
        let start = start.clone();
        let run = racer(number);
        tasks.spawn(async move {
            start.wait().await;
            run.await
        });
    }
    tasks.join_all().await
}

/// Checks that one racer won and every other lost with the right error, and returns the winner's record.
pub(super) fn only_winner(results: Vec<Result<KeyRecord, StoreError>>) -> KeyRecord {
    let mut winners = Vec::new();
    for result in results {
        match result {
            Ok(record) => winners.push(record),
            Err(error) => assert!(error.is_lost_race(), "a loser learns that it lost, not: {error}"),
        }
    }
    assert_eq!(winners.len(), 1, "one racer wins: {winners:#?}");
    winners.remove(0)
}

/// Counts the active versions.
pub(super) fn active(records: &[KeyRecord]) -> usize {
    records
        .iter()
        .filter(|record| record.state == KeyState::Active)
        .count()
}
