//! A SQLite file for a single test.

use std::sync::Arc;

use encx::keys::{DataKeyId, KeyState};
use encx::store::KeyStore;
use encx_sqlx::SqliteKeyStore;
use encx_testkit::{AuditedChange, StoreFixture};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row};

pub(crate) struct File(tempfile::TempDir);

impl File {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The path of the file, which does not exist at first.
    pub(crate) fn path(&self) -> String {
        self.0.path().join("keys.db").to_str().unwrap().to_owned()
    }

    pub(crate) async fn connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path());
        options.create_if_missing(true).connect().await.unwrap()
    }

    pub(crate) async fn store(&self) -> SqliteKeyStore {
        SqliteKeyStore::connect(&self.path()).await.unwrap()
    }
}

#[async_trait::async_trait]
impl StoreFixture for File {
    async fn create() -> Self {
        let file = Self::new();
        file.store().await.migrate().await.unwrap();
        file
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store().await)
    }

    async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
        let mut connection = SqliteConnection::connect(&self.path()).await.unwrap();
        let statement = "SELECT key_id, from_state, to_state, reason FROM encx_audit_log ORDER BY seq";
        let rows = sqlx::query(statement).fetch_all(&mut connection);
        let state = |name: &str| KeyState::from_name(name).unwrap();
        let audited = |row: &SqliteRow| {
            let key: Vec<u8> = row.get("key_id");
            let key = DataKeyId::from_bytes(key.try_into().unwrap()).unwrap();
            let from = row.get::<Option<&str>, _>("from_state").map(state);
            AuditedChange::new(key, from, state(row.get("to_state")), row.get("reason"))
        };
        Some(rows.await.unwrap().iter().map(audited).collect())
    }

    // The folder is removed with the fixture.
    async fn remove(&self) {}
}

/// Runs a test on a file that does not exist yet.
pub(crate) fn on_a_file<F: Future<Output = ()>>(test: impl FnOnce(Arc<File>) -> F) {
    encx_testkit::block_on(test(Arc::new(File::new())));
}

/// An in-memory database, which has one connection: its handles are clones.
pub(crate) struct InMemory(SqliteKeyStore);

#[async_trait::async_trait]
impl StoreFixture for InMemory {
    async fn create() -> Self {
        let store = SqliteKeyStore::connect("sqlite::memory:").await.unwrap();
        store.migrate().await.unwrap();
        Self(store)
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.0.clone())
    }

    // Only the store's own connection sees the database.
    async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
        None
    }

    async fn remove(&self) {}
}
