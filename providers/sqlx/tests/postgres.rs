//! The conformance suite of key stores on PostgreSQL, and tests specific to that store.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;
#[path = "postgres/connecting.rs"]
mod connecting;
#[path = "postgres/migrate.rs"]
mod migrate;
#[path = "postgres/shared_work.rs"]
mod shared_work;
#[path = "postgres/unanswered.rs"]
mod unanswered;

use std::sync::Arc;
use std::task::Poll;

use common::postgres::{Database, on_a_database};
use common::{ciphertext, new_key, poll};
use encx::Ciphertext;
use encx::keys::KeyState;
use encx::store::{
    AuditLog, AuditQuery, ChangeCursor, CursorPosition, KeyStore, StateChange, StoreError, WrapChange,
};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use uuid::Uuid;

encx_testkit::store_conformance!(Database);

async fn run(connection: &mut PgConnection, statement: &str) {
    connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await
        .unwrap();
}

async fn count(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

/// Writes after a dropped call do not become part of that call's transaction, which would never commit.
#[test]
fn a_dropped_call_leaves_no_transaction_in_the_pool() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        // The store then has only one connection too.
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect_with(database.options()).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool);
        let mut other = database.connection().await;
        let new = new_key("t");
        for waits in 0..12 {
            let mut left = waits;
            let mut call = Box::pin(store.insert(&new));
            std::future::poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Pending if left > 0 => {
                    left -= 1;
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            })
            .await;
            drop(call);
            store.processes().unwrap().raise_fence().await.unwrap();
            assert_eq!(
                count(&mut other, "SELECT number FROM encx.fences").await,
                waits + 1,
                "committed, after a call that was dropped at wait {waits}"
            );
        }
    });
}

/// A transaction takes its time, another takes a later one and commits, a process polls, and only then does the first
/// one commit.
#[test]
fn a_change_with_an_earlier_time_that_commits_later_is_not_missed() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let early = new_key("early");
        let record = store.insert(&early).await.unwrap();
        let (_, mut cursor) = poll(&store, ChangeCursor::now()).await;

        let mut writer = database.connection().await;
        let mut transaction = writer.begin().await.unwrap();
        let statement =
            "UPDATE encx.data_keys SET revision = 2, changed_at = clock_timestamp() WHERE id = $1";
        sqlx::query(statement)
            .bind(Uuid::from(record.id))
            .execute(&mut *transaction)
            .await
            .unwrap();
        let later = store.insert(&new_key("later")).await.unwrap();
        let (seen, next) = poll(&store, cursor).await;
        assert!(seen.iter().any(|change| change.id == later.id));
        assert!(
            !seen
                .iter()
                .any(|change| change.id == record.id && change.revision.get() == 2)
        );
        cursor = next;
        transaction.commit().await.unwrap();
        let (seen, _) = poll(&store, cursor).await;
        assert!(
            seen.iter()
                .any(|change| change.id == record.id && change.revision.get() == 2),
            "the change that committed late is listed: {seen:?}"
        );
        // The cursor leaves room for every other write that may be in progress.
        let CursorPosition::At { at, .. } = cursor.position() else {
            panic!("{cursor:?}");
        };
        assert!(at.as_micros() + 14_000_000 < later.changed_at.as_micros());
    });
}

