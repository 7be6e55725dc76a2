//! The rows of users' own tables, where ciphertexts are: re-encryption, verification, census and the adoption of plaintext
//! columns.

mod adopt;
mod adoption;
mod cell;
mod census;
mod ident;
mod layout;
#[cfg(feature = "postgres")]
mod postgres;
mod reencrypt;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod verify;
mod walk;

use std::fmt;
use std::sync::Arc;

use encx::{Ciphertext, JobError};
#[cfg(feature = "postgres")]
use sqlx::PgPool;
#[cfg(feature = "sqlite")]
use sqlx::SqlitePool;
use sqlx::error::DatabaseError;

use self::cell::Id;
use self::layout::{Layout, Read, Row, Unread};
use self::sql::{Columns, Filter, Write};
use crate::error::without_rows;

pub use self::adopt::{Adopt, AdoptionJobs, PlaintextColumn};
pub use self::adoption::{Adoption, read_either};
pub use self::census::{Census, KeyCount};
pub use self::reencrypt::Reencrypt;
pub use self::verify::Verify;

/// The rows of your own tables, through your own pool.
///
/// Which columns hold ciphertexts, whose ids and whose encryption contexts, an [`EncryptedColumn`](encx::EncryptedColumn)
/// describes. Names in it are taken as they are, so in PostgreSQL `Users` is not `users`; a table's may have a
/// schema's before it (`app.users`), and a part with a dot in it is written in double quotes.
///
/// Ids and the columns of an encryption context are `smallint`, `integer`, `bigint`, `text`, `varchar`, `uuid` and, for ids,
/// `bytea`, and domains over these; in SQLite whatever a row holds, if it is an integer, text or a blob. Rows whose id is
/// NULL are left out. The id needs an index, such as that of the primary key, in the order of the described columns.
///
/// Clones share one pool.
#[derive(Clone)]
pub struct Rows {
    pool: Pool,
}

#[derive(Clone)]
enum Pool {
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
}

impl Rows {
    /// Uses connections of a pool on PostgreSQL.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn postgres(pool: PgPool) -> Self {
        Self {
            pool: Pool::Postgres(pool),
        }
    }

    /// Uses connections of a pool on SQLite.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn sqlite(pool: SqlitePool) -> Self {
        Self {
            pool: Pool::Sqlite(pool),
        }
    }

    /// Checks that a column is there as it is described; that its plaintext may become NULL, too, if it is to.
    async fn check(&self, layout: &Layout, contracts: bool) -> Result<(), RowsError> {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::check(pool, layout, contracts).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::check(pool, layout, contracts).await,
        }
    }

    /// Reads the heads of rows in the order of their ids. The second is the id of the last, if more may follow it.
    ///
    /// A row that the database itself cannot read, such as a damaged one, fails the statement. Then the ids alone are read,
    /// and each row by itself.
    async fn page(
        &self,
        layout: &Layout,
        rows: Filter,
        between: (Option<&Id>, Option<&Id>),
        limit: u32,
    ) -> Result<(Vec<Read>, Option<Id>), RowsError> {
        let heads = self.page_of(layout, rows, Columns::Head, between, limit).await;
        let one_by_one = heads.as_ref().is_err_and(|error| !error.is_retryable());
        let page = if one_by_one {
            self.page_of(layout, rows, Columns::Id, between, limit).await?
        } else {
            heads?
        };
        let full = u32::try_from(page.len()).is_ok_and(|read| read >= limit);
        let last = page.last().filter(|_| full).map(|read| match read {
            Ok(row) => row.id.clone(),
            Err(unread) => unread.id.clone(),
        });
        if !one_by_one {
            return Ok((page, last));
        }
        let mut heads = Vec::with_capacity(page.len());
        for read in page {
            match read {
                Ok(row) => {
                    let found = self.fetch(layout, &[&row.id]).await?.into_iter().flatten();
                    heads.extend(found.map(|read| read.map(Row::shed)));
                }
                Err(unread) => heads.push(Err(unread)),
            }
        }
        Ok((heads, last))
    }

    async fn page_of(
        &self,
        layout: &Layout,
        rows: Filter,
        which: Columns,
        between: (Option<&Id>, Option<&Id>),
        limit: u32,
    ) -> Result<Vec<Read>, RowsError> {
        let mut page = match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::page(pool, layout, rows, which, between, limit).await?,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::page(pool, layout, rows, which, between, limit).await?,
        };
        for read in &mut page {
            // An id that is not what it is described as can be bound to nothing.
            if let Ok(row) = read
                && let Some(error) = layout.misfit(&row.id)
            {
                let (id, error) = (row.id.clone(), error.into());
                *read = Err(Unread { id, error });
            }
        }
        Ok(page)
    }

    /// Reads rows by their ids, in the same order; `None` for one that is gone. If one of them fails the statement, each is
    /// read by itself.
    async fn fetch(&self, layout: &Layout, ids: &[&Id]) -> Result<Vec<Option<Read>>, RowsError> {
        match self.fetch_at_once(layout, ids).await {
            Err(error) if !error.is_retryable() => {}
            found => return found,
        }
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            match self.fetch_at_once(layout, &[id]).await {
                Ok(row) => rows.extend(row),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => rows.push(Some(Err(Unread {
                    id: (*id).clone(),
                    error: error.into(),
                }))),
            }
        }
        Ok(rows)
    }

    async fn fetch_at_once(&self, layout: &Layout, ids: &[&Id]) -> Result<Vec<Option<Read>>, RowsError> {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::fetch(pool, layout, ids).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::fetch(pool, layout, ids).await,
        }
    }

    /// Writes rows over what they were when they were read, and says of each whether it was that still.
    async fn write(&self, layout: &Layout, write: Write, changes: &[Change]) -> Result<Vec<bool>, RowsError> {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::write(pool, layout, write, changes).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::write(pool, layout, write, changes).await,
        }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the pool: its options hold the password.
        let database = match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(_) => "PostgreSQL",
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(_) => "SQLite",
        };
        f.debug_struct("Rows")
            .field("database", &database)
            .finish_non_exhaustive()
    }
}

