//! The key store in SQLite.

mod audit;
mod connections;
mod error;
mod row;
mod shared_work;
mod sql;
mod statement;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use encx_core::key::{DataKeyId, KeyState, KeyUsage, Scope};
use encx_core::store::{
    AuditLog, ChangeCursor, ChangePage, CursorPosition, JobStore, KekUse, KeyChanges, KeyPage, KeyQuery,
    KeyRecord, KeyStore, KeySummary, Leases, NewKey, ProcessRegistry, StateChange, StoreError, Timestamp,
    WrapChange, WrapOutcome,
};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, Sqlite};

use crate::application::name_of_executable;
use crate::changes::{ONE_MORE, greatest_id, page_of, raw_change};
use crate::error::check_scheme;
use crate::migrate::{Found, Migration, MigrationStep};
use crate::shared_work::{SharedWork, Tables as _};
use crate::summary::{kek_uses, key_summary};
use connections::{BUSY, Connections};
pub use error::is_passing;
use error::store_error;
pub use sql::BEGIN;
use statement::{execute, hex, json_list, last_change, list_of, now, records};

/// How many connections a store made from a URL keeps: one writes while the others read.
const CONNECTIONS: u32 = 4;

/// Keeps data keys in a SQLite database, in tables with the prefix `encx_`. Clones share its connections.
///
/// For one machine: development, tests, small services. Several processes may use one file. Times are the machine's,
/// with milliseconds' precision, made distinct. It does not push hints.
///
/// Write access to the file decides which data keys exist. SQLite has no users: the audit log only records the
/// application, by [`application_name`](Self::application_name).
#[derive(Clone)]
pub struct SqliteKeyStore {
    tables: SharedWork<SqliteTables>,
    application: Arc<str>,
}

#[derive(Clone)]
struct SqliteTables {
    connections: Connections,
    /// Whether the tables were checked.
    migrated: Arc<AtomicBool>,
}