#[test]
fn every_write_leaves_a_row_in_the_audit_log() {
    on_a_database(|database| async move {
        let pool = sqlx::PgPool::connect_with(database.options().application_name("billing"))
            .await
            .unwrap();
        let store = PostgresKeyStore::from_pool(pool);
        store.migrate().await.unwrap();
        let new = new_key("t").because("a new tenant");
        let first = store.insert(&new).await.unwrap();
        let mut next = new_key("t")
            .with_version(first.version.next().unwrap())
            .with_state(KeyState::PreActive);
        next.id = encx::keys::DataKeyId::generate(1_767_225_600_000, Some(first.id)).unwrap();
        let second = store.insert(&next).await.unwrap();
        let change = StateChange::new(&second, KeyState::Active).because("planned rotation");
        let second = store.apply(&change).await.unwrap();
        let rewrap = WrapChange::new(&second, second.wraps.clone()).because("to another KEK");
        store.replace_wraps(&[rewrap]).await.unwrap();
        // A refused change leaves nothing.
        store.apply(&change).await.unwrap_err();

        // As listed by the store.
        let listed = store.audit_page(&AuditQuery::new(10)).await.unwrap().entries;
        assert_eq!(listed.len(), 5);
        let user: String = sqlx::query_scalar("SELECT session_user::text")
            .fetch_one(&mut database.connection().await)
            .await
            .unwrap();
        for entry in listed {
            assert_eq!(entry.application.as_deref(), Some("billing"));
            assert_eq!(entry.db_user.as_ref(), Some(&user));
        }

        let rows = sqlx::query(
            "SELECT key_id, scope, what, from_state, to_state, reason, db_user = current_user AS own, application,
                    at = (SELECT changed_at FROM encx.data_keys k WHERE k.id = key_id) AS newest
             FROM encx.audit_log ORDER BY seq",
        )
        .fetch_all(&mut database.connection().await)
        .await
        .unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                assert!(row.get::<bool, _>("own"));
                assert_eq!(row.get::<&str, _>("application"), "billing");
                assert_eq!(row.get::<&[u8], _>("scope"), new.scope.as_bytes());
                (
                    row.get::<Uuid, _>("key_id"),
                    row.get::<&str, _>("what"),
                    row.get::<Option<&str>, _>("from_state"),
                    row.get::<&str, _>("to_state"),
                    row.get::<Option<&str>, _>("reason"),
                    row.get::<bool, _>("newest"),
                )
            })
            .collect();
        let (one, two) = (Uuid::from(first.id), Uuid::from(second.id));
        assert_eq!(
            found,
            [
                (one, "added", None, "active", Some("a new tenant"), false),
                (two, "added", None, "pre-active", None, false),
                (
                    one,
                    "state",
                    Some("active"),
                    "deactivated",
                    Some("planned rotation"),
                    true
                ),
                (
                    two,
                    "state",
                    Some("pre-active"),
                    "active",
                    Some("planned rotation"),
                    false
                ),
                (
                    two,
                    "wraps",
                    Some("active"),
                    "active",
                    Some("to another KEK"),
                    true
                ),
            ]
        );
    });
}

#[test]
fn rows_that_encx_did_not_write_are_errors() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        let mut connection = database.connection().await;
        // The schema rejects what it can.
        run(
            &mut connection,
            "ALTER TABLE encx.wrapped_keys DROP CONSTRAINT wrapped_keys_key_id_fkey",
        )
        .await;
        for refused in [
            "UPDATE encx.data_keys SET id = '11111111-1111-4111-8111-111111111111'",
            "UPDATE encx.data_keys SET id = '11111111-1111-7111-7111-111111111111'",
            "UPDATE encx.data_keys SET id = '11111111-1111-7111-c111-111111111111'",
        ] {
            let error = connection.execute(refused).await.unwrap_err();
            let constraint = error.as_database_error().and_then(|error| error.constraint());
            assert_eq!(constraint, Some("data_keys_id_check"), "{refused}");
        }
        run(
            &mut connection,
            "ALTER TABLE encx.wrapped_keys ADD CONSTRAINT wrapped_keys_key_id_fkey
             FOREIGN KEY (key_id) REFERENCES encx.data_keys (id)",
        )
        .await;
        for refused in [
            "UPDATE encx.data_keys SET scope = ''",
            "UPDATE encx.data_keys SET state = 'Active'",
            "UPDATE encx.data_keys SET suspended_from = 'active'",
            "UPDATE encx.data_keys SET context = '[]'",
            "UPDATE encx.data_keys SET usage = 0",
            "UPDATE encx.data_keys SET version = 0",
            "UPDATE encx.data_keys SET key_check = ''",
            "UPDATE encx.data_keys SET activated_at = NULL",
            "UPDATE encx.wrapped_keys SET ciphertext = ''",
            "UPDATE encx.wrapped_keys SET kek = ''",
            "DELETE FROM encx.data_keys",
        ] {
            let result = connection.execute(refused).await;
            assert!(result.is_err(), "{refused}");
        }
        // Readers detect the rest, and changes by an attacker who can also change the schema.
        run(
            &mut connection,
            "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_state_check",
        )
        .await;
        run(
            &mut connection,
            "ALTER TABLE encx.data_keys ALTER key_check DROP NOT NULL",
        )
        .await;
        for (edit, undo) in [
            ("context = '{\"a\": 1}'", "context = '{\"tenantId\": \"t\"}'"),
            ("usage = 77", "usage = 1"),
            ("state = 'unheard-of'", "state = 'active'"),
            ("key_check = NULL", "key_check = decode(repeat('07', 32), 'hex')"),
        ] {
            run(&mut connection, &format!("UPDATE encx.data_keys SET {edit}")).await;
            match store.load(&[record.scope]).await {
                Err(StoreError::Corrupt { what }) => {
                    assert!(what.contains(&record.id.to_string()), "{what}");
                }
                other => panic!("{edit} gave {other:?}"),
            }
            run(&mut connection, &format!("UPDATE encx.data_keys SET {undo}")).await;
        }
        assert_eq!(
            store.load(&[record.scope]).await.unwrap(),
            std::slice::from_ref(&record)
        );
        run(
            &mut connection,
            "ALTER TABLE encx.wrapped_keys DROP CONSTRAINT wrapped_keys_key_id_fkey",
        )
        .await;
        run(
            &mut connection,
            "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_id_check",
        )
        .await;
        run(
            &mut connection,
            "UPDATE encx.data_keys SET id = '11111111-1111-4111-8111-111111111111'",
        )
        .await;
        let error = store.load(&[record.scope]).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    });
}

