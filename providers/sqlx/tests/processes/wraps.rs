//! Many wraps in one transaction: each key has its own outcome, independent of the others.

use std::sync::Arc;
use std::time::Duration;

use encx::keys::{DataKeyId, KeyState};
use encx::kms::{KekId, KmsName, WrappedKey};
use encx::store::{KeyRecord, KeyStore, StateChange, StoreError, StoredWrap, WrapChange, WrapOutcome};
use encx_sqlx::PostgresKeyStore;
use sqlx::{Connection, Executor, Row};
use tokio::time::Instant;
use uuid::Uuid;

use crate::common::new_key;
use crate::common::postgres::on_a_database;

fn wrap(kek: &str, seed: u8) -> StoredWrap {
    let wrapped = WrappedKey::new(KekId::new(kek).unwrap(), vec![seed, 0, 0xff]);
    StoredWrap::new(KmsName::default(), wrapped)
}

async fn insert_many(store: &PostgresKeyStore, count: usize) -> Vec<KeyRecord> {
    let mut records = Vec::new();
    for n in 0..count {
        records.push(store.insert(&new_key(&format!("t-{n}"))).await.unwrap());
    }
    records
}

fn changes_of(records: &[KeyRecord], seed: u8) -> Vec<WrapChange> {
    let change = |record| WrapChange::new(record, vec![wrap("kek-2", seed)]).because("move");
    records.iter().map(change).collect()
}

fn replaced(outcomes: &[WrapOutcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.result.is_ok()).count()
}

/// More keys than one transaction takes, with all kinds of changes; the second change of a key follows the first.
#[test]
fn more_keys_than_a_transaction_takes_are_all_replaced() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let mut connection = database.connection().await;
        store.insert(&new_key("first")).await.unwrap();
        let fill = "INSERT INTO encx.data_keys SELECT
                (left(id::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, sha256(int4send(n)), usage, version, state,
                suspended_from, context, key_check, revision, created_at, activated_at, deactivated_at, destroyed_at,
                changed_at
            FROM encx.data_keys, generate_series(1, 1100) AS n;
            INSERT INTO encx.wrapped_keys
            SELECT id, 'default', 'kek-' || n, '\\x01', NULL FROM encx.data_keys, generate_series(1, 2) AS n
            WHERE get_byte(uuid_send(id), 15) % 3 < n
            ON CONFLICT DO NOTHING";
        connection.execute(fill).await.unwrap();
        let ids: Vec<DataKeyId> = sqlx::query("SELECT id FROM encx.data_keys")
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get::<Uuid, _>("id").try_into().unwrap())
            .collect();
        let records = store.get(&ids).await.unwrap();
        assert_eq!(records.len(), 1101);
        let mut changes: Vec<_> = records
            .iter()
            .enumerate()
            .map(|(n, record)| {
                let wraps = match n % 4 {
                    0 => vec![wrap("kek-1", 9)],
                    1 => vec![wrap("kek-9", 9), wrap("kek-1", 8)],
                    // Its current wraps, if it has any.
                    2 if !record.wraps.is_empty() => record.wraps.clone(),
                    _ => vec![wrap("kek-9", 9)],
                };
                WrapChange::new(record, wraps)
            })
            .collect();
        changes.reverse();
        let mut again = changes[3].clone();
        again.revision = again.revision.next();
        again.wraps = vec![wrap("kek-again", 1)];
        changes.insert(4, again);
        let stale = changes[3].clone();
        changes.push(stale);
        let outcomes = store.replace_wraps(&changes).await.unwrap();
        assert_eq!(outcomes.len(), changes.len());
        let last = outcomes.last().unwrap();
        assert!(
            matches!(last.result, Err(StoreError::StaleRevision { .. })),
            "{last:?}"
        );
        assert_eq!(replaced(&outcomes), 1102);
        let found = store.get(&ids).await.unwrap();
        for (place, outcome) in outcomes
            .iter()
            .enumerate()
            .filter(|(place, _)| ![3, 1102].contains(place))
        {
            assert_eq!(outcome.id, changes[place].id);
            let now = found.iter().find(|record| record.id == outcome.id).unwrap();
            assert_eq!(outcome.result.as_ref().unwrap(), now);
            assert_eq!(now.wraps.len(), changes[place].wraps.len());
        }
        let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM encx.audit_log WHERE what = 'wraps'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(audited, 1102);
    });
}

