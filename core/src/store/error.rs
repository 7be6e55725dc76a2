//! How a key store fails.

use std::sync::Arc;

use crate::causes::debug_as_text;
use crate::key::{DataKeyId, KeyState};
use crate::store::Revision;

/// Says why a key store could not do what was asked.
///
/// Cheap to clone. A database's own error is its `source()`.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else added a version first, or the scope has an active version already.
    #[error("another process changed this scope's keys first; load them again")]
    Conflict,
    /// A row is not what encx writes.
    #[error("the key store holds something that encx did not write: {what}")]
    Corrupt {
        /// Which row, and what is wrong with it. Never a secret.
        what: String,
    },
    /// The database refused, for a reason that is not covered by another variant.
    #[error("the key store's database refused: {source}")]
    Database {
        /// The database's own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The key may not go from the state it has to the one asked for.
    #[error("data key {id} is {from} and cannot become {to}")]
    IllegalTransition {
        /// The key.
        id: DataKeyId,
        /// The state it has.
        from: KeyState,
        /// The state asked for.
        to: KeyState,
    },
    /// What was to be written breaks a rule of the contract.
    #[error("the key store refuses this: {what}")]
    Invalid {
        /// The rule.
        what: String,
    },
    /// There is no such key.
    #[error("there is no data key {id} in this scope")]
    NotFound {
        /// The key asked for.
        id: DataKeyId,
    },
    /// The database has no tables of encx, or those of another version.
    #[error("the key store's tables are missing or of another version ({found}); call `migrate()`")]
    NotMigrated {
        /// What was found.
        found: String,
    },
    /// Somebody else changed the key first.
    #[error(
        "data key {id} has revision {found}, not {expected}: another process changed it first; load it again"
    )]
    StaleRevision {
        /// The key.
        id: DataKeyId,
        /// The revision that the caller had seen.
        expected: Revision,
        /// The revision that it has.
        found: Revision,
    },
    /// A later version was active already. Encryption never goes back to an earlier one.
    #[error("data key {id} is older than one that was active already; promote a later version")]
    Superseded {
        /// The key asked for.
        id: DataKeyId,
    },
    /// The database did not answer, or not in time. Retryable.
    #[error("the key store is unavailable: {source}")]
    Unavailable {
        /// The database's own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store does not do this.
    #[error("this key store does not support {what}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
}

debug_as_text!(StoreError);

impl StoreError {
    /// Says that the database did not answer.
    pub fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable {
            source: Arc::new(source),
        }
    }

    /// Says that the database refused.
    pub fn database(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Database {
            source: Arc::new(source),
        }
    }

    /// Tells whether the same request may succeed later without a change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Tells whether the caller lost a race: loading again and deciding anew is then the answer.
    #[must_use]
    pub fn is_lost_race(&self) -> bool {
        matches!(self, Self::Conflict | Self::StaleRevision { .. })
    }
}
