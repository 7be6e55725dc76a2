//! A PostgreSQL database for a single test.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::str::FromStr;
use std::sync::Arc;

use encx::keys::{DataKeyId, KeyState};
use encx::store::KeyStore;
use encx_sqlx::PostgresKeyStore;
use encx_testkit::{AuditedChange, StoreFixture};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use uuid::Uuid;

/// The server to test against. Its user may create databases.
const VARIABLE: &str = "ENCX_TEST_POSTGRES_URL";

pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// Creates an empty database.
    pub(crate) async fn empty() -> Self {
        let Ok(url) = std::env::var(VARIABLE) else {
            panic!("{VARIABLE} is not set: run ./scripts/test, which starts a server for the tests");
        };
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("encx_test_{}", uuid::Uuid::new_v4().simple());
        let database = Self { server, name };
        database
            .on_server(format!("CREATE DATABASE {}", database.name))
            .await;
        database
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Returns the server's host and port, and the user.
    pub(crate) fn address(&self) -> (String, u16, String) {
        let server = &self.server;
        (
            server.get_host().to_owned(),
            server.get_port(),
            server.get_username().to_owned(),
        )
    }

    pub(crate) fn url(&self) -> String {
        self.url_at(self.server.get_port())
    }

    /// Returns the database's URL at another port of this machine.
    pub(crate) fn url_at(&self, port: u16) -> String {
        let (host, _, user) = self.address();
        format!("postgres://{user}@{host}:{port}/{}", self.name)
    }

    /// Opens a pool of up to four connections.
    pub(crate) async fn pool(&self) -> PgPool {
        let pool = PgPoolOptions::new().max_connections(4);
        pool.connect_with(self.options()).await.unwrap()
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        self.options().connect().await.unwrap()
    }

    pub(crate) async fn store(&self) -> PostgresKeyStore {
        PostgresKeyStore::from_pool(self.pool().await)
    }

    /// Drops the database, and disconnects its clients.
    pub(crate) async fn drop_now(&self) {
        self.on_server(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))
            .await;
    }

    async fn on_server(&self, statement: String) {
        let mut connection = self.server.connect().await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
        connection.close().await.unwrap();
    }
}

#[async_trait::async_trait]
impl StoreFixture for Database {
    async fn create() -> Self {
        let database = Self::empty().await;
        database.store().await.migrate().await.unwrap();
        database
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store().await)
    }

    async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
        let statement = "SELECT key_id, from_state, to_state, reason FROM encx.audit_log ORDER BY seq";
        let mut connection = self.connection().await;
        let rows = sqlx::query(statement).fetch_all(&mut connection);
        let state = |name: &str| KeyState::from_name(name).unwrap();
        let audited = |row: &PgRow| {
            let key = DataKeyId::try_from(row.get::<Uuid, _>("key_id")).unwrap();
            let from = row.get::<Option<&str>, _>("from_state").map(state);
            AuditedChange::new(key, from, state(row.get("to_state")), row.get("reason"))
        };
        Some(rows.await.unwrap().iter().map(audited).collect())
    }

    async fn remove(&self) {
        self.drop_now().await;
    }
}

/// Runs a test on an empty database, and drops it even if the test fails.
pub(crate) fn on_a_database<F>(test: impl FnOnce(Arc<Database>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    encx_testkit::block_on(async {
        let database = Arc::new(Database::empty().await);
        let outcome = tokio::spawn(test(database.clone())).await;
        database.drop_now().await;
        if let Err(error) = outcome {
            std::panic::resume_unwind(error.into_panic());
        }
    });
}
