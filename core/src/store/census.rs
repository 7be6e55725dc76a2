//! The contract of a census: counts the rows that are still encrypted under a version of a key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::key::DataKeyId;
use crate::store::StoreError;

/// Counts the rows encrypted under a version of a key, in the columns that it knows.
///
/// `KeyManager::destroy` asks it, and destroys no version that rows still use. It does not count data elsewhere: in other
/// columns, in files or backups, in the memory of a process, or in an outbox.
///
/// The rows may be in another database than the keys. The census therefore also reports the open transactions in the
/// database of the rows: their writes are not counted until they commit.
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future.
#[async_trait]
pub trait KeyCensus: fmt::Debug + Send + Sync + 'static {
    /// Counts the rows under a version, column by column. A column without such rows may be left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] or [`StoreError::Database`] if a table could not be read to its end: a count that is
    /// too low would lose data.
    /// there is would lose data.
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError>;

    /// Finds the oldest open transactions in the database of the rows, on its primary.
    ///
    /// Writes of a transaction that is not reported here are visible to every later call of
    /// [`rows_under`](Self::rows_under).
    ///
    /// # Errors
    ///
    /// As [`rows_under`](Self::rows_under); and [`StoreError::Database`] if the answer cannot be known, as on a standby
    /// or without the right to see other sessions.
    async fn open_transactions(&self) -> Result<OpenTransactions, StoreError>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: KeyCensus + ?Sized> KeyCensus for Arc<T> {
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError> {
        (**self).rows_under(id).await
    }

    async fn open_transactions(&self) -> Result<OpenTransactions, StoreError> {
        (**self).open_transactions().await
    }
}

/// The oldest open transactions in the database of the rows.
///
/// These are ages, not times: that database's clock may differ from the key store's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenTransactions {
    /// The age of the oldest transaction that has neither ended nor been prepared; [`Duration::MAX`] if the age is not
    /// known, `None` if there is no such transaction.
    pub oldest: Option<Duration>,
    /// The time since the oldest prepared transaction (`PREPARE TRANSACTION`) that has not ended was prepared; `None`
    /// if there is none. It began earlier, but databases do not say when.
    pub oldest_prepared: Option<Duration>,
}

impl OpenTransactions {
    /// No transaction is open.
    pub const NONE: Self = Self {
        oldest: None,
        oldest_prepared: None,
    };

    /// Makes a report from both ages.
    #[must_use]
    pub const fn new(oldest: Option<Duration>, oldest_prepared: Option<Duration>) -> Self {
        Self {
            oldest,
            oldest_prepared,
        }
    }
}

/// The number of rows of a column that are encrypted under a version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnCount {
    /// The table's name in SQL.
    pub table: String,
    /// The column's name in SQL.
    pub column: String,
    /// The number of rows.
    pub rows: u64,
}

impl ColumnCount {
    /// Makes a count.
    #[must_use]
    pub fn new(table: impl Into<String>, column: impl Into<String>, rows: u64) -> Self {
        Self {
            table: table.into(),
            column: column.into(),
            rows,
        }
    }
}

impl fmt::Display for ColumnCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}.{}", self.rows, self.table, self.column)
    }
}
