//! A key store's record of one key.

use std::collections::BTreeMap;

use super::{Revision, StoreError};
use crate::context::EncryptionContext;
use crate::key::{DataKeyId, KeyCheck, KeyState, KeyUsage, KeyVersion, KmsName, Scope, WrappedKey};
use crate::timestamp::Timestamp;

/// The check value of a tombstone, which matches no key.
pub(super) const NO_KEY: [u8; 32] = [0; 32];

/// One version of a data key, wrapped, with its state.
///
/// Treat it as a hint: an attacker with write access to the database can change any field. A key is unwrapped under the
/// context that the *caller* names, never under the record's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecord {
    /// The key's id.
    pub id: DataKeyId,
    /// The scope that it belongs to.
    pub scope: Scope,
    /// Its purpose.
    pub usage: KeyUsage,
    /// Its number within the scope.
    pub version: KeyVersion,
    /// Its state.
    pub state: KeyState,
    /// The state to which a suspended key returns; `None` in every other state.
    pub suspended_from: Option<KeyState>,
    /// The pairs of its encryption context, unchecked: see [`verified_context`](Self::verified_context).
    pub context: BTreeMap<String, String>,
    /// The check value that recognises the unwrapped key.
    pub key_check: KeyCheck,
    /// Grows with every change of the record.
    pub revision: Revision,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it first became active.
    pub activated_at: Option<Timestamp>,
    /// When it was last deactivated permanently.
    pub deactivated_at: Option<Timestamp>,
    /// When it was destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// The key's wraps, 1 to 8, sorted by KMS and KEK; none once it is destroyed.
    pub wraps: Vec<StoredWrap>,
}

impl KeyRecord {
    /// Starts a pre-active record of revision 1 without context and wraps. A store fills in the rest from its row.
    #[must_use]
    pub fn new(
        id: DataKeyId,
        scope: Scope,
        usage: KeyUsage,
        version: KeyVersion,
        key_check: KeyCheck,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            scope,
            usage,
            version,
            state: KeyState::PreActive,
            suspended_from: None,
            context: BTreeMap::new(),
            key_check,
            revision: Revision::FIRST,
            created_at,
            activated_at: None,
            deactivated_at: None,
            destroyed_at: None,
            changed_at: created_at,
            wraps: Vec::new(),
        }
    }

    /// Tells whether this is a tombstone, which a shredding leaves for a usage without keys: see
    /// [`NewKey::tombstone`](crate::store::NewKey::tombstone).
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.state == KeyState::Destroyed && self.key_check.to_bytes() == NO_KEY
    }

    /// Tells whether wraps are missing that a version in this state must have.
    #[doc(hidden)]
    #[must_use]
    pub fn lacks_wraps(&self) -> bool {
        self.wraps.is_empty() && self.state != KeyState::Destroyed
    }

    /// Rebuilds the encryption context and checks that it matches the record's scope.
    ///
    /// For jobs that have only the row. A caller that decrypts already has the context.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the pairs are not a context, or not the one of this scope: the row was edited.
    pub fn verified_context(&self) -> Result<EncryptionContext, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt {
            what: format!("data key {}: {what}", self.id),
        };
        let context =
            EncryptionContext::from_pairs(&self.context).map_err(|error| corrupt(&error.to_string()))?;
        if Scope::of(self.usage, &context) != self.scope {
            return Err(corrupt("its encryption context is not the one of its scope"));
        }
        Ok(context)
    }

    /// Checks that a record belongs to the context and usage that the caller asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the row was moved here from another scope, or its context was edited.
    pub fn check_belongs(&self, context: &EncryptionContext, usage: KeyUsage) -> Result<(), StoreError> {
        let same = |(key, value)| self.context.get(key).is_some_and(|found| found == value);
        let belongs = self.usage == usage
            && self.scope == Scope::of(usage, context)
            && self.context.len() == context.pairs().len()
            && context.pairs().all(same);
        if belongs {
            return Ok(());
        }
        tracing::warn!(target: "encx::refused", key = %self.id, "row does not belong to its scope");
        let what = format!(
            "data key {}: its row was edited, or belongs to another encryption context",
            self.id
        );
        Err(StoreError::Corrupt { what })
    }
}

/// A wrap, and the name under which its maker had registered the KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredWrap {
    /// The KMS's name.
    pub kms: KmsName,
    /// The wrapped key.
    pub wrapped: WrappedKey,
}

impl StoredWrap {
    /// Joins a KMS's name and its wrap.
    #[must_use]
    pub fn new(kms: KmsName, wrapped: WrappedKey) -> Self {
        Self { kms, wrapped }
    }
}

/// Tells whether there were keys and all of them are destroyed.
#[doc(hidden)]
#[must_use]
pub fn are_shredded(versions: &[KeyRecord]) -> bool {
    !versions.is_empty()
        && versions
            .iter()
            .all(|version| version.state == KeyState::Destroyed)
}
