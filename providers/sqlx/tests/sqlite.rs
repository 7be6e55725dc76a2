//! The conformance suite of key stores on SQLite, and tests specific to that store.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;
#[path = "sqlite/connecting.rs"]
mod connecting;

use common::sqlite::{File, on_a_file};
use common::tables::{Tables, script, tables_tests};
use common::{ciphertext, new_key, poll};
use encx::Ciphertext;
use encx::keys::KeyState;
use encx::store::{
    AuditLog, AuditQuery, ChangeCursor, CursorPosition, KeyQuery, KeyStore, StateChange, StoreError,
    WrapChange,
};
use encx_sqlx::SqliteKeyStore;
use encx_testkit::block_on;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Executor, Row};

mod file {
    encx_testkit::store_conformance!(super::common::sqlite::File);
}

mod in_memory {
    encx_testkit::store_conformance!(super::common::sqlite::InMemory);
}

async fn run(connection: &mut SqliteConnection, statement: &str) {
    connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await
        .unwrap();
}

async fn count(connection: &mut SqliteConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

tables_tests!(on_a_file, File);

#[test]
fn pools_of_one_connection_migrate_at_once() {
    for older in 0..File::MIGRATIONS.len() {
        for journal in [SqliteJournalMode::Delete, SqliteJournalMode::Wal] {
            block_on(async {
                let file = File::new();
                run(&mut file.connection().await, &script::<File>(older)).await;
                let options = SqliteConnectOptions::new().filename(file.path());
                let mut tasks = tokio::task::JoinSet::new();
                let start = std::sync::Arc::new(tokio::sync::Barrier::new(8));
                for _ in 0..8 {
                    let pool = SqlitePoolOptions::new().max_connections(1);
                    let pool = pool.connect_with(options.clone().journal_mode(journal));
                    let store = SqliteKeyStore::from_pool(pool.await.unwrap());
                    let start = start.clone();
                    tasks.spawn(async move {
                        start.wait().await;
                        store.migrate().await
                    });
                }
                for result in tasks.join_all().await {
                    result.unwrap();
                }
                let versions = "SELECT count(*) FROM encx_migrations";
                assert_eq!(count(&mut file.connection().await, versions).await, 6);
            });
        }
    }
}

/// Names the file that a process of this test migrates.
const FILE_TO_MIGRATE: &str = "ENCX_TEST_FILE_TO_MIGRATE";

/// The test's program runs itself: its child processes get a file's name in their environment.
#[test]
fn processes_migrate_one_file_at_once() {
    if let Ok(path) = std::env::var(FILE_TO_MIGRATE) {
        block_on(async {
            let store = SqliteKeyStore::connect(&path).await.unwrap();
            store.migrate().await.unwrap();
        });
        return;
    }
    for older in 0..File::MIGRATIONS.len() {
        let file = File::new();
        block_on(async {
            run(&mut file.connection().await, &script::<File>(older)).await;
        });
        let start = || {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes_migrate_one_file_at_once"])
                .env(FILE_TO_MIGRATE, file.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let processes: Vec<_> = (0..6).map(|_| start()).collect();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
        }
        block_on(async {
            let versions = "SELECT count(*) FROM encx_migrations";
            assert_eq!(count(&mut file.connection().await, versions).await, 6);
        });
    }
}

#[test]
fn a_store_is_opened_by_path_by_url_and_from_a_pool() {
    block_on(async {
        let file = File::new();
        let by_path = file.store().await;
        by_path.migrate().await.unwrap();
        let new = new_key("t");
        let record = by_path.insert(&new).await.unwrap();
        let url = format!("sqlite:{}", file.path());
        let by_url = SqliteKeyStore::connect(&url).await.unwrap();
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        for store in [by_url, SqliteKeyStore::from_pool(pool)] {
            assert_eq!(
                store.load(&[new.scope]).await.unwrap(),
                std::slice::from_ref(&record)
            );
        }
        for memory in [":memory:", "sqlite::memory:"] {
            let store = SqliteKeyStore::connect(memory).await.unwrap();
            store.migrate().await.unwrap();
            store.clone().insert(&new).await.unwrap();
            assert_eq!(store.load(&[new.scope]).await.unwrap().len(), 1);
        }
    });
}

#[test]
fn every_write_leaves_a_row_in_the_audit_log() {
    block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t").because("a new tenant")).await.unwrap();
        let change = StateChange::new(&record, KeyState::Suspended).because("a leak is looked into");
        let record = store.apply(&change).await.unwrap();
        let store = store.application_name("billing");
        let rewrap = WrapChange::new(&record, record.wraps.clone()).because("to another KEK");
        store.replace_wraps(&[rewrap]).await.unwrap();
        store.apply(&change).await.unwrap_err();
        let statement = "SELECT what, from_state, to_state, reason, application FROM encx_audit_log
                         WHERE key_id = ?1 AND scope = ?2 ORDER BY seq";
        let rows = sqlx::query(statement)
            .bind(record.id.to_bytes().to_vec())
            .bind(record.scope.as_bytes().to_vec())
            .fetch_all(&mut file.connection().await)
            .await
            .unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                let text = |name: &str| row.get::<Option<String>, _>(name).unwrap_or_default();
                ["what", "from_state", "to_state", "reason", "application"].map(text)
            })
            .collect();
        let executable = std::env::current_exe().unwrap();
        let executable = executable.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            found,
            [
                ["added", "", "active", "a new tenant", executable],
                [
                    "state",
                    "active",
                    "suspended",
                    "a leak is looked into",
                    executable
                ],
                ["wraps", "suspended", "suspended", "to another KEK", "billing"],
            ]
        );
        // As listed by the store. An older library did not record the application.
        let forget = "UPDATE encx_audit_log SET application = '' WHERE seq = 1";
        run(&mut file.connection().await, forget).await;
        let listed = store.audit_page(&AuditQuery::new(10)).await.unwrap().entries;
        let applications: Vec<_> = listed.iter().map(|entry| entry.application.as_deref()).collect();
        assert_eq!(applications, [None, Some(executable), Some("billing")]);
        assert!(listed.iter().all(|entry| entry.db_user.is_none()));
    });
}