impl SqliteKeyStore {
    /// Opens a database by path, or by a URL such as `sqlite:keys.db` or `sqlite::memory:`. Creates a missing file.
    ///
    /// Write-ahead logging is on, with a full sync at each commit: losing a data key loses its data. An in-memory
    /// database lives as long as the store, its clones and their Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if it is a URL of another kind of database, or invalid; [`StoreError::Unavailable`] or
    /// [`StoreError::Database`] if the file cannot be opened or is not a database. The error names the file.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn connect(url_or_path: &str) -> Result<Self, StoreError> {
        let unreadable = |error| StoreError::Invalid {
            what: format!("the URL of the SQLite database is invalid: {error}"),
        };
        let options = match url_or_path {
            ":memory:" => "sqlite::memory:".parse().map_err(unreadable)?,
            url if url.starts_with("sqlite:") => url.parse().map_err(unreadable)?,
            url if url.contains("://") => {
                check_scheme(url, &["sqlite"], "SQLite", "sqlite:keys.db")?;
                SqliteConnectOptions::new()
            }
            path => SqliteConnectOptions::new().filename(Path::new(path)),
        };
        // In memory according to the URL's name or parameters.
        let name = options.get_filename().to_string_lossy().into_owned();
        let in_memory = name.starts_with("file:sqlx-in-memory-") || url_or_path.contains("mode=memory");
        let options = options
            .create_if_missing(true)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().acquire_timeout(BUSY);
        let pool = if in_memory {
            // The database is gone with its last connection, which must not be closed: neither for its age, nor when a
            // cancelled call was testing it.
            let pool = pool.min_connections(1).max_connections(1);
            let pool = pool.idle_timeout(None).max_lifetime(None);
            pool.test_before_acquire(false).connect_lazy_with(options)
        } else {
            let options = options.journal_mode(SqliteJournalMode::Wal);
            pool.max_connections(CONNECTIONS).connect_lazy_with(options)
        };
        let connections = Connections::of_its_own(pool);
        connections.acquire().await?;
        Ok(Self::on(connections))
    }

    /// Opens the file of an existing pool, on up to 2 separate connections.
    ///
    /// So your transactions can encrypt for a tenant without a key even while they hold all connections of the pool.
    /// The store connects when needed, with the pool's options and hooks. Its connections are closed when you close the
    /// pool, or with the last clone of the store. The options should wait for a busy database (`busy_timeout`), check
    /// foreign keys and sync at commit (`synchronous = FULL`), as sqlx does by default. `locking_mode = EXCLUSIVE`
    /// shuts the store out.
    ///
    /// <div class="warning">
    ///
    /// SQLite has one writer at a time. If your transaction has written, or began with `BEGIN IMMEDIATE`, and then uses
    /// an encryption context without a key, the store waits for `busy_timeout` and the call fails. A transaction that
    /// has read cannot write after the store has. Without write-ahead logging, a transaction that has read blocks the
    /// store too. If contexts may be new, call `Crypto::keyring` of `encx` and encrypt before the transaction begins.
    ///
    /// </div>
    ///
    /// An in-memory database has no second connection, so the store uses the pool's. The pool must have only one and
    /// never close it: `max_connections(1)`, no time limits, and `test_before_acquire(false)`. With more, every method
    /// fails with [`StoreError::Invalid`].
    #[must_use]
    pub fn from_pool(pool: SqlitePool) -> Self {
        Self::on(Connections::beside(pool))
    }

    fn on(connections: Connections) -> Self {
        Self {
            tables: SharedWork(SqliteTables {
                connections,
                migrated: Arc::default(),
            }),
            application: name_of_executable().unwrap_or_default().into(),
        }
    }

    /// Sets the application name in the audit log, of at most 200 characters. The default is the name of the executable
    /// file.
    #[must_use]
    pub fn application_name(mut self, name: &str) -> Self {
        self.application = name.chars().take(200).collect::<String>().into();
        self
    }

    /// Creates or updates the tables. Does nothing if they are up to date.
    ///
    /// Any number of processes may call it at once. It records its steps in `encx_migrations`, and touches no other
    /// tables.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if a newer version of this library already migrated them, and
    /// [`StoreError::Unavailable`] or [`StoreError::Database`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time: the migration has then run entirely or not at all.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let current = current();
        if !self.tables.found().await?.is_behind(current)? {
            return Ok(());
        }
        let mut transaction = self.tables.connections.begin().await?;
        let found = found_in(&mut transaction).await?;
        if !found.is_behind(current)? {
            return Ok(());
        }
        for migration in MIGRATIONS.iter().filter(|next| next.version > found.version) {
            sqlx::raw_sql(migration.text)
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
            let record = sqlx::query(sql::RECORD_MIGRATION).bind(migration.version);
            execute(&mut *transaction, record).await?;
        }
        if let Some(migration) = MIGRATIONS.last() {
            let record = sqlx::query(sql::RECORD_COMPATIBLE)
                .bind(migration.version)
                .bind(migration.compatible_from);
            execute(&mut *transaction, record).await?;
        }
        transaction.commit().await.map_err(store_error)
    }

    /// Lists the steps that [`migrate`](Self::migrate) runs, including those that have run.
    ///
    /// # Errors
    ///
    /// Those of [`migrate`](Self::migrate).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn migrations(&self) -> Result<Vec<MigrationStep>, StoreError> {
        let found = self.tables.found().await?;
        found.is_behind(current())?;
        let step = |migration: &Migration| migration.step(found, sql::BEGIN, "encx_migrations");
        Ok(MIGRATIONS.iter().map(step).collect())
    }
}

impl SqliteTables {
    async fn found(&self) -> Result<Found, StoreError> {
        let mut connection = self.connections.acquire().await?;
        found_in(&mut connection).await
    }
}

