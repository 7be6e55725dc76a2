//! What goes wrong with rows.

use std::fmt;
use std::sync::Arc;

use encx::CiphertextError;
use encx::jobs::JobError;
use encx_sqlx::__private::{may_pass, without_rows};

use crate::adoption::Adoption;
use crate::fault::Elsewhere;

/// What a column of ciphertexts has to be in a row of SQLite.
pub(crate) const BLOB: &str = "a blob";

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
    /// The ciphertext is damaged, or belongs to a place that was not tried.
    #[error(
        "the ciphertext does not authenticate: it was damaged, or it belongs to another row or column than the {tried} that were \
         tried; restore the row from a backup, or find out what wrote it"
    )]
    Damaged {
        /// In how many other places it was tried.
        tried: usize,
        /// How it was refused in its own.
        source: encx::Error,
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
    /// The value does not open in its row, and belongs elsewhere.
    #[error("the value belongs elsewhere: {found}")]
    Elsewhere {
        /// Where it belongs.
        found: Elsewhere,
        /// How it was refused in its own row.
        source: encx::Error,
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
    /// The value is no ciphertext.
    #[error(transparent)]
    NoCiphertext(CiphertextError),
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
    /// The values of a row's columns are no encryption context.
    #[error("this row has no encryption context: {0}")]
    UnfitContext(#[source] encx::ContextError),
}

impl fmt::Debug for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
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

    /// Names the kind of failure, as the faults of a [job](encx::store::JobStatus::faults) count it. [`Rows::verify`](crate::Rows::verify)
    /// lists the kinds of rows that do not open.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AdoptionEnded { .. } => "adoption-ended",
            // Of what type a value is that is no blob, SQLite tells without reading it.
            Self::ColumnType { found, expected, .. } if *expected == BLOB && found == "text" => "plaintext",
            Self::ColumnType { .. } => "unreadable",
            Self::Contracted { .. } => "contracted",
            Self::Damaged { .. } => "damaged",
            Self::Database { retryable, .. } => match retryable {
                true => "store",
                // Of one row, which the database cannot read.
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

    /// Tells apart what may succeed later. `is_passing` knows the database's codes after which it may.
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
