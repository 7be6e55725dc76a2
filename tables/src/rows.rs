//! The rows that jobs read and write, in either database.

use std::fmt;

use encx::record::EncryptedColumn;
#[cfg(feature = "postgres")]
use sqlx::PgPool;
#[cfg(feature = "sqlite")]
use sqlx::SqlitePool;

use crate::cell::Id;
use crate::error::RowsError;
use crate::layout::{Change, Layout, Read, Row, Unread};
#[cfg(feature = "postgres")]
use crate::postgres;
use crate::sql::{Columns, Filter, Write};
#[cfg(feature = "sqlite")]
use crate::sqlite;

/// The rows of your own tables, accessed through your own pool.
///
/// An [`EncryptedColumn`](encx::record::EncryptedColumn) describes a ciphertext column, its row ids and its
/// encryption contexts. Names are exact, so in PostgreSQL `Users` is not `users`. A table name may have a
/// schema (`app.users`); a part that contains a dot is written in double quotes.
///
/// Ids and encryption context columns may be `smallint`, `integer`, `bigint`, `text`, `varchar`, `uuid` and,
/// for ids, `bytea`, and domains over these; in SQLite, any integer, text or blob. Rows with a NULL id are
/// skipped. The id needs an index, such as that of the primary key, in the order of the described columns.
///
/// Clones share one pool.
#[derive(Clone)]
pub struct Rows {
    pub(crate) pool: Pool,
}

#[derive(Clone)]
pub(crate) enum Pool {
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
}

impl Rows {
    /// Uses connections of a PostgreSQL pool.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn postgres(pool: PgPool) -> Self {
        Self {
            pool: Pool::Postgres(pool),
        }
    }

    /// Uses connections of a SQLite pool.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn sqlite(pool: SqlitePool) -> Self {
        Self {
            pool: Pool::Sqlite(pool),
        }
    }

    /// Checks that the database has a column as described.
    ///
    /// Checks its table, the columns of the row id and encryption context, and their types. SQLite columns
    /// have no fixed types; there, each row is checked when read.
    ///
    /// # Errors
    ///
    /// [`RowsError::NoSuchTable`], [`RowsError::NoSuchColumn`] and [`RowsError::ColumnType`] for a
    /// difference; [`RowsError::Description`] for an invalid description; [`RowsError::Database`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn check_column(&self, column: &EncryptedColumn) -> Result<(), RowsError> {
        self.check(&Layout::new(column.clone())?, false).await
    }

    /// Checks that the database has a column as described and, if `contracts`, that its plaintext is
    /// nullable.
    pub(crate) async fn check(&self, layout: &Layout, contracts: bool) -> Result<(), RowsError> {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::check(pool, layout, contracts).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::check(pool, layout, contracts).await,
        }
    }

    /// Reads the heads of rows in id order, and returns the last id if more rows may follow.
    ///
    /// One unreadable row, such as a damaged one, fails the whole statement. Then this reads only the ids,
    /// and each row separately.
    pub(crate) async fn page(
        &self,
        layout: &Layout,
        (rows, which): (Filter, Columns),
        between: (Option<&Id>, Option<&Id>),
        limit: u32,
    ) -> Result<(Vec<Read>, Option<Id>), RowsError> {
        let heads = self.page_of(layout, rows, which, between, limit).await;
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
        refuse_misfits(layout, &mut page);
        Ok(page)
    }

    /// Reads the heads of at most `limit` random rows, all equally likely. If one is unreadable, only the ids
    /// are read: then no row is [`whole`](Row::whole) or has a size.
    pub(crate) async fn sample(&self, layout: &Layout, limit: u32) -> Result<Vec<Read>, RowsError> {
        let mut sample = match self.sample_of(layout, Columns::Head, limit).await {
            Err(error) if !error.is_retryable() => self.sample_of(layout, Columns::Id, limit).await?,
            sample => sample?,
        };
        refuse_misfits(layout, &mut sample);
        Ok(sample)
    }

    async fn sample_of(&self, layout: &Layout, which: Columns, limit: u32) -> Result<Vec<Read>, RowsError> {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::sample(pool, layout, which, limit).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::sample(pool, layout, which, limit).await,
        }
    }

    /// Reads rows by id, in the same order; `None` for a deleted row. If one fails the statement, each is
    /// read separately.
    pub(crate) async fn fetch(&self, layout: &Layout, ids: &[&Id]) -> Result<Vec<Option<Read>>, RowsError> {
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

    /// Writes rows that are unchanged since they were read; returns for each whether it was written.
    pub(crate) async fn write(
        &self,
        layout: &Layout,
        write: Write,
        changes: &[Change],
    ) -> Result<Vec<bool>, RowsError> {
        match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => postgres::write(pool, layout, write, changes).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => sqlite::write(pool, layout, write, changes).await,
        }
    }
}

/// Refuses rows whose id does not match its description: it cannot be bound.
fn refuse_misfits(layout: &Layout, reads: &mut [Read]) {
    for read in reads {
        if let Ok(row) = read
            && let Some(error) = layout.misfit(&row.id)
        {
            let (id, error) = (row.id.clone(), error.into());
            *read = Err(Unread { id, error });
        }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the pool: its options contain the password.
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