#[test]
fn a_change_that_cannot_be_read_hides_no_other() {
    for edit in [
        "id = '11111111-1111-4111-8111-111111111111'",
        "id = 'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        "state = 'unheard-of'",
        "scope = ''",
        "revision = 0",
        "revision = NULL",
    ] {
        on_a_database(move |database| async move {
            let store = database.store().await;
            store.migrate().await.unwrap();
            let before = store.insert(&new_key("before")).await.unwrap();
            let edited = store.insert(&new_key("edited")).await.unwrap();
            let after = store.insert(&new_key("after")).await.unwrap();
            let mut connection = database.connection().await;
            for dropped in [
                "ALTER TABLE encx.wrapped_keys DROP CONSTRAINT wrapped_keys_key_id_fkey",
                "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_id_check",
                "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_state_check",
                "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_scope_check",
                "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_revision_check",
                "ALTER TABLE encx.data_keys ALTER revision DROP NOT NULL",
            ] {
                run(&mut connection, dropped).await;
            }
            // Long ago, so that the cursor passes them: it stays behind the last seconds.
            run(
                &mut connection,
                "UPDATE encx.data_keys SET changed_at = changed_at - interval '1 day'",
            )
            .await;
            sqlx::query(AssertSqlSafe(format!(
                "UPDATE encx.data_keys SET {edit} WHERE id = $1"
            )))
            .bind(Uuid::from(edited.id))
            .execute(&mut connection)
            .await
            .unwrap();
            let ids = |changes: &[encx::store::KeyChange]| {
                changes.iter().map(|change| change.id).collect::<Vec<_>>()
            };
            let (changes, next) = poll(&store, ChangeCursor::start()).await;
            assert_eq!(ids(&changes), [before.id, after.id], "{edit}");
            assert!(poll(&store, next).await.0.is_empty(), "{edit}");
            // Including when it is the last one.
            let last = "UPDATE encx.data_keys SET changed_at = changed_at + interval '1 hour'
                        WHERE id NOT IN ($1, $2)";
            sqlx::query(last)
                .bind(Uuid::from(before.id))
                .bind(Uuid::from(after.id))
                .execute(&mut connection)
                .await
                .unwrap();
            let (changes, next) = poll(&store, ChangeCursor::start()).await;
            assert_eq!(ids(&changes), [before.id, after.id], "{edit}");
            let CursorPosition::At { at, .. } = next.position() else {
                panic!("{next:?}");
            };
            let passed = edited.changed_at.as_micros() - 23 * 3_600_000_000;
            assert!(at.as_micros() >= passed, "{edit}: {next:?}");
            let later = store.insert(&new_key("later")).await.unwrap();
            let (changes, _) = poll(&store, next).await;
            assert_eq!(ids(&changes), [later.id], "{edit}");
            // A reader of the row itself gets the error.
            let all = store.page(&encx::store::KeyQuery::new(10)).await;
            assert!(matches!(all, Err(StoreError::Corrupt { .. })), "{edit}: {all:?}");
        });
    }
}

/// A time that no clock wrote moves no cursor.
#[test]
fn a_row_from_the_future_hides_no_later_change() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let planted = store.insert(&new_key("planted")).await.unwrap();
        let mut connection = database.connection().await;
        for moment in ["now() + interval '1 year'", "'infinity'"] {
            let edit = format!("UPDATE encx.data_keys SET changed_at = {moment} WHERE id = $1");
            sqlx::query(AssertSqlSafe(edit))
                .bind(Uuid::from(planted.id))
                .execute(&mut connection)
                .await
                .unwrap();
            let (changes, seen) = poll(&store, ChangeCursor::start()).await;
            assert!(changes.iter().any(|change| change.id == planted.id));
            let (_, now) = poll(&store, ChangeCursor::now()).await;
            let later = store.insert(&new_key(moment)).await.unwrap();
            for cursor in [seen, now] {
                let (changes, _) = poll(&store, cursor).await;
                assert!(changes.iter().any(|change| change.id == later.id), "{moment}");
            }
        }
    });
}

