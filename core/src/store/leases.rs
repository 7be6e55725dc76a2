//! Leases: names that one process at a time holds.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::bounds::{LONGEST_TERM, check, is_name};
use super::processes::ProcessId;
use crate::store::{StoreError, Timestamp};

/// Leases, each held by one process at a time. A lease ends by itself.
///
/// No connection or transaction is held between two calls. Times are the store's clock. A lease ends at the moment that
/// its term ends; a term is at most 366 days. A lease's name has 1 to 200 bytes and no control characters; anything
/// else is [`StoreError::Invalid`]. Stores check with [`Lease::check_name`].
///
/// # Errors
///
/// Every method: [`StoreError::Invalid`] for a name that breaks a bound, [`StoreError::Unavailable`],
/// [`StoreError::NotMigrated`], [`StoreError::Corrupt`] or [`StoreError::Database`].
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future. A write is then either done or not done.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the trait documents the errors once")]
pub trait Leases: fmt::Debug + Send + Sync {
    /// Takes a lease for `term`, or extends the one that `holder` has. `None` if another process holds it.
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError>;

    /// Releases a lease early. Does nothing if `holder` does not hold it.
    async fn release_lease(&self, name: &str, holder: ProcessId) -> Result<(), StoreError>;
}

/// A lease that a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// When it was taken or last extended.
    pub since: Timestamp,
    /// When it ends unless it is extended.
    pub until: Timestamp,
    /// Grows by one whenever the lease changes holders. Writes under a smaller term are outdated.
    pub term: i64,
}

impl Lease {
    /// Describes a lease. For stores.
    #[must_use]
    pub const fn new(since: Timestamp, until: Timestamp, term: i64) -> Self {
        Self { since, until, term }
    }

    /// Checks a lease's name. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] unless it has 1 to 200 bytes and no control characters.
    pub fn check_name(name: &str) -> Result<(), StoreError> {
        let rule = "a lease's name has 1 to 200 bytes and no control characters";
        check(is_name(name), rule)
    }

    /// Returns the term of a lease or a claim in microseconds, at most 366 days. For stores.
    #[must_use]
    pub fn term_micros(term: Duration) -> i64 {
        i64::try_from(term.as_micros()).map_or(LONGEST_TERM, |micros| micros.min(LONGEST_TERM))
    }
}