impl fmt::Debug for SqliteKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteKeyStore")
            .field("connections", &self.tables.connections.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for SqliteKeyStore {
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        self.tables.ready().await?;
        records(
            &mut *self.tables.connections.acquire().await?,
            sqlx::query(sql::LOAD).bind(list_of(scopes)),
        )
        .await
    }

    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError> {
        self.tables.ready().await?;
        let ids = json_list(ids.iter().map(|id| hex(&id.to_bytes())));
        records(
            &mut *self.tables.connections.acquire().await?,
            sqlx::query(sql::GET).bind(ids),
        )
        .await
    }

    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        self.tables.ready().await?;
        write::insert(&self.tables.connections, &self.application, new).await
    }

    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError> {
        self.tables.ready().await?;
        write::apply(&self.tables.connections, &self.application, change).await
    }

    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError> {
        self.tables.ready().await?;
        write::replace_wraps(&self.tables.connections, &self.application, changes).await
    }

    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError> {
        self.tables.ready().await?;
        let found = records(&mut *self.tables.connections.acquire().await?, page_query(query)?).await?;
        Ok(KeyPage::of_one_more(found, query.limit))
    }

    async fn summary(&self) -> Result<KeySummary, StoreError> {
        self.tables.ready().await?;
        let mut connection = self.tables.connections.acquire().await?;
        let rows = sqlx::query(sql::SUMMARY).fetch_all(&mut *connection).await;
        let rows = rows.map_err(store_error)?;
        Ok(key_summary(&rows))
    }

    async fn keks(&self) -> Result<Vec<KekUse>, StoreError> {
        self.tables.ready().await?;
        let mut connection = self.tables.connections.acquire().await?;
        let rows = sqlx::query(sql::KEKS).fetch_all(&mut *connection).await;
        kek_uses(&rows.map_err(store_error)?)
    }

    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError> {
        self.tables.ready().await?;
        let mut connection = self.tables.connections.acquire().await?;
        // Read before anything else: a later change then has a later time, or is read.
        let now = now(&mut *connection).await?;
        let start = (Timestamp::from_micros(i64::MIN), None);
        let (from, after) = match cursor.position() {
            // The clock was set back to before the cursor, which might miss changes made since.
            CursorPosition::At { at, back_to, .. } if back_to.is_none() && at.as_micros() > now => start,
            CursorPosition::At { at, after, .. } => (at, after),
            CursorPosition::Start => start,
            CursorPosition::Now => {
                let last = Timestamp::from_micros(last_change(&mut *connection, now).await?);
                let next = ChangeCursor::at(last, greatest_id());
                return Ok(ChangePage::new(Vec::new(), next, false));
            }
            _ => return Err(StoreError::Unsupported { what: "this cursor" }),
        };
        let rows = sqlx::query(sql::CHANGES)
            .bind(from.as_micros())
            .bind(after.map_or(Vec::new(), |id| id.to_bytes().to_vec()))
            .bind(ONE_MORE)
            .bind(now)
            .fetch_all(&mut *connection)
            .await
            .map_err(store_error)?;
        // Writers take turns, and each takes its time after its turn has come, later than any time already written. So
        // times grow in the order of commits, and no change appears before one already seen. That holds for times that
        // a clock wrote. One from the future would hide what is written until then, so it moves no cursor.
        let mut horizon = from;
        for row in &rows {
            let last: i64 = row.try_get("last").map_err(store_error)?;
            horizon = Timestamp::from_micros(last);
        }
        let rows = rows.iter().filter_map(raw_change);
        Ok(page_of(cursor, (from, after), rows, horizon))
    }

    fn changes(&self) -> KeyChanges {
        KeyChanges::never()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(&self.tables)
    }

    fn jobs(&self) -> Option<&dyn JobStore> {
        Some(&self.tables)
    }

    fn processes(&self) -> Option<&dyn ProcessRegistry> {
        Some(&self.tables)
    }

    fn audit(&self) -> Option<&dyn AuditLog> {
        Some(self)
    }
}

