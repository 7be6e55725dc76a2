//! A SQLite file of a test's own.

use std::sync::Arc;

use encx::KeyStore;
use encx::testkit::StoreFixture;
use encx_sqlx::SqliteKeyStore;

pub(crate) struct File(tempfile::TempDir);

impl File {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The path of the file, which does not exist at first.
    pub(crate) fn path(&self) -> String {
        self.0.path().join("keys.db").to_str().unwrap().to_owned()
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

    // The folder goes with the fixture.
    async fn remove(&self) {}
}

/// A database in memory, which has one connection: its handles are clones.
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

    async fn remove(&self) {}
}
