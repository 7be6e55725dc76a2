//! A PostgreSQL database full of keys.

#![allow(clippy::unwrap_used, reason = "a bench: a panic is a failed run")]
#![allow(dead_code, reason = "each bench uses its part")]

use std::str::FromStr;

use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

/// The server to measure. Its user may create databases.
const VARIABLE: &str = "ENCX_BENCH_POSTGRES_URL";

/// How many versions each scope has.
pub(crate) const VERSIONS: u32 = 4;

/// When the first key became active: 2024-01-01T00:00:00Z, in microseconds since 1970.
pub(crate) const FIRST_MOMENT: i64 = 1_704_067_200_000_000;

pub(crate) struct Server {
    server: PgConnectOptions,
    name: String,
}

impl Server {
    /// Drops and re-creates a migrated database of this name.
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
        PostgresKeyStore::from_pool(self.pool().await)
    }

    pub(crate) async fn pool(&self) -> PgPool {
        let pool = PgPoolOptions::new().max_connections(8);
        let options = self.server.clone().database(&self.name);
        pool.connect_with(options).await.unwrap()
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }

    /// Adds this many keys with a wrap each: four versions in each scope, the last one active, activated a minute
    /// apart. 500 of the others, or as many as there are, are suspended and wrapped under a separate KEK.
    pub(crate) async fn fill(&self, keys: u32) {
        let apart = (keys / 500).max(VERSIONS) / VERSIONS * VERSIONS;
        let fill = format!(
            "INSERT INTO encx.data_keys (id, scope, usage, version, state, suspended_from, context, key_check, revision,
                 created_at, activated_at, changed_at)
             SELECT (lpad(to_hex(1600000000000 + n), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
                    sha256(int4send(n / {VERSIONS})), 1, 1 + n % {VERSIONS},
                    CASE WHEN n % {VERSIONS} = 3 THEN 'active' WHEN rare THEN 'suspended' ELSE 'deactivated' END,
                    CASE WHEN rare THEN 'deactivated' END,
                    jsonb_build_object('tenantId', 'tenant-' || n / {VERSIONS}, 'purpose', 'pii'),
                    sha256(int4send(n)), 1, moment, moment, moment
             FROM generate_series(0, {keys} - 1) AS n,
                  LATERAL (SELECT to_timestamp({FIRST_MOMENT} / 1000000) + n * interval '1 minute') AS m (moment),
                  LATERAL (SELECT n % {apart} = 0 AND n / {apart} < 500) AS r (rare);
             INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext)
             SELECT id, 'default', CASE WHEN state = 'suspended' THEN 'kek-rare' ELSE 'kek-0' END,
                    decode(repeat('07', 121), 'hex')
             FROM encx.data_keys;"
        );
        let mut connection = self.connection().await;
        connection.execute(AssertSqlSafe(fill)).await.unwrap();
        // The server does this by itself after a while.
        connection.execute("VACUUM ANALYZE").await.unwrap();
        connection.execute("CHECKPOINT").await.unwrap();
    }

    pub(crate) async fn remove(&self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let mut connection = self.server.connect().await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }

    /// Counts the full scans of the key tables.
    pub(crate) async fn whole_tables_read(&self) -> i64 {
        let count = "SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables
            WHERE schemaname = 'encx' AND relname IN ('data_keys', 'wrapped_keys')";
        let mut connection = self.connection().await;
        sqlx::query_scalar(count)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    async fn on_server(&self, what: &str) {
        let mut connection = self.server.connect().await.unwrap();
        let statement = format!("{what} {}", self.name);
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}
