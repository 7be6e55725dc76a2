//! What both databases share of their errors.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use encx::StoreError;
use sqlx::error::{DatabaseError, ErrorKind};

/// Leaves out what may quote a row.
///
/// PostgreSQL's errors carry it in their detail, hint and context (`Failing row contains (..)`), which `Debug` of the
/// driver's error shows.
pub(crate) fn without_rows(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Database(error) => sqlx::Error::Database(Box::new(Refusal::of(&*error))),
        other => other,
    }
}

/// What a database said, without the values of rows.
#[derive(Debug)]
struct Refusal {
    kind: Kind,
    code: Option<String>,
    message: String,
    table: Option<String>,
    constraint: Option<String>,
}

/// [`ErrorKind`] cannot be copied.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Check,
    ForeignKey,
    NotNull,
    Other,
    Unique,
}

impl Refusal {
    fn of(error: &dyn DatabaseError) -> Self {
        let code = error.code().map(Cow::into_owned);
        let message = match &code {
            // Class 22, "data exception": `invalid input syntax for type integer: "123-45-6789"`.
            Some(code) if code.len() == 5 && code.starts_with("22") => {
                "a value has not the form that its type asks for".to_owned()
            }
            _ => error.message().to_owned(),
        };
        let kind = match error.kind() {
            ErrorKind::CheckViolation => Kind::Check,
            ErrorKind::ForeignKeyViolation => Kind::ForeignKey,
            ErrorKind::NotNullViolation => Kind::NotNull,
            ErrorKind::UniqueViolation => Kind::Unique,
            _ => Kind::Other,
        };
        Self {
            kind,
            code,
            message,
            table: error.table().map(str::to_owned),
            constraint: error.constraint().map(str::to_owned),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Refusal {}

impl DatabaseError for Refusal {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.code.as_deref().map(Cow::Borrowed)
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    fn kind(&self) -> ErrorKind {
        match self.kind {
            Kind::Check => ErrorKind::CheckViolation,
            Kind::ForeignKey => ErrorKind::ForeignKeyViolation,
            Kind::NotNull => ErrorKind::NotNullViolation,
            Kind::Other => ErrorKind::Other,
            Kind::Unique => ErrorKind::UniqueViolation,
        }
    }
}

/// Tells apart what may succeed later, what lost a race, and what was refused.
///
/// `of_code` knows the codes that have a meaning of their own, and `is_passing` those after which the same request
/// may succeed.
pub(crate) fn store_error_of(
    error: sqlx::Error,
    of_code: fn(&str) -> Option<StoreError>,
    is_passing: fn(&str) -> bool,
) -> StoreError {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, WorkerCrashed};
    let passing = match &error {
        Io(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        other => {
            let refusal = other.as_database_error();
            let code = refusal.and_then(DatabaseError::code).unwrap_or_default();
            if let Some(meaning) = of_code(&code) {
                return meaning;
            }
            is_passing(&code)
        }
    };
    let error = without_rows(error);
    if passing {
        StoreError::unavailable(error)
    } else {
        StoreError::database(error)
    }
}
