//! A database with a service's tables, and processes that use it.

use std::sync::Arc;
use std::time::Duration;

use encx::record::{EncryptedColumn, RowIdKind};
use encx::{Ciphertext, Crypto, EncryptionContext};
use encx_tables::{Adoption, Rows};
use encx_test_support::{SSN, context};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};
use sqlx::AssertSqlSafe;

/// An adoption that outlasts the tests' clock, which starts in 2026.
pub(crate) const UNTIL: Adoption = Adoption::until("2029-12-31");

/// A table whose rows belong to tenants.
pub(crate) const USERS: &str =
    "CREATE TABLE users (id {int} PRIMARY KEY, tenant_id {text}, ssn {bytes}, plain {text})";

/// Describes the column `ssn` of `users`.
pub(crate) fn ssn() -> EncryptedColumn {
    EncryptedColumn::of(&SSN)
        .row_id("id", RowIdKind::Integer)
        .context_column("tenantId", "tenant_id")
        .context_value("purpose", "pii")
}

pub(crate) fn tenant(id: i64) -> EncryptionContext {
    context(format!("t-{}", id % 3))
}

#[derive(Clone)]
pub(crate) enum Pool {
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
}

/// Runs the same code on either pool.
macro_rules! with_pool {
    ($pool:expr, $name:ident => $do:expr) => {
        match $pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres($name) => $do,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite($name) => $do,
        }
    };
}

/// A service's own tables, in PostgreSQL or SQLite, and the state its processes share.
///
/// Not a `Harness`: jobs over real databases need a multi-threaded runtime, and time that passes while they
/// wait.
#[derive(Clone)]
pub(crate) struct TestDatabase {
    pub(crate) pool: Pool,
    pub(crate) clock: ManualClock,
    pub(crate) kms: MemoryKms,
    pub(crate) keys: MemoryKeyStore,
}

impl TestDatabase {
    fn new(pool: Pool) -> Self {
        let clock = ManualClock::new();
        let keys = MemoryKeyStore::with_clock(clock.clone());
        let kms = MemoryKms::new();
        Self {
            pool,
            clock,
            kms,
            keys,
        }
    }

