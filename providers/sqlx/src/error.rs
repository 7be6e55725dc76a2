//! What both databases share of their errors.

use encx::StoreError;
use sqlx::error::DatabaseError;

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
    if passing {
        StoreError::unavailable(error)
    } else {
        StoreError::database(error)
    }
}
