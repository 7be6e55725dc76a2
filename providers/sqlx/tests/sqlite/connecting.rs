//! Connections: which ones the store uses, and its errors if there are none.

use std::time::Duration;

use encx::store::{KeyStore, StoreError};
use encx::{Crypto, EncryptionContext, Field};
use encx_sqlx::SqliteKeyStore;
use encx_testkit::{MemoryKms, block_on};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use tokio::time::{Instant, timeout};

use crate::common::new_key;
use crate::common::sqlite::File;
use crate::{count, run};

const NAME: Field = Field::new("users", "name");

fn tenant(number: usize) -> EncryptionContext {
    let context = EncryptionContext::builder().pair("tenantId", number);
    context.build().unwrap()
}

async fn pool(file: &File, connections: u32, busy: Duration) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(file.path())
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(busy);
    let pool = SqlitePoolOptions::new().max_connections(connections);
    pool.connect_with(options).await.unwrap()
}

#[test]
fn ten_transactions_on_all_connections_each_encrypt_for_a_new_tenant() {
    block_on(async {
        let file = File::new();
        let pool = pool(&file, 10, Duration::from_secs(60)).await;
        let store = SqliteKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        let mut watcher = file.connection().await;
        run(&mut watcher, "CREATE TABLE users (name BLOB)").await;
        let crypto = Crypto::builder(MemoryKms::new(), store).build().await.unwrap();
        let mut transactions = Vec::new();
        for _ in 0..10 {
            transactions.push(pool.begin().await.unwrap());
        }
        // Each encrypts before the first one writes: SQLite has one writer.
        let encrypted = std::sync::Arc::new(tokio::sync::Barrier::new(10));
        let mut tasks = tokio::task::JoinSet::new();
        for (number, mut transaction) in transactions.into_iter().enumerate() {
            let (crypto, encrypted) = (crypto.clone(), encrypted.clone());
            tasks.spawn(async move {
                let sealed = crypto.encrypt(&tenant(number), "Ada", NAME.row(7)).await;
                encrypted.wait().await;
                let insert = sqlx::query("INSERT INTO users VALUES (?1)").bind(sealed.unwrap());
                insert.execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            });
        }
        tasks.join_all().await;
        assert_eq!(count(&mut watcher, "SELECT count(*) FROM users").await, 10);
        let scopes = "SELECT count(DISTINCT scope) FROM encx_data_keys";
        assert_eq!(count(&mut watcher, scopes).await, 10);
    });
}

/// A transaction that has written keeps the store from writing, and the error says so.
#[test]
fn a_writer_that_waits_for_the_store_is_told_what_to_do() {
    block_on(async {
        let file = File::new();
        let pool = pool(&file, 2, Duration::from_millis(200)).await;
        let store = SqliteKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let error = store.insert(&new_key("t")).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains("once before it begins"), "{error}");
        // An existing key is read.
        sqlx::query("CREATE TABLE users (name BLOB)")
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert!(store.load(&[new_key("t").scope]).await.unwrap().is_empty());
        transaction.commit().await.unwrap();
        store.insert(&new_key("t")).await.unwrap();
    });
}

