//! Reads columns of rows, for both databases, without trusting their contents.

use encx_core::store::{StoreError, Timestamp};

/// A row of one of the databases. NULL is `None`.
pub(crate) trait StoredRow: Send + Sync {
    fn boolean(&self, column: &str) -> Result<Option<bool>, sqlx::Error>;

    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;

    /// The bytes of an id, which PostgreSQL has as a UUID. SQLite may have any number of them.
    fn id(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;

    /// An integer of any width.
    fn integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;

    fn moment(&self, column: &str) -> Result<Option<Timestamp>, sqlx::Error>;

    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
}

/// A method of [`StoredRow`].
type Read<R, T> = fn(&R, &str) -> Result<Option<T>, sqlx::Error>;

/// A row, with the error for a column that encx did not write.
pub(crate) struct Columns<'r, R, F> {
    row: &'r R,
    unfit: F,
}

impl<'r, R: StoredRow, F: Fn(&str) -> StoreError> Columns<'r, R, F> {
    pub(crate) fn new(row: &'r R, unfit: F) -> Self {
        Self { row, unfit }
    }

    pub(crate) fn get<T>(&self, read: Read<R, T>, column: &str) -> Result<T, StoreError> {
        self.optional(read, column)?.ok_or_else(|| (self.unfit)(column))
    }

    pub(crate) fn optional<T>(&self, read: Read<R, T>, column: &str) -> Result<Option<T>, StoreError> {
        read(self.row, column).map_err(|_| (self.unfit)(column))
    }
}

/// Returns the columns of a row of the `table`.
pub(crate) fn of_table<'r, R: StoredRow>(
    table: &'static str,
    row: &'r R,
) -> Columns<'r, R, impl Fn(&str) -> StoreError + use<R>> {
    Columns::new(row, move |column| unreadable(table, column))
}

/// Returns the error for a column with a value that encx does not write.
pub(crate) fn unreadable(table: &str, column: &str) -> StoreError {
    StoreError::Corrupt {
        what: format!(
            "a row of the {table}: its column `{column}` is missing, NULL, of another type or out of bounds"
        ),
    }
}
