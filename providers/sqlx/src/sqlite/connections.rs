//! The store's own connections, and the error if a file cannot be opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use encx_core::store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use sqlx::{Connection, SqlSafeStr, Sqlite, Transaction};
use tokio::sync::OnceCell;

use super::error::{is_passing, primary_code, store_error};
use super::sql;
use crate::error::{may_pass, without_rows};

/// How long a writer waits for another.
pub(super) const BUSY: Duration = Duration::from_secs(10);

/// The most connections of a store beside those of the caller's pool: one writes, the other reads.
const BESIDES: u32 = 2;

/// The connections of a store. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    /// The caller's pool, or the one made for a URL.
    given: SqlitePool,
    /// The pool that the store uses, known once the database was opened and it is clear whether it is a file.
    used: OnceCell<SqlitePool>,
}

impl Connections {
    /// Uses a pool that was made for this store only.
    pub(super) fn of_its_own(pool: SqlitePool) -> Self {
        Self(Arc::new(Inner {
            used: OnceCell::new_with(Some(pool.clone())),
            given: pool,
        }))
    }

    /// Makes separate connections beside those of a pool, if its database is a file.
    ///
    /// The caller may hold all of that pool's connections in transactions that wait for the store.
    pub(super) fn beside(given: SqlitePool) -> Self {
        Self(Arc::new(Inner {
            used: OnceCell::new(),
            given,
        }))
    }

    /// Returns the number of open connections.
    pub(super) fn len(&self) -> u32 {
        self.0.used.get().map_or(0, SqlitePool::size)
    }

    pub(super) async fn acquire(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        let pool = self.pool().await?;
        pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => StoreError::unavailable(AllInUse {
                connections: pool.options().get_max_connections(),
                waited: pool.options().get_acquire_timeout(),
            }),
            sqlx::Error::PoolClosed => store_error(error),
            error => not_opened(&pool.connect_options(), error),
        })
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let connection = self.acquire().await?;
        let begun = Transaction::begin(connection, Some(sql::BEGIN.into_sql_str())).await;
        begun.map_err(store_error)
    }

    async fn pool(&self) -> Result<&SqlitePool, StoreError> {
        let Inner { given, used } = &*self.0;
        used.get_or_try_init(|| async {
            let options = given.connect_options();
            if is_file(&options).await? {
                return Ok(self.own(&options));
            }
            match given.options().get_max_connections() {
                // The database is gone with its last connection, and a second one would see other tables, or locked
                // ones.
                1 => Ok(given.clone()),
                connections => Err(StoreError::Invalid {
                    what: format!(
                        "the pool has up to {connections} connections to an in-memory SQLite database; use \
                         `SqliteKeyStore::connect(\"sqlite::memory:\")`, or a file, or a pool with \
                         `max_connections(1)`, `idle_timeout(None)` and `max_lifetime(None)`"
                    ),
                }),
            }
        })
        .await
    }

    /// Makes the store's own pool with the settings of the caller's, and closes it with that one.
    fn own(&self, options: &SqliteConnectOptions) -> SqlitePool {
        let given = &self.0.given;
        // Including hooks: one may set what the database needs.
        let settings = given.options().clone();
        let connections = BESIDES.min(settings.get_max_connections());
        let acquire = BUSY.min(settings.get_acquire_timeout());
        let own = settings
            .max_connections(connections)
            .min_connections(0)
            .acquire_timeout(acquire)
            .connect_lazy_with(options.clone());
        let (closed, inner) = (given.close_event(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            closed.await;
            if let Some(own) = inner.upgrade().and_then(|inner| inner.used.get().cloned()) {
                own.close().await;
            }
        });
        own
    }
}

/// Opens the database once, and tells whether it is a file that other connections can open too.
async fn is_file(options: &SqliteConnectOptions) -> Result<bool, StoreError> {
    let asked = async {
        let mut connection = SqliteConnection::connect_with(options).await?;
        let file: Option<String> = sqlx::query_scalar(sql::FILE).fetch_one(&mut connection).await?;
        let _ = connection.close().await;
        Ok(file.is_some_and(|file| !file.is_empty()))
    };
    asked.await.map_err(|error| not_opened(options, error))
}

/// Returns the error that names the file and says why it could not be opened.
fn not_opened(options: &SqliteConnectOptions, error: sqlx::Error) -> StoreError {
    let advice = match primary_code(&error) {
        // SQLITE_CANTOPEN, SQLITE_READONLY, SQLITE_NOTADB
        Some(14) => "; do the file and its directory exist, and may this process read and write both?",
        Some(8) => "; the key store writes, so open the file for writing",
        Some(26) => "; name a SQLite database, or a file that does not exist yet",
        _ => "",
    };
    let passing = may_pass(&error, is_passing);
    let error = NotOpened {
        path: options.get_filename().to_owned(),
        advice,
        source: without_rows(error),
    };
    if passing {
        StoreError::unavailable(error)
    } else {
        StoreError::database(error)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the SQLite database `{}`: {source}{advice}", .path.display())]
struct NotOpened {
    path: PathBuf,
    advice: &'static str,
    source: sqlx::Error,
}

/// All connections are busy. An in-memory database has one, which the caller may hold.
#[derive(Debug, thiserror::Error)]
#[error(
    "all {connections} connections of the key store to SQLite were in use for {waited:?}; an in-memory database has one, \
     so use the encryption context once before your transaction begins"
)]
struct AllInUse {
    connections: u32,
    waited: Duration,
}
