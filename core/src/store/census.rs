//! The contract of a census: how many rows are still encrypted under a version of a key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::key::DataKeyId;
use crate::store::StoreError;

/// Counts the rows that a version of a key encrypts, in the columns that it was told of.
///
/// `KeyManager::destroy` asks it, and destroys nothing that rows still use. It does not count
/// what is elsewhere: in another column, in a file or a backup, in the memory of a process, or in an outbox.
///
/// The rows may be in another database than the keys. So the census also says which transactions are open in the
/// database of the rows: what they have written is not counted until they commit.
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
    /// [`StoreError::Unavailable`] or [`StoreError::Database`] if a table could not be read to its end: to count less than
    /// there is would lose data.
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError>;

    /// Finds the oldest transactions that are open in the database of the rows, on its primary.
    ///
    /// What a transaction wrote that is not reported here is visible to every later call of
    /// [`rows_under`](Self::rows_under).
    ///
    /// # Errors
    ///
    /// As [`rows_under`](Self::rows_under); and [`StoreError::Database`] if it cannot be known, as on a standby or without
    /// the right to see other sessions.
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

/// The oldest transactions that are open in the database of the rows.
///
/// Ages, not times: the clock of that database need not be the one of the key store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenTransactions {
    /// How long ago the oldest one began that has neither ended nor been prepared; [`Duration::MAX`] if that is not
    /// known, `None` if there is none.
    pub oldest: Option<Duration>,
    /// How long ago the oldest one was prepared (`PREPARE TRANSACTION`) that has not ended; `None` if there is none.
    /// It began earlier, and a database does not say when.
    pub oldest_prepared: Option<Duration>,
}

impl OpenTransactions {
    /// No transaction is open.
    pub const NONE: Self = Self {
        oldest: None,
        oldest_prepared: None,
    };

    /// Puts a finding together.
    #[must_use]
    pub const fn new(oldest: Option<Duration>, oldest_prepared: Option<Duration>) -> Self {
        Self {
            oldest,
            oldest_prepared,
        }
    }
}

/// How many rows of a column a version of a key encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnCount {
    /// The table's name in SQL.
    pub table: String,
    /// The column's name in SQL.
    pub column: String,
    /// How many rows.
    pub rows: u64,
}

impl ColumnCount {
    /// Puts a count together.
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