    pub(crate) fn rows(&self) -> Rows {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => Rows::postgres(pool.clone()),
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => Rows::sqlite(pool.clone()),
        }
    }

    /// Rows whose statements wait only briefly for SQLite's single write lock.
    pub(crate) async fn impatient_rows(&self) -> Rows {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => Rows::postgres(pool.clone()),
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => {
                let options = sqlx::sqlite::SqliteConnectOptions::clone(&pool.connect_options());
                let options = options.busy_timeout(Duration::from_millis(50));
                Rows::sqlite(sqlx::SqlitePool::connect_with(options).await.unwrap())
            }
        }
    }

    /// Runs a statement in a transaction that stays open.
    pub(crate) async fn transaction(&self, statement: &str) -> Transaction {
        let statement = AssertSqlSafe(statement.to_owned());
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::query(statement).execute(&mut *transaction).await.unwrap();
                Transaction::Postgres(transaction)
            }
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::query(statement).execute(&mut *transaction).await.unwrap();
                Transaction::Sqlite(transaction)
            }
        }
    }

    /// Starts a process of the service.
    pub(crate) async fn process(&self) -> Crypto {
        let builder = Crypto::builder(self.kms.clone(), self.keys.clone());
        builder.clock(self.clock.clone()).build().await.unwrap()
    }

    pub(crate) fn is_postgres(&self) -> bool {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(_) => true,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(_) => false,
        }
    }

    /// Runs a statement and returns how many rows it changed. `{int}`, `{text}`, `{bytes}` and `{uuid}` stand
    /// for the database's types.
    pub(crate) async fn run(&self, statement: &str) -> u64 {
        let [int, text, bytes, uuid] = if self.is_postgres() {
            ["bigint", "text", "bytea", "uuid"]
        } else {
            ["integer", "text", "blob", "blob"]
        };
        let statement = statement.replace("{int}", int).replace("{text}", text);
        let statement = AssertSqlSafe(statement.replace("{bytes}", bytes).replace("{uuid}", uuid));
        with_pool!(&self.pool, pool => sqlx::query(statement).execute(pool).await.unwrap().rows_affected())
    }

    /// Queries one number.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        let query = AssertSqlSafe(query.to_owned());
        with_pool!(&self.pool, pool => sqlx::query_scalar(query).fetch_one(pool).await.unwrap())
    }

    /// Queries a column of bytes.
    pub(crate) async fn bytes(&self, query: &str) -> Vec<Option<Vec<u8>>> {
        let query = AssertSqlSafe(query.to_owned());
        with_pool!(&self.pool, pool => sqlx::query_scalar(query).fetch_all(pool).await.unwrap())
    }

    /// Queries a column of text.
    pub(crate) async fn texts(&self, query: &str) -> Vec<Option<String>> {
        let query = AssertSqlSafe(query.to_owned());
        with_pool!(&self.pool, pool => sqlx::query_scalar(query).fetch_all(pool).await.unwrap())
    }

    /// Returns the query plan, with sequential scans disabled in PostgreSQL.
    pub(crate) async fn plan(&self, explain: &str) -> String {
        use sqlx::Row;

        let query = AssertSqlSafe(explain.to_owned());
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::query("SET LOCAL enable_seqscan = off")
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                let rows = sqlx::query(query).fetch_all(&mut *transaction).await.unwrap();
                rows.iter().map(|row| row.get::<String, _>(0)).collect()
            }
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => {
                // EXPLAIN reads no table, so a pooled connection may not know tables created by others.
                let mut connection = pool.acquire().await.unwrap();
                let tables = "SELECT count(*) FROM sqlite_schema";
                sqlx::query(tables).fetch_one(&mut *connection).await.unwrap();
                let rows = sqlx::query(query).fetch_all(&mut *connection).await.unwrap();
                rows.iter().map(|row| row.get::<String, _>("detail")).collect()
            }
        }
    }

    /// Formats bytes as the database's literal.
    pub(crate) fn literal(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.is_postgres() {
            format!("'\\x{hex}'::bytea")
        } else {
            format!("x'{hex}'")
        }
    }

    /// Fills `users` with rows 1 to `count`, each a `value` encrypted under its tenant's context.
    pub(crate) async fn users(&self, crypto: &Crypto, count: i64) {
        self.run(USERS).await;
        let mut values = Vec::new();
        for id in 1..=count {
            let sealed = crypto
                .encrypt(&tenant(id), value(id, 0), SSN.row(id))
                .await
                .unwrap();
            values.push(format!(
                "({id}, 't-{}', {}, NULL)",
                id % 3,
                self.literal(sealed.as_bytes())
            ));
        }
        for some in values.chunks(500) {
            self.run(&format!("INSERT INTO users VALUES {}", some.join(", ")))
                .await;
        }
    }

    /// Opens every value of `users`; also returns how many are not under their tenant's active key.
    pub(crate) async fn read_users(&self, crypto: &Crypto) -> (Vec<Option<String>>, usize) {
        let sealed = self.bytes("SELECT ssn FROM users ORDER BY id").await;
        let (mut values, mut old) = (Vec::new(), 0);
        for (id, sealed) in (1..).zip(sealed) {
            let Some(sealed) = sealed else {
                values.push(None);
                continue;
            };
            let sealed = Ciphertext::parse(sealed).unwrap();
            let opened = crypto.decrypt(&tenant(id), &sealed, SSN.row(id)).await.unwrap();
            values.push(Some(opened.into_string().unwrap()));
            old += usize::from(crypto.needs_reencryption(&tenant(id), &sealed).await.unwrap());
        }
        (values, old)
    }

    /// Rotates the keys of all tenants.
    pub(crate) async fn rotate(&self, crypto: &Crypto) {
        for id in 0..3 {
            crypto.key_manager().rotate(&tenant(id)).await.unwrap();
        }
    }

    /// Advances the clock faster than real time while a future runs.
    pub(crate) async fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return done,
                () = tokio::time::sleep(Duration::from_millis(5)) => self.clock.advance(Duration::from_millis(50)),
            }
        }
    }
}

/// An open transaction.
pub(crate) enum Transaction {
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
}

impl Transaction {
    pub(crate) async fn commit(self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(transaction) => transaction.commit().await.unwrap(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(transaction) => transaction.commit().await.unwrap(),
        }
    }
}

/// The value of a user after `times` writes.
pub(crate) fn value(id: i64, times: u32) -> String {
    format!("user {id}, value {times}")
}

#[cfg(feature = "postgres")]
pub(crate) fn on_postgres<F>(test: impl FnOnce(TestDatabase) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    crate::common::postgres::on_a_database(|database: Arc<crate::common::postgres::Database>| async move {
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8);
        let pool = pool.connect_with(database.options()).await.unwrap();
        test(TestDatabase::new(Pool::Postgres(pool))).await;
    });
}

#[cfg(feature = "sqlite")]
pub(crate) fn on_sqlite<F>(test: impl FnOnce(TestDatabase) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("service.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(20));
    encx_testkit::block_on(async {
        let pool = SqlitePoolOptions::new()
            .max_connections(6)
            .connect_with(options)
            .await
            .unwrap();
        tokio::spawn(test(TestDatabase::new(Pool::Sqlite(pool))))
            .await
            .unwrap();
    });
}
