//! Counting the rows that each data key encrypts.

use async_trait::async_trait;
use encx::keys::DataKeyId;
use encx::record::EncryptedColumn;
use encx::store::{ColumnCount, KeyCensus, OpenTransactions, StoreError};

use crate::error::RowsError;
use crate::layout::Layout;
use crate::rows::{Pool, Rows};

/// Counts the rows of columns by data key. From [`Rows::census`].
///
/// Given to a key manager it keeps versions from being destroyed that rows still use.
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
    /// The data key; `None` for values that name none, and so are no ciphertexts.
    pub key: Option<DataKeyId>,
    /// How many rows.
    pub rows: u64,
}

impl Rows {
    /// Counts the rows of these columns by data key, from the 16 bytes of each ciphertext that name it.
    ///
    /// Without an index each count reads the whole table. With one on those bytes it is cheap:
    ///
    /// ```sql
    /// CREATE INDEX CONCURRENTLY ON users (substring(ssn FROM 3 FOR 16));   -- PostgreSQL
    /// CREATE INDEX users_ssn_key ON users (substr(ssn, 3, 16));            -- SQLite
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for a description that cannot be used.
    pub fn census(&self, columns: impl IntoIterator<Item = EncryptedColumn>) -> Result<Census, RowsError> {
        let layouts = columns.into_iter().map(Layout::new).collect::<Result<_, _>>()?;
        let rows = self.clone();
        Ok(Census { rows, layouts })
    }
}

impl Census {
    /// Counts all rows, by column and data key, in the order of the columns and the keys.
    ///
    /// # Errors
    ///
    /// Those of the database, and those about the columns' names and types.
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

    /// In PostgreSQL, the transactions of all sessions on the same database, and those that are prepared there. Sessions of
    /// other roles show only to a role with `pg_read_all_stats`.
    ///
    /// In SQLite one transaction writes at a time, so this takes the turn to write and gives it back: what others wrote
    /// before has ended by then. If the turn does not come within the pool's `busy_timeout`, a transaction is open whose age is not
    /// known. One that has only read so far does not show. It can still write if nothing else did since it began.
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