/// Picks the statement for a query's most selective filter, and binds the other filters.
fn page_query(query: &KeyQuery) -> Result<Query<'static, Sqlite, SqliteArguments>, StoreError> {
    let states: BTreeSet<_> = query.states.iter().copied().collect();
    let states: Vec<_> = if states.is_empty() {
        KeyState::ALL.map(KeyState::name).to_vec()
    } else {
        states.into_iter().map(KeyState::name).collect()
    };
    let usages = match query.usage {
        Some(usage) => vec![usage.code()],
        None => KeyUsage::ALL.map(KeyUsage::code).to_vec(),
    };
    let statement = match (&query.scope, &query.wrapped_by) {
        (Some(_), _) => sql::PAGE_OF_SCOPE,
        (None, _) if !query.context.is_empty() => sql::PAGE_OF_CONTEXT,
        (None, Some(_)) => sql::PAGE_OF_KEK,
        (None, None) if query.usage.is_some() || !query.states.is_empty() => sql::PAGE_OF_STATES,
        (None, None) => sql::PAGE,
    };
    let context = serde_json::to_string(&query.context).map_err(StoreError::database)?;
    let pairs = i64::try_from(query.context.len()).unwrap_or(i64::MAX);
    let text = |name: &str| name.to_owned();
    let bound = sqlx::query(statement)
        .bind(query.after.map_or(Vec::new(), |id| id.to_bytes().to_vec()))
        .bind(i64::from(query.limit).saturating_add(1))
        .bind(query.activated_before.map(Timestamp::as_micros))
        .bind(json_list(states.into_iter().map(text)))
        .bind(format!("{usages:?}"))
        .bind(query.scope.map(|scope| scope.as_bytes().to_vec()))
        .bind(query.wrapped_by.as_ref().map(|(kms, _)| text(kms.as_str())))
        .bind(query.wrapped_by.as_ref().map(|(_, kek)| text(kek.as_str())))
        .bind(context)
        .bind(pairs);
    Ok(bound)
}

/// The migrations, in order.
const MIGRATIONS: [Migration; 6] = [
    Migration {
        version: 1,
        name: "keys",
        compatible_from: 1,
        text: include_str!("../migrations/sqlite/0001_keys.sql"),
    },
    Migration {
        version: 2,
        name: "coordination",
        compatible_from: 1,
        text: include_str!("../migrations/sqlite/0002_coordination.sql"),
    },
    Migration {
        version: 3,
        name: "application",
        compatible_from: 1,
        text: include_str!("../migrations/sqlite/0003_application.sql"),
    },
    Migration {
        version: 4,
        name: "lists",
        compatible_from: 1,
        text: include_str!("../migrations/sqlite/0004_lists.sql"),
    },
    Migration {
        version: 5,
        name: "faults",
        compatible_from: 1,
        text: include_str!("../migrations/sqlite/0005_faults.sql"),
    },
    Migration {
        version: 6,
        name: "versions",
        compatible_from: 1,
        text: include_str!("../migrations/sqlite/0006_versions.sql"),
    },
];

/// Returns this library's version of the tables.
fn current() -> i64 {
    MIGRATIONS.last().map_or(0, |last| last.version)
}

/// Returns the state of the tables.
async fn found_in(connection: &mut SqliteConnection) -> Result<Found, StoreError> {
    let there: bool = sqlx::query_scalar(sql::HAS_MIGRATIONS)
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    if !there {
        return Ok(Found::NOTHING);
    }
    let version = sqlx::query_scalar(sql::LAST_MIGRATION)
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    let mut compatible_from = version;
    if version > current() {
        compatible_from = sqlx::query_scalar(sql::COMPATIBLE_FROM)
            .fetch_one(connection)
            .await
            .map_err(store_error)?;
    }
    Ok(Found {
        version,
        compatible_from,
    })
}

#[cfg(test)]
mod tests {
    //! Tests that the store's own statements use the indexes.

    use encx_core::key::{DataKeyId, KekId, KeyState, KeyUsage, KmsName, Scope};
    use encx_core::store::{AuditQuery, KeyQuery};
    use sqlx::{AssertSqlSafe, Execute};

    use super::*;

    async fn plan(store: &SqliteKeyStore, mut query: Query<'_, Sqlite, SqliteArguments>) -> Vec<String> {
        let arguments = query.take_arguments().unwrap().unwrap_or_default();
        let explain = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
        let rows = sqlx::query_with(AssertSqlSafe(explain), arguments)
            .fetch_all(&mut *store.tables.connections.acquire().await.unwrap())
            .await
            .unwrap();
        rows.iter().map(|row| row.get("detail")).collect()
    }