#[test]
fn rows_that_encx_did_not_write_are_errors() {
    block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        let mut connection = file.connection().await;
        for refused in [
            "UPDATE encx_data_keys SET id = x'11111111111141118111111111111111'",
            "UPDATE encx_data_keys SET id = x'11111111111171117111111111111111'",
            "UPDATE encx_data_keys SET id = x'1111111111117111c111111111111111'",
            "UPDATE encx_data_keys SET id = x'11111111111171118111'",
            "UPDATE encx_data_keys SET scope = x'00'",
            "UPDATE encx_data_keys SET state = 'Active'",
            "UPDATE encx_data_keys SET suspended_from = 'active'",
            "UPDATE encx_data_keys SET context = '[]'",
            "UPDATE encx_data_keys SET context = 'no json'",
            "UPDATE encx_data_keys SET usage = 'data'",
            "UPDATE encx_data_keys SET version = 0",
            "UPDATE encx_data_keys SET activated_at = NULL",
            "UPDATE encx_wrapped_keys SET ciphertext = x''",
            "DELETE FROM encx_data_keys",
        ] {
            assert!(connection.execute(refused).await.is_err(), "{refused}");
        }
        run(&mut connection, "PRAGMA ignore_check_constraints = ON").await;
        for edit in [
            "context = '{\"a\": 1}'",
            "context = 'no json'",
            "usage = 77",
            "version = 0",
            "state = 'unheard-of'",
            "key_check = x'00'",
            "revision = -1",
            "scope = x'00'",
        ] {
            run(&mut connection, "SAVEPOINT edit").await;
            run(&mut connection, &format!("UPDATE encx_data_keys SET {edit}")).await;
            run(&mut connection, "RELEASE edit").await;
            match store.get(&[record.id]).await {
                Err(StoreError::Corrupt { what }) => {
                    assert!(what.contains(&record.id.to_string()), "{what}");
                }
                other => panic!("{edit} gave {other:?}"),
            }
            let undo = "UPDATE encx_data_keys SET context = '{\"tenantId\": \"t\"}', usage = 1, version = 1,
                        state = 'active', key_check = ?1, revision = 1, scope = ?2";
            sqlx::query(undo)
                .bind(record.key_check.to_bytes().to_vec())
                .bind(record.scope.as_bytes().to_vec())
                .execute(&mut connection)
                .await
                .unwrap();
            assert_eq!(
                store.get(&[record.id]).await.unwrap(),
                std::slice::from_ref(&record)
            );
        }
    });
}