/// One key is locked by a transaction that hangs, one is locked for a moment, one is unreadable, one has changed.
#[test]
fn what_happens_to_one_key_happens_to_no_other() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let records = insert_many(&store, 8).await;
        let (stuck, slow, corrupt, stale) = (&records[0], &records[2], &records[4], &records[6]);
        let lock = "SELECT FROM encx.data_keys WHERE id = $1 FOR UPDATE";
        let mut holder = database.connection().await;
        let mut held = holder.begin().await.unwrap();
        sqlx::query(lock)
            .bind(Uuid::from(stuck.id))
            .execute(&mut *held)
            .await
            .unwrap();
        let mut passing = database.connection().await;
        let slow_id = Uuid::from(slow.id);
        let (locked, is_locked) = tokio::sync::oneshot::channel();
        let passing = tokio::spawn(async move {
            let mut transaction = passing.begin().await.unwrap();
            sqlx::query(lock)
                .bind(slow_id)
                .execute(&mut *transaction)
                .await
                .unwrap();
            locked.send(()).unwrap();
            let wait = "SELECT pg_sleep(0.5)";
            transaction.execute(wait).await.unwrap();
            transaction.commit().await.unwrap();
        });
        is_locked.await.unwrap();
        let mut editor = database.connection().await;
        sqlx::query("UPDATE encx.data_keys SET context = '{\"a\": 1}' WHERE id = $1")
            .bind(Uuid::from(corrupt.id))
            .execute(&mut editor)
            .await
            .unwrap();
        store
            .apply(&StateChange::new(stale, KeyState::Suspended))
            .await
            .unwrap();

        let began = Instant::now();
        let outcomes = store.replace_wraps(&changes_of(&records, 2)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        passing.await.unwrap();
        for (place, outcome) in outcomes.iter().enumerate() {
            let fits = match (place, &outcome.result) {
                (0, Err(error)) => error.is_retryable(),
                (4, Err(StoreError::Corrupt { what })) => what.contains(&corrupt.id.to_string()),
                (6, Err(StoreError::StaleRevision { .. })) => true,
                (1..=3 | 5 | 7, Ok(record)) => record.wraps == [wrap("kek-2", 2)],
                _ => false,
            };
            assert!(fits, "{place}: {outcome:?}");
        }
        held.rollback().await.unwrap();
        let retried = store.replace_wraps(&changes_of(&records[..1], 3)).await.unwrap();
        assert_eq!(replaced(&retried), 1);
    });
}

/// A key that the database refuses to write fails alone.
#[test]
fn what_the_database_refuses_is_refused_alone() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let records = insert_many(&store, 5).await;
        let mut connection = database.connection().await;
        let forbid = "ALTER TABLE encx.wrapped_keys ADD CHECK (kek <> 'forbidden')";
        connection.execute(forbid).await.unwrap();
        let mut changes = changes_of(&records, 2);
        changes[2].wraps = vec![wrap("forbidden", 1)];
        let outcomes = store.replace_wraps(&changes).await.unwrap();
        assert_eq!(replaced(&outcomes), 4);
        let refused = outcomes[2].result.as_ref().unwrap_err();
        assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
        let untouched = store.get(&[records[2].id]).await.unwrap();
        assert_eq!(untouched, std::slice::from_ref(&records[2]));
        // Rolled back changes left nothing in the audit log.
        let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM encx.audit_log WHERE what = 'wraps'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(audited, 4);
    });
}

/// Two writers replace the wraps of the same keys, in opposite orders, while a third changes their states.
#[test]
fn writers_of_the_same_keys_never_wait_in_a_circle() {
    on_a_database(|database| async move {
        let store = Arc::new(database.store().await);
        store.migrate().await.unwrap();
        let records = insert_many(&store, 60).await;
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..3_u8 {
            let (store, mut ids) = (Arc::clone(&store), ids.clone());
            if worker == 1 {
                ids.reverse();
            }
            tasks.spawn(async move {
                let mut done = 0;
                for round in 0..8 {
                    let mut current = store.get(&ids).await.unwrap();
                    if worker == 1 {
                        current.reverse();
                    }
                    if worker == 2 {
                        let record = &current[round % 60];
                        let to = match record.state {
                            KeyState::Active => KeyState::Suspended,
                            _ => KeyState::Active,
                        };
                        match store.apply(&StateChange::new(record, to)).await {
                            Ok(_) => done += 1,
                            Err(error) => assert!(error.is_lost_race(), "{error}"),
                        }
                        continue;
                    }
                    for outcome in store.replace_wraps(&changes_of(&current, worker)).await.unwrap() {
                        match outcome.result {
                            Ok(_) => done += 1,
                            Err(error) => assert!(
                                matches!(error, StoreError::StaleRevision { .. }),
                                "only a stale revision fails a change: {error}"
                            ),
                        }
                    }
                }
                done
            });
        }
        let done: i64 = tasks.join_all().await.into_iter().sum();
        let revisions: i64 = store
            .get(&ids)
            .await
            .unwrap()
            .iter()
            .map(|record| record.revision.get() - 1)
            .sum();
        assert_eq!(revisions, done, "each change counts once");
    });
}