/// The store's connections to the file are closed with the caller's pool.
#[test]
fn the_connections_of_the_store_end_with_the_pool() {
    block_on(async {
        let file = File::new();
        let pool = pool(&file, 2, Duration::from_secs(5)).await;
        let store = SqliteKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        pool.close().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.load(&[]).await.is_ok() {
            assert!(Instant::now() < deadline, "they end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The file's write-ahead log is removed with its last connection.
        while std::fs::exists(format!("{}-wal", file.path())).unwrap() {
            assert!(Instant::now() < deadline, "they are closed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn several_connections_to_a_database_in_memory_are_refused() {
    block_on(async {
        let options: SqliteConnectOptions = "sqlite::memory:".parse().unwrap();
        let named: SqliteConnectOptions = "sqlite:file:named?mode=memory".parse().unwrap();
        let private = SqliteConnectOptions::new();
        for options in [options, named, private] {
            let pool = |connections| {
                let pool = SqlitePoolOptions::new().max_connections(connections);
                let pool = pool.idle_timeout(None).max_lifetime(None);
                pool.test_before_acquire(false).connect_lazy_with(options.clone())
            };
            let store = SqliteKeyStore::from_pool(pool(4));
            let refused = [
                store.migrate().await.unwrap_err(),
                store.load(&[]).await.unwrap_err(),
                store.insert(&new_key("t")).await.unwrap_err(),
            ];
            for error in refused {
                assert!(
                    matches!(&error, StoreError::Invalid { what } if what.contains("`max_connections(1)`")),
                    "{error}"
                );
            }
            let store = SqliteKeyStore::from_pool(pool(1));
            store.migrate().await.unwrap();
            let crypto = Crypto::builder(MemoryKms::new(), store).build().await.unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..20 {
                let crypto = crypto.clone();
                tasks.spawn(async move { crypto.encrypt(&tenant(number), "Ada", NAME.row(7)).await });
            }
            for outcome in tasks.join_all().await {
                outcome.unwrap();
            }
        }
    });
}

#[test]
fn the_only_connection_to_memory_in_use_is_told() {
    block_on(async {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_millis(200));
        let pool = pool.connect("sqlite::memory:").await.unwrap();
        let store = SqliteKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        let transaction = pool.begin().await.unwrap();
        let error = store.load(&[]).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains("before your transaction"), "{error}");
        drop(transaction);
        store.load(&[]).await.unwrap();
    });
}

/// A problem with a file is reported immediately, with the file's name.
#[test]
fn a_file_that_cannot_be_opened_is_named() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let text = "this is no database, but long enough to be one".repeat(99);
        std::fs::write(path("text"), text).unwrap();
        SqliteKeyStore::connect(&path("keys.db")).await.unwrap();
        let read_only = format!("sqlite:{}?mode=ro", path("keys.db"));
        for (url, passes, says) in [
            (path("no/such/folder/keys.db"), true, "no/such/folder/keys.db"),
            (path(""), true, "read and write both"),
            (format!("sqlite:{}?mode=ro", path("none.db")), true, "none.db"),
            (path("text"), false, "a file that does not exist yet"),
        ] {
            let began = Instant::now();
            let error = SqliteKeyStore::connect(&url).await.unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            assert_eq!(error.is_retryable(), passes, "{error}");
            assert!(error.to_string().contains(says), "{url}: {error}");
        }
        // The same beside a pool whose options may not create a file.
        let pool = SqlitePool::connect_lazy(&format!("sqlite:{}", path("absent.db"))).unwrap();
        let error = SqliteKeyStore::from_pool(pool).load(&[]).await.unwrap_err();
        assert!(error.to_string().contains("absent.db"), "{error}");
        // Writing reports that a file is read-only.
        let store = SqliteKeyStore::connect(&read_only).await.unwrap();
        let error = store.migrate().await.unwrap_err();
        assert!(matches!(error, StoreError::Database { .. }), "{error}");
    });
}

#[test]
fn urls_of_other_databases_are_refused_by_name_at_once() {
    block_on(async {
        for (url, says) in [
            ("postgres://app:hunter2@127.0.0.1/app", "`postgres://`"),
            ("mysql://app:hunter2@127.0.0.1/app", "`mysql://`"),
            ("foo://app:hunter2@127.0.0.1/app", "`foo://`"),
            ("sqlite:keys.db?mode=hot", "hot"),
        ] {
            let connected = timeout(Duration::from_secs(5), SqliteKeyStore::connect(url));
            let error = connected.await.expect("at once").unwrap_err();
            assert!(
                matches!(&error, StoreError::Invalid { what } if what.contains(says)),
                "{error}"
            );
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    });
}