#[test]
fn a_ciphertext_is_a_column() {
    block_on(async {
        let file = File::new();
        let mut connection = file.connection().await;
        run(
            &mut connection,
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, ssn BLOB NOT NULL, note BLOB)",
        )
        .await;
        let (ssn, note) = (ciphertext(11), ciphertext(0));
        for (id, note) in [(1, Some(note.clone())), (2, None)] {
            sqlx::query("INSERT INTO customers VALUES (?1, ?2, ?3)")
                .bind(id)
                .bind(&ssn)
                .bind(note)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let customers: Vec<(Ciphertext, Option<Ciphertext>)> =
            sqlx::query_as("SELECT ssn, note FROM customers ORDER BY id")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        assert_eq!(customers, [(ssn.clone(), Some(note)), (ssn.clone(), None)]);
        let row = sqlx::query("SELECT ssn FROM customers WHERE ssn = ?1 AND id = 2")
            .bind(ssn.clone())
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.try_get::<Ciphertext, _>("ssn").unwrap(), ssn);
        run(&mut connection, "UPDATE customers SET ssn = substr(ssn, 1, 20)").await;
        let row = sqlx::query("SELECT ssn FROM customers")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(
            row.try_get::<Ciphertext, _>("ssn").is_err(),
            "a cut ciphertext is an error, not a panic"
        );
    });
}

/// Copies a row `?1` times, with times in the future, as an attacker with write access to the file could.
const PLANT: &str = "
    INSERT INTO encx_data_keys (id, scope, usage, version, state, context, key_check, revision, created_at,
        activated_at, changed_at)
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
    SELECT unhex(format('0000000000007000800000000000%04x', n)), randomblob(32), usage, 1, 'active', context,
        key_check, 1, created_at, activated_at, ?2 + n
    FROM encx_data_keys, n WHERE id = ?3";

/// A time that no clock wrote moves no cursor, whether in one row or in more than a page of rows.
#[test]
fn a_row_from_the_future_hides_no_later_change() {
    for (rows, at) in [
        (1, 9_000_000_000_000_000_000_i64),
        (2500, i64::MAX / 2),
        (1, 1 << 52),
    ] {
        block_on(async {
            let file = File::new();
            let store = file.store().await;
            store.migrate().await.unwrap();
            let first = store.insert(&new_key("t")).await.unwrap();
            sqlx::query(PLANT)
                .bind(rows)
                .bind(at)
                .bind(first.id.to_bytes().to_vec())
                .execute(&mut file.connection().await)
                .await
                .unwrap();
            let (all, seen) = poll(&store, ChangeCursor::start()).await;
            assert_eq!(i64::try_from(all.len()).unwrap(), rows + 1);
            let (_, now) = poll(&store, ChangeCursor::now()).await;
            // A second poll, from where the planted rows could have moved the cursor.
            let (_, again) = poll(&store, seen).await;
            let later = store.insert(&new_key("later")).await.unwrap();
            assert!(
                later.changed_at.as_micros() < first.changed_at.as_micros() + 600_000_000,
                "the clock does not move either: {later:?}"
            );
            for cursor in [seen, now, again] {
                let CursorPosition::At { at, back_to, .. } = cursor.position() else {
                    panic!("{cursor:?}");
                };
                assert!(at <= later.changed_at && back_to.is_none(), "{cursor:?}");
                let (changes, _) = poll(&store, cursor).await;
                assert!(changes.iter().any(|change| change.id == later.id), "{cursor:?}");
            }
        });
    }
}

/// The clock was set back: changes since then are listed, although the cursor is ahead of them.
#[test]
fn a_cursor_from_the_future_begins_again() {
    block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        let ahead = encx::store::Timestamp::from_micros(record.changed_at.as_micros() + 10_000_000_000);
        let (changes, next) = poll(&store, ChangeCursor::at(ahead, Some(record.id))).await;
        assert_eq!(changes.len(), 1);
        let CursorPosition::At { at, .. } = next.position() else {
            panic!("{next:?}");
        };
        assert!(at < ahead);
    });
}

