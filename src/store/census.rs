//! The contract of a census: how many rows are still encrypted under a version of a key.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::key::DataKeyId;
use crate::store::StoreError;

/// Counts the rows that a version of a key encrypts, in the columns that somebody told it of.
///
/// [`KeyManager::destroy`](crate::KeyManager::destroy) asks it, and destroys nothing that rows still use. It knows only
/// the columns that it was told of: what lies elsewhere, such as in a file or a backup, it does not count.
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
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: KeyCensus + ?Sized> KeyCensus for Arc<T> {
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError> {
        (**self).rows_under(id).await
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
