//! Counting rows by data key.

use async_trait::async_trait;
use encx::keys::DataKeyId;
use encx::record::EncryptedColumn;
use encx::store::{ColumnCount, KeyCensus, OpenTransactions, StoreError};

use crate::error::RowsError;
use crate::layout::Layout;
use crate::rows::{Pool, Rows};

/// Counts rows of columns by data key. From [`Rows::census`].
///
/// Stops a key manager from destroying versions that rows still use.
#[derive(Clone, Debug)]
pub struct Census {
    rows: Rows,
    layouts: Vec<Layout>,
}

/// How many rows of a column a data key encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyCount {
    /// The table's name in SQL.
    pub table: String,
    /// The column's name in SQL.
    pub column: String,
    /// The data key; `None` for values that name no key and so are not ciphertexts.
    pub key: Option<DataKeyId>,
    /// The number of rows.
    pub rows: u64,
}

impl Rows {
    /// Counts the rows of these columns by data key, which 16 bytes of each ciphertext name.
    ///
    /// Without an index, each count reads the whole table. An index on those bytes makes it cheap:
    ///
    /// ```sql
    /// CREATE INDEX CONCURRENTLY ON users (substring(ssn FROM 3 FOR 16));   -- PostgreSQL
    /// CREATE INDEX users_ssn_key ON users (substr(ssn, 3, 16));            -- SQLite
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for an invalid description.
    pub fn census(&self, columns: impl IntoIterator<Item = EncryptedColumn>) -> Result<Census, RowsError> {
        let layouts = columns.into_iter().map(Layout::new).collect::<Result<_, _>>()?;
        let rows = self.clone();
        Ok(Census { rows, layouts })
    }
}

impl Census {
    /// Counts all rows by column and data key, in the order of the columns and the keys.
    ///
    /// # Errors
    ///
    /// Database errors, and errors in the columns' names and types.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn count(&self) -> Result<Vec<KeyCount>, RowsError> {
        let mut counts = Vec::new();
        for layout in &self.layouts {
            self.rows.check(layout, false).await?;
            let found = match &self.rows.pool {
                #[cfg(feature = "postgres")]
                Pool::Postgres(pool) => crate::postgres::census(pool, layout).await?,
                #[cfg(feature = "sqlite")]
                Pool::Sqlite(pool) => crate::sqlite::census(pool, layout).await?,
            };
            counts.extend(found.into_iter().map(|(key, rows)| {
                KeyCount {
                    table: layout.described.sql_table.clone(),
                    column: layout.described.sql_column.clone(),
                    key: key
                        .try_into()
                        .ok()
                        .and_then(|key| DataKeyId::from_bytes(key).ok()),
                    rows: u64::try_from(rows).unwrap_or(0),
                }
            }));
        }
        Ok(counts)
    }

    async fn rows_of(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, RowsError> {
        let mut counts = Vec::with_capacity(self.layouts.len());
        for layout in &self.layouts {
            self.rows.check(layout, false).await?;
            let key = id.to_bytes();
            let rows = match &self.rows.pool {
                #[cfg(feature = "postgres")]
                Pool::Postgres(pool) => crate::postgres::count(pool, layout, &key).await?,
                #[cfg(feature = "sqlite")]
                Pool::Sqlite(pool) => crate::sqlite::count(pool, layout, &key).await?,
            };
            let (table, column) = (&layout.described.sql_table, &layout.described.sql_column);
            // A count is never negative.
            counts.push(ColumnCount::new(
                table,
                column,
                u64::try_from(rows).unwrap_or(u64::MAX),
            ));
        }
        Ok(counts)
    }
}

#[async_trait]
impl KeyCensus for Census {
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError> {
        self.rows_of(id).await.map_err(store_error)
    }

    /// Lists open transactions.
    ///
    /// In PostgreSQL: the transactions of all sessions on the same database, and its prepared transactions.
    /// Seeing sessions of other roles requires `pg_read_all_stats`.
    ///
    /// SQLite has one writer at a time, so this takes the write lock and releases it: earlier writers have
    /// ended by then. If the lock is not free within the pool's `busy_timeout`, a transaction of unknown age
    /// is open. A transaction that has only read is not seen. It can still write if no other transaction has
    /// written since it began.
    async fn open_transactions(&self) -> Result<OpenTransactions, StoreError> {
        let open = match &self.rows.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => crate::postgres::open_transactions(pool).await,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => crate::sqlite::open_transactions(pool).await,
        };
        open.map_err(store_error)
    }
}

fn store_error(error: RowsError) -> StoreError {
    if error.is_retryable() {
        StoreError::unavailable(error)
    } else {
        StoreError::database(error)
    }
}
