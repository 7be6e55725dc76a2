//! The bounds of parameters of leases, jobs and the registry.

use crate::store::StoreError;

/// The longest term, 366 days, in microseconds.
pub(super) const LONGEST_TERM: i64 = 366 * 86_400_000_000;

/// The greatest length of a plan or a position, in bytes.
pub(super) const MAX_BYTES: usize = 8192;

pub(super) fn check(fits: bool, rule: &str) -> Result<(), StoreError> {
    if fits {
        return Ok(());
    }
    Err(StoreError::Invalid {
        what: rule.to_owned(),
    })
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=200).contains(&name.len()) && !name.contains(char::is_control)
}
