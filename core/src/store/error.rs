//! Errors of a key store.

use std::sync::Arc;

use crate::causes::debug_as_text;
use crate::key::{DataKeyId, KeyState};
use crate::store::Revision;

/// Why a key store could not do what was asked.
///
/// Cheap to clone. A database's own error is its `source()`.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process added a version first, or the scope already has an active version.
    #[error("another process changed this scope's keys first; load them again")]
    Conflict,
    /// A row is not one that encx writes.
    #[error("the key store holds something that encx did not write: {what}")]
    Corrupt {
        /// Which row, and what is wrong with it. Never a secret.
        what: String,
    },
    /// The database refused, for a reason that no other variant covers.
    #[error("the key store's database refused: {source}")]
    Database {
        /// The database's own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The key cannot change from its state to the requested one.
    #[error("data key {id} is {from} and cannot become {to}")]
    IllegalTransition {
        /// The key.
        id: DataKeyId,
        /// The key's state.
        from: KeyState,
        /// The requested state.
        to: KeyState,
    },
    /// The request breaks a rule of the contract.
    #[error("the key store refuses this: {what}")]
    Invalid {
        /// The rule.
        what: String,
    },
    /// The key does not exist.
    #[error("there is no data key {id} in this scope")]
    NotFound {
        /// The requested key.
        id: DataKeyId,
    },
    /// The database has no tables of encx, or has those of another version.
    #[error("the key store's tables are missing or of another version ({found}); call `migrate()`")]
    NotMigrated {
        /// What was found.
        found: String,
    },
    /// Another process changed the key first.
    #[error(
        "data key {id} has revision {found}, not {expected}: another process changed it first; load it again"
    )]
    StaleRevision {
        /// The key.
        id: DataKeyId,
        /// The revision that the caller last saw.
        expected: Revision,
        /// The key's revision now.
        found: Revision,
    },
    /// A later version has already been active. Encryption never returns to an earlier one.
    #[error("data key {id} is older than one that was active already; promote a later version")]
    Superseded {
        /// The requested key.
        id: DataKeyId,
    },
    /// The database did not answer in time. Retryable.
    #[error("the key store is unavailable: {source}")]
    Unavailable {
        /// The database's own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store does not support this.
    #[error("this key store does not support {what}")]
    Unsupported {
        /// The unsupported request.
        what: &'static str,
    },
}

debug_as_text!(StoreError);

impl StoreError {
    /// Makes the error of a database that did not answer.
    pub fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable {
            source: Arc::new(source),
        }
    }

    /// Makes the error of a database that refused.
    pub fn database(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Database {
            source: Arc::new(source),
        }
    }

    /// Tells whether the same request may succeed later unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Tells whether the caller lost a race and should load and decide again.
    #[must_use]
    pub fn is_lost_race(&self) -> bool {
        matches!(self, Self::Conflict | Self::StaleRevision { .. })
    }
}
