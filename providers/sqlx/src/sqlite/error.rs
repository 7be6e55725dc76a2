//! Classifies SQLite's errors.

use encx_core::store::StoreError;

use crate::error::{code_of, store_error_of};

/// Classifies an error by SQLite's result code: may succeed later, lost a race, or refused.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        // SQLITE_BUSY, SQLITE_LOCKED
        Some(5 | 6) => StoreError::unavailable(Locked(error)),
        _ => store_error_of(error, of_code, is_passing),
    }
}

/// Another connection locked the key store out. It may be the caller's own.
#[derive(Debug, thiserror::Error)]
#[error(
    "another connection keeps the SQLite database locked: {0}; if that is a transaction of your own, use the encryption \
     context once before it begins, or end it first"
)]
struct Locked(#[source] sqlx::Error);

/// Returns SQLite's primary result code.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = code_of(error).parse().ok()?;
    Some(code & 0xff)
}

pub(super) fn of_code(code: &str) -> Option<StoreError> {
    match code {
        // SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE
        "1555" | "2067" => Some(StoreError::Conflict),
        _ => None,
    }
}

/// Tells by SQLite's code whether the same may succeed later.
#[must_use]
pub fn is_passing(code: &str) -> bool {
    // The low byte is the primary code: SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
    code.parse::<u32>()
        .is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
}
