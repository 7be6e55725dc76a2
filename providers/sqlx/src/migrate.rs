//! What both databases share of their migrations: the numbering, and what a wrong number means.
//!
//! Not sqlx's own migrator: that locks with session state, which a transaction pooler loses, and prepares for
//! tables of the user's.

use encx::StoreError;

/// Says what to do about tables of another version than `current`, the one that this library works with.
///
/// `found` is the number of the last migration that ran, 0 if none did.
///
/// # Errors
///
/// [`StoreError::NotMigrated`] if the numbers differ.
pub(crate) fn check(found: i64, current: i64) -> Result<(), StoreError> {
    let found = match found {
        found if found == current => return Ok(()),
        found if found < 1 => "no tables".to_owned(),
        found if found < current => format!("version {found}, older than this library's {current}"),
        found => newer(found, current),
    };
    Err(StoreError::NotMigrated { found })
}

/// Refuses to migrate tables that a newer library made.
///
/// # Errors
///
/// [`StoreError::NotMigrated`] if `found` is greater than `current`.
pub(crate) fn check_not_newer(found: i64, current: i64) -> Result<(), StoreError> {
    if found > current {
        return Err(StoreError::NotMigrated {
            found: newer(found, current),
        });
    }
    Ok(())
}

fn newer(found: i64, current: i64) -> String {
    format!("version {found}, newer than this library's {current}: update the library")
}
