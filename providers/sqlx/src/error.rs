//! Error handling shared by both databases.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use encx_core::store::StoreError;
use sqlx::error::{DatabaseError, ErrorKind};

/// Refuses a URL of another kind of database, by its scheme.
///
/// The drivers ignore the scheme and would try to connect by their own protocol. The rest of the URL may contain a
/// password.
pub(crate) fn check_scheme(
    url: &str,
    schemes: &[&str],
    database: &str,
    example: &str,
) -> Result<(), StoreError> {
    let found = match url.split_once(':') {
        Some((scheme, _)) if schemes.contains(&scheme) => return Ok(()),
        // A scheme as in RFC 3986. The text before any other colon may be part of a password.
        Some((scheme, rest)) if rest.starts_with("//") && is_scheme(scheme) => format!("`{scheme}://`"),
        _ => "something else".to_owned(),
    };
    let what = format!("a {database} URL starts like `{example}`, but this one starts with {found}");
    Err(StoreError::Invalid { what })
}

fn is_scheme(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.'))
}

/// Removes what may quote a row.
///
/// PostgreSQL's errors contain row values in their detail, hint and context (`Failing row contains (..)`), and `Debug`
/// of the driver's error shows them.
#[must_use]
pub fn without_rows(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Database(error) => sqlx::Error::Database(Box::new(Refusal::of(&*error))),
        other => other,
    }
}

/// A database's error, without the values of rows.
#[derive(Debug)]
struct Refusal {
    kind: Kind,
    code: Option<String>,
    message: String,
    table: Option<String>,
    constraint: Option<String>,
}

/// [`ErrorKind`] cannot be cloned.
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
            // Class 22, "data exception", quotes values: `invalid input syntax for type integer: "123-45-6789"`.
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

/// Tells whether the same request may succeed later. `is_passing` recognises the codes of temporary errors.
pub fn may_pass(error: &sqlx::Error, is_passing: fn(&str) -> bool) -> bool {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, WorkerCrashed};
    match error {
        Io(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        other => is_passing(&code_of(other)),
    }
}

/// Returns the database's own error code, or an empty string.
pub(crate) fn code_of(error: &sqlx::Error) -> Cow<'_, str> {
    let refusal = error.as_database_error();
    refusal.and_then(DatabaseError::code).unwrap_or_default()
}

/// Classifies an error: may succeed later, lost a race, or refused.
///
/// `of_code` maps codes with a specific meaning. `is_passing` recognises the codes of temporary errors.
pub(crate) fn store_error_of(
    error: sqlx::Error,
    of_code: fn(&str) -> Option<StoreError>,
    is_passing: fn(&str) -> bool,
) -> StoreError {
    if let Some(meaning) = of_code(&code_of(&error)) {
        return meaning;
    }
    let passing = may_pass(&error, is_passing);
    let error = without_rows(error);
    if passing {
        StoreError::unavailable(error)
    } else {
        StoreError::database(error)
    }
}
