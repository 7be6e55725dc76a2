//! The rows of users' own tables, where ciphertexts are: what the jobs read and write, on either database.

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

/// The rows of your own tables, through your own pool.
///
/// Which columns hold ciphertexts, whose ids and whose encryption contexts, an [`EncryptedColumn`](encx::record::EncryptedColumn)
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

    /// Checks that a column is in the database as it is described: its table, the columns of the row's id and of the
    /// encryption context, and their types. SQLite's columns have no types; there each row says what it holds.
    ///
    /// # Errors
    ///
    /// [`RowsError::NoSuchTable`], [`RowsError::NoSuchColumn`] and [`RowsError::ColumnType`] for what differs,
    /// [`RowsError::Description`] for a description that cannot be used, [`RowsError::Database`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn check_column(&self, column: &EncryptedColumn) -> Result<(), RowsError> {
        self.check(&Layout::new(column.clone())?, false).await
    }

    /// Checks that a column is there as it is described; that its plaintext may become NULL, too, if it is to.
    pub(crate) async fn check(&self, layout: &Layout, contracts: bool) -> Result<(), RowsError> {
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

    /// Reads the heads of at most `limit` rows at random, each as likely as any other. Of rows among which the database cannot
    /// read one, the ids alone are read, and no row is [`whole`](Row::whole) or has a size.
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

    /// Reads rows by their ids, in the same order; `None` for one that is gone. If one of them fails the statement, each is
    /// read by itself.
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

    /// Writes rows over what they were when they were read, and says of each whether it was that still.
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

/// Refuses rows whose id is not what it is described as: they can be bound to nothing.
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