/// A call that waits too long for a lock, or whose connection breaks, fails retryably.
#[test]
fn a_database_that_does_not_answer_is_unavailable() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        let mut holder = database.connection().await;
        let mut transaction = holder.begin().await.unwrap();
        run(&mut transaction, "SELECT FROM encx.data_keys FOR UPDATE").await;
        let change = StateChange::new(&record, KeyState::Suspended);
        let error = store.apply(&change).await.unwrap_err();
        assert!(error.is_retryable(), "a lock that is held: {error}");
        transaction.rollback().await.unwrap();
        store.apply(&change).await.unwrap();

        let mut killer = database.connection().await;
        run(
            &mut killer,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
        // Every connection of the pool is gone. sqlx finds out one by one, and the store reports an error or
        // reconnects.
        for _ in 0..8 {
            match store.load(&[record.scope]).await {
                Ok(records) => assert_eq!(records.len(), 1),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        assert_eq!(store.load(&[record.scope]).await.unwrap().len(), 1);
    });
    let nowhere = "postgres://unused@127.0.0.1:1/unused";
    let error = encx_testkit::block_on(PostgresKeyStore::connect(nowhere)).unwrap_err();
    assert!(error.is_retryable(), "nothing listens there: {error}");
}

#[test]
fn debugging_a_store_shows_no_password() {
    encx_testkit::block_on(async {
        let options = sqlx::postgres::PgConnectOptions::new().password("hunter2");
        let store = PostgresKeyStore::from_pool(sqlx::PgPool::connect_lazy_with(options));
        assert!(!format!("{store:?}").contains("hunter2"));
    });
}

type Customer = (Ciphertext, Option<Ciphertext>);

#[test]
fn a_ciphertext_is_a_column() {
    on_a_database(|database: Arc<Database>| async move {
        let mut connection = database.connection().await;
        run(
            &mut connection,
            "CREATE TABLE customers (id int PRIMARY KEY, ssn bytea NOT NULL, note bytea)",
        )
        .await;
        let (ssn, note) = (ciphertext(11), ciphertext(0));
        let insert = "INSERT INTO customers VALUES ($1, $2, $3)";
        for (id, note) in [(1, Some(note.clone())), (2, None)] {
            sqlx::query(insert)
                .bind(id)
                .bind(&ssn)
                .bind(note)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let customers: Vec<Customer> = sqlx::query_as("SELECT ssn, note FROM customers ORDER BY id")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(customers[0].0, ssn);
        assert_eq!(customers[0].1.as_ref(), Some(&note));
        assert_eq!(customers[1].1, None);
        let row = sqlx::query("SELECT ssn FROM customers WHERE ssn = $1 AND id = 2")
            .bind(ssn.clone())
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.try_get::<Ciphertext, _>("ssn").unwrap(), ssn);
        run(&mut connection, "UPDATE customers SET ssn = substr(ssn, 1, 20)").await;
        let cut: Result<Customer, _> = sqlx::query_as("SELECT ssn, note FROM customers LIMIT 1")
            .fetch_one(&mut connection)
            .await;
        assert!(
            matches!(cut, Err(sqlx::Error::ColumnDecode { .. })),
            "a cut ciphertext is an error, not a panic"
        );
    });
}

/// PostgreSQL casts bytes to text without an error when they are assigned to a column. Reading reports what is wrong
/// and what to do, and nothing is lost.
#[test]
fn a_ciphertext_in_a_column_of_text_is_refused_when_it_is_read() {
    on_a_database(|database: Arc<Database>| async move {
        let mut connection = database.connection().await;
        run(&mut connection, "CREATE TABLE customers (ssn text)").await;
        let sealed = ciphertext(11);
        let one = sqlx::query("INSERT INTO customers VALUES ($1)").bind(&sealed);
        one.execute(&mut connection).await.unwrap();
        let many = sqlx::query("INSERT INTO customers SELECT * FROM unnest($1)").bind(vec![sealed.clone()]);
        many.execute(&mut connection).await.unwrap();

        let read = "SELECT ssn FROM customers";
        let refused = sqlx::query_scalar::<_, Ciphertext>(read).fetch_all(&mut connection);
        let refused = refused.await.unwrap_err().to_string();
        for part in ["the column's type is text", "make it `bytea`", "TYPE bytea USING"] {
            assert!(refused.contains(part), "{refused}");
        }
        // The advice of the error.
        let change = "ALTER TABLE customers ALTER COLUMN ssn TYPE bytea USING ssn::bytea";
        run(&mut connection, change).await;
        // The other connection has a plan for the column's old type.
        let mut connection = database.connection().await;
        let read = sqlx::query_scalar::<_, Ciphertext>(read).fetch_all(&mut connection);
        assert_eq!(read.await.unwrap(), [sealed.clone(), sealed]);
    });
}
