//! A PostgreSQL database full of keys.

#![allow(clippy::unwrap_used, reason = "a bench: a panic is a failed run")]
#![allow(dead_code, reason = "each bench uses its part")]

use std::str::FromStr;

use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

/// The server to measure. Its user may create databases.
const VARIABLE: &str = "ENCX_BENCH_POSTGRES_URL";

pub(crate) struct Server {
    server: PgConnectOptions,
    name: String,
}

impl Server {
    /// Creates a migrated database of that name, anew.
    pub(crate) async fn create(name: &str) -> Self {
        let Ok(url) = std::env::var(VARIABLE) else {
            panic!("{VARIABLE} is not set: run ./scripts/bench-store, which starts a server");
        };
        let server = Self {
            server: PgConnectOptions::from_str(&url).unwrap(),
            name: format!("encx_bench_{name}"),
        };
        server.remove().await;
        server.on_server("CREATE DATABASE").await;
        server.store().await.migrate().await.unwrap();
        server
    }

    pub(crate) async fn store(&self) -> PostgresKeyStore {
        let pool = PgPoolOptions::new().max_connections(8);
        let options = self.server.clone().database(&self.name);
        PostgresKeyStore::from_pool(pool.connect_with(options).await.unwrap())
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }

    /// Adds so many keys with a wrap each: four versions in each scope, of which the last is active, a minute apart.
    pub(crate) async fn fill(&self, keys: u32) {
        let fill = format!(
            "INSERT INTO encx.data_keys (id, scope, usage, version, state, context, key_check, revision,
                 created_at, activated_at, changed_at)
             SELECT (lpad(to_hex(1600000000000 + n), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
                    sha256(int4send(n / 4)), 1, 1 + n % 4,
                    CASE WHEN n % 4 = 3 THEN 'active' ELSE 'deactivated' END,
                    jsonb_build_object('tenantId', 'tenant-' || n / 4, 'purpose', 'pii'), sha256(int4send(n)), 1,
                    moment, moment, moment
             FROM generate_series(0, {keys} - 1) AS n,
                  LATERAL (SELECT timestamptz '2024-01-01 00:00:00Z' + n * interval '1 minute') AS m (moment);
             INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext)
             SELECT id, 'default', 'kek-0', decode(repeat('07', 121), 'hex') FROM encx.data_keys;"
        );
        let mut connection = self.connection().await;
        connection.execute(AssertSqlSafe(fill)).await.unwrap();
        // Which is what the server does by itself after a while.
        connection.execute("VACUUM ANALYZE").await.unwrap();
        connection.execute("CHECKPOINT").await.unwrap();
    }

    pub(crate) async fn remove(&self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let mut connection = self.server.connect().await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }

    async fn on_server(&self, what: &str) {
        let mut connection = self.server.connect().await.unwrap();
        let statement = format!("{what} {}", self.name);
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}
