//! Errors of rows.

use std::fmt;
use std::sync::Arc;

use encx::CiphertextError;
use encx::jobs::JobError;
use encx_sqlx::__private::{may_pass, without_rows};

use crate::adoption::Adoption;
use crate::fault::Elsewhere;

/// The type that SQLite's rows must have in a ciphertext column.
pub(crate) const BLOB: &str = "a blob";

/// An error from reading, walking or changing rows.
///
/// Contains no column value, except in messages of your own triggers.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The adoption has ended, so plaintexts are no longer trusted.
    #[error(
        "plaintexts of this column were trusted up to and including {until} (UTC), and no longer: read with `decrypt`. If \
         rows are not encrypted yet, make sure that their values are genuine, declare a later day with \
         `Adoption::until` and run `backfill`"
    )]
    AdoptionEnded {
        /// The adoption, with its last day.
        until: Adoption,
    },
    /// A column, or one row's value, has an unreadable type.
    #[error("{table}.{column} is {found}, and has to be {expected}")]
    ColumnType {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
        /// The type found.
        found: String,
        /// The types allowed.
        expected: &'static str,
    },
    /// The plaintext column was contracted, so plaintexts written since are not trusted.
    #[error(
        "{table}.{column} was contracted, so its plaintexts are trusted no more: find out what wrote those that are there. \
         If they are genuine, let the service write them again, or delete the row of the job {job:?} from the key \
         store's table of jobs and run `backfill` again"
    )]
    Contracted {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
        /// The job that records the contraction in the key store.
        job: String,
    },
    /// The ciphertext is damaged, or belongs to a place that was not tried.
    #[error(
        "the ciphertext does not authenticate: it was damaged, or it belongs to another row or column than the {tried} that were \
         tried; restore the row from a backup, or find out what wrote it"
    )]
    Damaged {
        /// How many other places were tried.
        tried: usize,
        /// The error in its own place.
        source: encx::Error,
    },
    /// The database failed or refused a statement.
    #[error("the rows could not be read or written: {source}")]
    Database {
        /// The database's error. PostgreSQL's detail, hint and context are removed because they quote rows.
        source: Arc<sqlx::Error>,
        /// Whether a retry may succeed.
        retryable: bool,
    },
    /// A column description is invalid.
    #[error("{what}")]
    Description {
        /// What is wrong with it.
        what: String,
    },
    /// The value does not open in its row and belongs elsewhere.
    #[error("the value belongs elsewhere: {found}")]
    Elsewhere {
        /// Where it belongs.
        found: Elsewhere,
        /// The error in its own row.
        source: encx::Error,
    },
    /// A key, a KMS, the key store or the ciphertext failed.
    #[error(transparent)]
    Encx(#[from] encx::Error),
    /// The database hides sessions of other roles, so open transactions are unknown.
    #[error(
        "the database hides the transactions of {sessions} sessions of other roles, which may have written rows that cannot be \
         counted yet; grant the census's role pg_read_all_stats, and leave track_activities on"
    )]
    HiddenSessions {
        /// The number of hidden sessions.
        sessions: i64,
    },
    /// The ciphertext does not open to the plaintext beside it.
    #[error(
        "the ciphertext holds another value than the plaintext beside it; does something still write the plaintext alone?"
    )]
    Mismatch,
    /// The value is not a ciphertext.
    #[error(transparent)]
    NoCiphertext(CiphertextError),
    /// The column does not exist.
    #[error("table {table} has no column {column:?}; names are taken as they are, upper case too")]
    NoSuchColumn {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
    },
    /// The table does not exist.
    #[error("there is no table {table}; names are taken as they are, upper case too")]
    NoSuchTable {
        /// The table's name in SQL.
        table: String,
    },
    /// The row has a plaintext and no ciphertext.
    #[error("the row has a plaintext and no ciphertext; run `backfill` first")]
    NotBackfilled,
    /// The plaintext column is NOT NULL.
    #[error("{table}.{column} is NOT NULL, and `contract` makes it NULL; drop that constraint first")]
    NotNull {
        /// The table's name in SQL.
        table: String,
        /// The column's name in SQL.
        column: String,
    },
    /// A column needed for the row's encryption context is NULL.
    #[error("the column of the encryption context's pair {pair:?} is NULL in this row")]
    NullContext {
        /// The pair's key.
        pair: String,
    },
    /// Other transactions locked or changed the row on every attempt. Retryable.
    #[error("other transactions hold or change this row all the time")]
    RowBusy,
    /// The database is a standby, which sees neither the primary's transactions nor its latest rows.
    #[error(
        "the database is a standby, and open transactions are known to its primary alone; ask the census there"
    )]
    Standby,
    /// The row's columns do not form an encryption context.
    #[error("this row has no encryption context: {0}")]
    UnfitContext(#[source] encx::ContextError),
}

impl fmt::Debug for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}

impl RowsError {
    /// Tells whether a retry may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database { retryable, .. } => *retryable,
            Self::Encx(error) => error.is_retryable(),
            Self::RowBusy => true,
            _ => false,
        }
    }

    /// Names the kind of failure, as counted in a [job's faults](encx::store::JobStatus::faults).
    ///
    /// [`Rows::verify`](crate::Rows::verify) lists the kinds for rows that do not open.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AdoptionEnded { .. } => "adoption-ended",
            // SQLite reports a value's type without reading the value.
            Self::ColumnType { found, expected, .. } if *expected == BLOB && found == "text" => "plaintext",
            Self::ColumnType { .. } => "unreadable",
            Self::Contracted { .. } => "contracted",
            Self::Damaged { .. } => "damaged",
            Self::Database { retryable, .. } => match retryable {
                true => "store",
                // The database cannot read this one row.
                false => "unreadable",
            },
            Self::Elsewhere { .. } => "elsewhere",
            Self::Encx(error) => JobError::Encx(error.clone()).kind(),
            Self::Mismatch => "mismatch",
            Self::NoCiphertext(error) => match error {
                CiphertextError::NotEncrypted | CiphertextError::TooShort { found: 0, .. } => "plaintext",
                _ => "other-format",
            },
            Self::NotBackfilled => "not-backfilled",
            Self::NullContext { .. } | Self::UnfitContext(_) => "no-context",
            Self::RowBusy => "busy",
            Self::Description { .. }
            | Self::HiddenSessions { .. }
            | Self::NoSuchColumn { .. }
            | Self::NoSuchTable { .. }
            | Self::NotNull { .. }
            | Self::Standby => "other",
        }
    }

    /// Wraps a database error. `is_passing` tells whether the database's error code is temporary.
    pub(crate) fn database(error: sqlx::Error, is_passing: fn(&str) -> bool) -> Self {
        let retryable = may_pass(&error, is_passing);
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
                let (retryable, kind) = (error.is_retryable(), error.kind());
                Self::walk(error, retryable).of_kind(kind)
            }
        }
    }
}
