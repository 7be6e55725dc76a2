//! The conformance suite of key stores on `MemoryKeyStore`, and the features that only this store has.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use encx::keys::{DataKeyId, KeyCheck, KeyState, KeyUsage, KeyVersion};
use encx::kms::{KekId, KmsName, WrappedKey};
use encx::store::{
    ChangeCursor, Counted, KeyChanges, KeyHint, KeyRecord, KeyStore, NewKey, ProcessCounts, ProcessId,
    ProcessInfo, StateChange, StoreError, StoredWrap, Timestamp,
};
use encx::{Clock, EncryptionContext};
use encx_testkit::{AuditedChange, ManualClock, MemoryKeyStore, StoreFixture, block_on};

struct Memory(MemoryKeyStore);

#[async_trait::async_trait]
impl StoreFixture for Memory {
    async fn create() -> Self {
        Self(MemoryKeyStore::new())
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.0.clone())
    }

    async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
        Some(self.0.audit_log())
    }

    async fn remove(&self) {}
}

encx_testkit::store_conformance!(Memory);

fn new_key(tenant: &str, after: Option<DataKeyId>) -> NewKey {
    let context = EncryptionContext::builder()
        .pair("tenantId", tenant)
        .build()
        .unwrap();
    let id = DataKeyId::generate(1_767_225_600_000, after).unwrap();
    let wrapped = WrappedKey::new(KekId::new("kek-1").unwrap(), vec![1]);
    NewKey::new(id, KeyUsage::Data, &context, KeyCheck::from_bytes([1; 32]))
        .with_wrap(StoredWrap::new(KmsName::default(), wrapped))
}

/// Takes an available hint; `None` if there is none.
fn hint(changes: &mut KeyChanges) -> Option<KeyHint> {
    let mut next = pin!(poll_fn(|context: &mut Context<'_>| {
        futures_core::Stream::poll_next(std::pin::Pin::new(changes), context)
    }));
    match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(hint) => hint,
        Poll::Pending => None,
    }
}

#[test]
fn it_fails_on_request_and_counts_calls() {
    block_on(async {
        let store = MemoryKeyStore::new();
        let new = new_key("t-1", None);
        store.fail_next(2, StoreError::Conflict);
        assert!(matches!(
            store.load(&[new.scope]).await,
            Err(StoreError::Conflict)
        ));
        assert!(matches!(store.insert(&new).await, Err(StoreError::Conflict)));
        store.insert(&new).await.unwrap();

        store.set_unavailable(true);
        let error = store.clone().load(&[new.scope]).await.unwrap_err();
        assert!(error.is_retryable());
        assert!(store.insert(&new).await.unwrap_err().is_retryable());
        store.set_unavailable(false);
        assert_eq!(store.load(&[new.scope]).await.unwrap().len(), 1);
        assert_eq!((store.loads(), store.writes()), (3, 3));
        assert_eq!((store.gets(), store.pages(), store.polls()), (0, 0, 0));
    });
}

#[test]
fn an_attacker_edits_rows_without_a_trace() {
    block_on(async {
        let store = MemoryKeyStore::new();
        let record = store.insert(&new_key("t-1", None)).await.unwrap();
        let elsewhere = new_key("t-2", None).scope;
        store.tamper(|rows: &mut Vec<KeyRecord>| {
            rows[0].state = KeyState::Deactivated;
            rows[0].scope = elsewhere;
        });
        assert!(store.load(&[record.scope]).await.unwrap().is_empty());
        let moved = store.load(&[elsewhere]).await.unwrap().remove(0);
        assert_eq!(moved.state, KeyState::Deactivated);
        assert_eq!(
            (moved.revision, moved.changed_at),
            (record.revision, record.changed_at)
        );
        assert!(matches!(
            moved.verified_context(),
            Err(StoreError::Corrupt { .. })
        ));
        assert_eq!(store.records(), [moved]);
    });
}

#[test]
fn hints_are_pushed_and_a_late_reader_gets_a_gap() {
    block_on(async {
        let store = MemoryKeyStore::new();
        let mut changes = store.changes();
        assert_eq!(hint(&mut changes), None);
        let new = new_key("t-1", None);
        let mut record = store.insert(&new).await.unwrap();
        assert_eq!(hint(&mut changes), Some(KeyHint::Changed { scope: new.scope }));
        assert_eq!(hint(&mut changes), None);
        for _ in 0..300 {
            let to = match record.state {
                KeyState::Active => KeyState::Suspended,
                _ => KeyState::Active,
            };
            record = store.apply(&StateChange::new(&record, to)).await.unwrap();
        }
        assert_eq!(hint(&mut changes), Some(KeyHint::Gap));
        assert_eq!(hint(&mut changes), Some(KeyHint::Changed { scope: new.scope }));
        let refused = store.apply(&StateChange::new(&record, record.state)).await;
        assert!(refused.is_err());
    });
}