    #[test]
    fn statements_use_the_indexes() {
        encx_testkit::block_on(async {
            let store = SqliteKeyStore::connect("sqlite::memory:").await.unwrap();
            store.migrate().await.unwrap();
            let id = DataKeyId::generate(1, None).unwrap();
            let scope = Scope::from_bytes([1; 32]);
            let page = || KeyQuery::new(100).after(id);
            let (kms, kek) = (KmsName::default(), KekId::new("kek").unwrap());
            let pages = [
                page(),
                page().activated_before(Timestamp::from_micros(1)),
                page().state(KeyState::Suspended),
                page().usage(KeyUsage::Pepper),
                page().usage(KeyUsage::Data).state(KeyState::Active),
                page().scope(scope),
                page().wrapped_by(kms.clone(), kek.clone()),
                page().wrapped_by(kms, kek).state(KeyState::Active).scope(scope),
                page().context_pair("tenantId", "t"),
                page().context_pair("tenantId", "t").scope(scope),
            ];
            let mut queries = vec![
                ("load", sqlx::query(sql::LOAD).bind(list_of(&[scope]))),
                ("get", sqlx::query(sql::GET).bind("[]")),
                (
                    "changed_since",
                    sqlx::query(sql::CHANGES)
                        .bind(1_i64)
                        .bind(vec![1_u8])
                        .bind(9_i64)
                        .bind(9_i64),
                ),
                ("the time of a write", sqlx::query(sql::LAST_CHANGE).bind(1_i64)),
                (
                    "a change",
                    sqlx::query(sql::UPDATE_KEY).bind(vec![1_u8]).bind(1_i64),
                ),
                ("wraps", sqlx::query(sql::DELETE_WRAPS).bind(vec![1_u8])),
            ];
            queries.extend(pages.iter().map(|query| ("page", page_query(query).unwrap())));
            let log = || AuditQuery::new(100).after(3);
            let logs = [log().key(id), log().key(id).scope(scope), log().scope(scope)];
            queries.extend(logs.iter().map(|query| ("audit log", audit::audit_query(query))));
            for (what, query) in queries {
                let steps = plan(&store, query).await;
                // `SCAN k` is the page returned by a subquery; `SCAN json_each` is the requested list.
                let whole = steps.iter().find(|step| {
                    step.starts_with("SCAN encx_") || step.starts_with("SCAN d") || step.starts_with("SCAN b")
                });
                assert_eq!(whole, None, "{what} reads a whole table: {steps:#?}");
                assert!(
                    steps
                        .iter()
                        .any(|step| step.starts_with("SEARCH") && step.contains("INDEX")),
                    "{what} uses an index: {steps:#?}"
                );
            }
        });
    }

    #[test]
    fn statements_of_shared_work_use_the_indexes() {
        let work = sql::shared_work::STATEMENTS;
        encx_testkit::block_on(async {
            let store = SqliteKeyStore::connect("sqlite::memory:").await.unwrap();
            store.migrate().await.unwrap();
            for (what, text) in [
                ("release", work.release_lease),
                ("job", work.job),
                ("old ranges", work.delete_old_ranges),
                ("claim", work.claim_range),
                ("extend", work.move_frontier),
                ("keep", work.keep_range),
                ("count", work.count_range),
                ("delete", work.delete_range),
                ("acknowledge", work.acknowledge),
                ("deregister", work.deregister),
            ] {
                let steps = plan(&store, sqlx::query(text)).await;
                assert!(
                    steps.iter().any(|step| step.starts_with("SEARCH")),
                    "{what} searches: {steps:#?}"
                );
                assert!(
                    !steps
                        .iter()
                        .any(|step| step.starts_with("SCAN encx_") || step.contains("TEMP B-TREE")),
                    "{what} reads a whole table or sorts: {steps:#?}"
                );
                if what == "claim" {
                    let ended = steps.iter().find(|step| step.contains("encx_job_ranges_until"));
                    assert!(ended.is_some(), "{steps:#?}");
                }
            }
        });
    }
}
