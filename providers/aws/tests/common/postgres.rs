//! A PostgreSQL database per test.

use std::str::FromStr;

use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// Creates a database with the tables of encx.
    pub(crate) async fn create() -> Self {
        let url = std::env::var("ENCX_TEST_POSTGRES_URL").expect(
            "ENCX_TEST_POSTGRES_URL is not set: run the tests with ./scripts/test, which starts a server",
        );
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("encx_aws_test_{}", uuid::Uuid::new_v4().simple());
        let database = Self { server, name };
        database
            .on_server(format!("CREATE DATABASE {}", database.name))
            .await;
        database.store().await.migrate().await.unwrap();
        database
    }

    pub(crate) async fn pool(&self) -> PgPool {
        let options = self.server.clone().database(&self.name);
        PgPoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .unwrap()
    }

    pub(crate) async fn store(&self) -> PostgresKeyStore {
        PostgresKeyStore::from_pool(self.pool().await)
    }

    pub(crate) async fn remove(&self) {
        self.on_server(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))
            .await;
    }

    async fn on_server(&self, statement: String) {
        let mut connection = self.server.connect().await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}