/// A row as it was read, and its new ciphertext if it gets one.
struct Change {
    row: Row,
    cipher: Option<Vec<u8>>,
}

impl Change {
    fn encrypted(row: Row, cipher: Ciphertext) -> Self {
        let cipher = Some(cipher.into_bytes());
        Self { row, cipher }
    }

    fn emptied(row: Row) -> Self {
        Self { row, cipher: None }
    }
}

/// Says why rows could not be walked over, or a row not be read or changed. None of it carries a value of a column, but
/// for what a trigger of your own says.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The time of an adoption is over, so plaintexts are trusted no more.
    #[error(
        "plaintexts of this column were trusted up to and including {until} (UTC), and no longer: read with `decrypt`. If \
         rows are not encrypted yet, make sure that their values are genuine, declare a later day with \
         `Adoption::until` and run `backfill`"
    )]
    AdoptionEnded {
        /// With its last day.
        until: Adoption,
    },
    /// A column, or one row's value, is of a type that cannot be read.
    #[error("{table}.{column} is {found}, and has to be {expected}")]
    ColumnType {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The plaintext column was contracted, so what has come to stand in it since is trusted no more.
    #[error(
        "{table}.{column} was contracted, so its plaintexts are trusted no more: find out what wrote those that are there. \
         If they are genuine, let the service write them anew, or delete the row of the job {job:?} from the key \
         store's table of jobs and run `backfill` again"
    )]
    Contracted {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
        /// The job by which the key store remembers it.
        job: String,
    },
    /// The database failed, or refused a statement.
    #[error("the rows could not be read or written: {source}")]
    Database {
        /// The database's own error, without what quotes a row: of PostgreSQL's the detail, hint and context are left out.
        source: Arc<sqlx::Error>,
        /// Whether the same may succeed later.
        retryable: bool,
    },
    /// A column's description cannot be used.
    #[error("{what}")]
    Description {
        /// What is wrong with it.
        what: String,
    },
    /// A key, a KMS, the key store or the ciphertext failed.
    #[error(transparent)]
    Encx(#[from] encx::Error),
    /// The database hides what other roles' sessions do, so open transactions cannot be known.
    #[error(
        "the database hides the transactions of {sessions} sessions of other roles, which may have written rows that cannot be \
         counted yet; grant the census's role pg_read_all_stats, and leave track_activities on"
    )]
    HiddenSessions {
        /// How many sessions.
        sessions: i64,
    },
    /// The ciphertext does not open to the plaintext beside it.
    #[error(
        "the ciphertext holds another value than the plaintext beside it; does something still write the plaintext alone?"
    )]
    Mismatch,
    /// There is no such column.
    #[error("table {table} has no column {column:?}; names are taken as they are, upper case too")]
    NoSuchColumn {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
    },
    /// There is no such table.
    #[error("there is no table {table}; names are taken as they are, upper case too")]
    NoSuchTable {
        /// The table's name in SQL.
        table: String,
    },
    /// There is a plaintext and no ciphertext beside it.
    #[error("the row has a plaintext and no ciphertext; run `backfill` first")]
    NotBackfilled,
    /// The plaintext column may not be NULL.
    #[error("{table}.{column} is NOT NULL, and `contract` makes it NULL; drop that constraint first")]
    NotNull {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
    },
    /// A column that the row's encryption context needs is NULL.
    #[error("the column of the encryption context's pair {pair:?} is NULL in this row")]
    NullContext {
        /// The pair's key.
        pair: String,
    },
    /// Somebody else held the row's lock, or changed it, each time that it was to be changed. Retryable.
    #[error("other transactions hold or change this row all the time")]
    RowBusy,
    /// The database is a standby, which knows neither the primary's transactions nor its latest rows.
    #[error(
        "the database is a standby, and open transactions are known to its primary alone; ask the census there"
    )]
    Standby,
}

impl fmt::Debug for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx::debug_error(self, f)
    }
}

impl RowsError {
    /// Tells whether the same may succeed later without a change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database { retryable, .. } => *retryable,
            Self::Encx(error) => error.is_retryable(),
            Self::RowBusy => true,
            _ => false,
        }
    }

    /// Tells apart, by the database's code, what may succeed later.
    fn database(error: sqlx::Error, is_passing: impl Fn(&str) -> bool) -> Self {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, WorkerCrashed};
        let retryable = match &error {
            Io(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
            other => {
                let refusal = other.as_database_error();
                is_passing(&refusal.and_then(DatabaseError::code).unwrap_or_default())
            }
        };
        Self::Database {
            source: Arc::new(without_rows(error)),
            retryable,
        }
    }
}

impl From<RowsError> for JobError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Encx(error) => Self::Encx(error),
            error => {
                let retryable = error.is_retryable();
                Self::walk(error, retryable)
            }
        }
    }
}