#[test]
fn a_change_that_cannot_be_read_hides_no_other() {
    for edit in [
        "id = x'11111111111141118111111111111111'",
        "id = x'ffffffffffffffffffffffffffffffff'",
        "id = x'1111'",
        "id = x'111111111111711181111111111111110000'",
        "state = 'unheard-of'",
        "scope = x'00'",
        "revision = 0",
    ] {
        block_on(async {
            let file = File::new();
            let store = file.store().await;
            store.migrate().await.unwrap();
            let before = store.insert(&new_key("before")).await.unwrap();
            let edited = store.insert(&new_key("edited")).await.unwrap();
            let after = store.insert(&new_key("after")).await.unwrap();
            let mut connection = file.connection().await;
            run(&mut connection, "PRAGMA ignore_check_constraints = ON").await;
            run(&mut connection, "PRAGMA foreign_keys = OFF").await;
            let statement = format!("UPDATE encx_data_keys SET {edit} WHERE id = ?1");
            sqlx::query(AssertSqlSafe(statement))
                .bind(edited.id.to_bytes().to_vec())
                .execute(&mut connection)
                .await
                .unwrap();
            let ids = |changes: &[encx::store::KeyChange]| {
                changes.iter().map(|change| change.id).collect::<Vec<_>>()
            };
            let (changes, _) = poll(&store, ChangeCursor::start()).await;
            assert_eq!(ids(&changes), [before.id, after.id], "{edit}");
            // Including when it is the last one.
            run(
                &mut connection,
                &format!(
                    "UPDATE encx_data_keys SET changed_at = {} WHERE changed_at = {}",
                    after.changed_at.as_micros() + 1,
                    edited.changed_at.as_micros()
                ),
            )
            .await;
            let (changes, next) = poll(&store, ChangeCursor::start()).await;
            assert_eq!(ids(&changes), [before.id, after.id], "{edit}");
            let later = store.insert(&new_key("later")).await.unwrap();
            let (changes, _) = poll(&store, next).await;
            assert!(ids(&changes).contains(&later.id), "{edit}");
            // A reader of the row itself gets the error.
            let all = store.page(&encx::store::KeyQuery::new(10)).await;
            assert!(matches!(all, Err(StoreError::Corrupt { .. })), "{edit}: {all:?}");
        });
    }
}

/// Other writers may put spaces between a context's pairs, and values that are not text.
#[test]
fn pairs_of_a_context_are_compared_as_json() {
    block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        let mut connection = file.connection().await;
        let (key, value) = record.context.iter().next().unwrap();
        let spaced = format!("UPDATE encx_data_keys SET context = '{{ \"{key}\" : \"{value}\" }}'");
        run(&mut connection, &spaced).await;
        let query = KeyQuery::new(10).context_pair(key, value);
        assert_eq!(store.page(&query).await.unwrap().records.len(), 1);
        let number = format!("UPDATE encx_data_keys SET context = '{{\"{key}\":42}}'");
        run(&mut connection, &number).await;
        let query = KeyQuery::new(10).context_pair(key, "42");
        assert_eq!(store.page(&query).await.unwrap().records, []);
    });
}

#[test]
fn a_usage_that_is_unknown_hides_no_other_count() {
    block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        for tenant in ["a", "b", "c"] {
            store.insert(&new_key(tenant)).await.unwrap();
        }
        let counted = store.summary().await.unwrap();
        assert_eq!((counted.counts[0].versions, counted.unreadable), (3, 0));
        let unknown =
            "UPDATE encx_data_keys SET usage = 200 WHERE id IN (SELECT id FROM encx_data_keys LIMIT 2)";
        run(&mut file.connection().await, unknown).await;
        let counted = store.summary().await.unwrap();
        assert_eq!((counted.counts[0].versions, counted.unreadable), (1, 2));
    });
}

#[test]
fn a_forged_entry_of_the_audit_log_is_named_and_hides_no_other() {
    block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let forged = "INSERT INTO encx_audit_log (seq, at, key_id, scope, what, to_state)
                      VALUES (7, 1, zeroblob(16), zeroblob(32), 'added', 'active')";
        run(&mut file.connection().await, forged).await;
        store.insert(&new_key("t")).await.unwrap();
        let page = store.audit_page(&AuditQuery::new(1)).await.unwrap();
        assert_eq!(
            (page.entries.len(), page.unreadable, page.next),
            (0, vec![7], Some(7))
        );
        let page = store.audit_page(&AuditQuery::new(1).after(7)).await.unwrap();
        assert_eq!(
            (page.entries.len(), page.unreadable, page.next),
            (1, vec![], None)
        );
    });
}