#[test]
fn claims_end_when_the_clock_says_so_and_a_fence_is_a_hint() {
    block_on(async {
        let clock = ManualClock::new();
        let store = MemoryKeyStore::with_clock(clock.clone());
        let mut changes = store.changes();
        let (leases, registry) = (store.leases().unwrap(), store.processes().unwrap());
        let (one, two) = (ProcessId::random(), ProcessId::random());
        let term = Duration::from_secs(30);
        // Writes advance the time of writes; claims use the clock.
        store.insert(&new_key("t-1", None)).await.unwrap();
        assert!(matches!(hint(&mut changes), Some(KeyHint::Changed { .. })));
        let lease = leases
            .acquire_lease("rotation", one, term)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            lease.until.as_micros() - lease.since.as_micros(),
            i64::try_from(term.as_micros()).unwrap()
        );
        clock.advance(term - Duration::from_millis(1));
        assert_eq!(leases.acquire_lease("rotation", two, term).await.unwrap(), None);
        clock.advance(Duration::from_millis(1));
        let next = leases
            .acquire_lease("rotation", two, term)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((next.since, next.term), (lease.until, lease.term + 1));

        let fence = registry.raise_fence().await.unwrap();
        assert_eq!(hint(&mut changes), Some(KeyHint::Fence(fence)));
        // Background work of processes does not use up faults of the store.
        store.fail_next(1, StoreError::Conflict);
        registry.raise_fence().await.unwrap();
        assert!(store.load(&[]).await.is_err());
        store.set_unavailable(true);
        assert!(registry.raise_fence().await.unwrap_err().is_retryable());
    });
}

/// A crashed process is remembered for as long as it could have served a key, plus an hour.
#[test]
fn processes_that_could_serve_no_key_any_more_are_forgotten() {
    block_on(async {
        let clock = ManualClock::new();
        let store = MemoryKeyStore::with_clock(clock.clone());
        let registry = store.processes().unwrap();
        let serves_for = Duration::from_secs(7200);
        let process = ProcessInfo::new(ProcessId::random(), "billing-7", serves_for);
        registry.heartbeat(&process).await.unwrap();
        clock.advance(serves_for + Duration::from_secs(3600));
        assert_eq!(registry.list_processes().await.unwrap().processes.len(), 1);
        clock.advance(Duration::from_millis(1));
        assert_eq!(registry.list_processes().await.unwrap().processes.len(), 0);
    });
}

#[test]
fn times_follow_the_clock_and_always_grow() {
    block_on(async {
        let clock = ManualClock::new();
        let store = MemoryKeyStore::with_clock(clock.clone());
        let micros = || i64::try_from(clock.unix_millis()).unwrap() * 1000;
        let first = store.insert(&new_key("t-1", None)).await.unwrap();
        assert_eq!(first.created_at.as_micros(), micros());
        let second = new_key("t-1", Some(first.id))
            .with_version(KeyVersion::new(2).unwrap())
            .with_state(KeyState::PreActive);
        let second = store.insert(&second).await.unwrap();
        assert_eq!(second.created_at.as_micros(), micros() + 1, "the clock stands");
        clock.advance(std::time::Duration::from_secs(5));
        let promoted = store
            .apply(&StateChange::new(&second, KeyState::Active))
            .await
            .unwrap();
        assert_eq!(promoted.changed_at.as_micros(), micros());
    });
}

/// A time that no clock has written does not move the cursor.
#[test]
fn a_row_from_the_future_hides_no_later_change() {
    block_on(async {
        let store = MemoryKeyStore::new();
        let planted = store.insert(&new_key("planted", None)).await.unwrap();
        let real = store.insert(&new_key("real", None)).await.unwrap();
        for cursor in [ChangeCursor::start(), ChangeCursor::now()] {
            store.tamper(|rows| {
                let row = rows.iter_mut().find(|row| row.id == planted.id).unwrap();
                row.changed_at = Timestamp::from_micros(i64::MAX);
            });
            let first = store.changed_since(&cursor).await.unwrap().next;
            let second = store.changed_since(&first).await.unwrap().next;
            let current = store.get(&[real.id]).await.unwrap().remove(0);
            let to = match current.state {
                KeyState::Active => KeyState::Suspended,
                _ => KeyState::Active,
            };
            let changed = store.apply(&StateChange::new(&current, to)).await.unwrap();
            let page = store.changed_since(&second).await.unwrap();
            let seen = page.changes.iter().find(|change| change.id == real.id);
            assert_eq!(
                seen.map(|change| change.revision),
                Some(changed.revision),
                "{cursor:?}"
            );
        }
    });
}

#[test]
fn counts_are_kept_by_day_for_four_hundred_days() {
    const DAY: Duration = Duration::from_secs(86_400);
    block_on(async {
        let clock = ManualClock::new();
        let store = MemoryKeyStore::with_clock(clock.clone());
        let store = store.processes().unwrap();
        let ever = Timestamp::from_micros(i64::MIN);
        for count in [1, 2] {
            let mut hits = ProcessCounts::new();
            hits.add(Counted::Hits, count);
            store.add_counts(&hits).await.unwrap();
            clock.advance(DAY);
        }
        let counted = async || {
            let days = store.daily_counts(ever).await.unwrap();
            days.iter()
                .map(|day| day.counts.get(Counted::Hits))
                .collect::<Vec<_>>()
        };
        assert_eq!(counted().await, [1, 2]);
        clock.advance(DAY * 397);
        assert_eq!(counted().await, [1, 2]);
        clock.advance(DAY);
        assert_eq!(counted().await, [2]);
    });
}
