//! Writes to a key store, and the rules of a key's life cycle that each must follow.

use std::collections::BTreeSet;

use crate::context::EncryptionContext;
use crate::key::{DataKeyId, KeyCheck, KeyState, KeyUsage, KeyVersion, MAX_WRAPS, Scope, WrappedKey};
use crate::store::record::NO_KEY;
use crate::store::{KeyRecord, Revision, StoreError, StoredWrap, Timestamp, are_shredded};

/// A version to add to a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewKey {
    /// The key's id, greater than every id of the scope.
    pub id: DataKeyId,
    /// The scope, computed from usage and context.
    pub scope: Scope,
    /// The key's purpose.
    pub usage: KeyUsage,
    /// The encryption context that selects it.
    pub context: EncryptionContext,
    /// Its number: the one after the scope's last, or 1.
    pub version: KeyVersion,
    /// [`KeyState::PreActive`] or [`KeyState::Active`]; [`KeyState::Destroyed`] for a [tombstone](Self::tombstone).
    pub state: KeyState,
    /// The check value that recognises the unwrapped key.
    pub key_check: KeyCheck,
    /// Its wraps, 1 to 8; none for a tombstone.
    pub wraps: Vec<StoredWrap>,
    /// Whether it may be added to a scope whose versions are all destroyed. Only `KeyManager::revive` sets it.
    pub revives: bool,
    /// The reason, for the audit log. At most 1024 bytes, no control characters; never a secret.
    pub reason: Option<String>,
}

impl NewKey {
    /// Describes the first version of a scope: active, without wraps.
    #[must_use]
    pub fn new(id: DataKeyId, usage: KeyUsage, context: &EncryptionContext, key_check: KeyCheck) -> Self {
        Self {
            id,
            scope: Scope::of(usage, context),
            usage,
            context: context.clone(),
            version: KeyVersion::FIRST,
            state: KeyState::Active,
            key_check,
            wraps: Vec::new(),
            revives: false,
            reason: None,
        }
    }

    /// Describes the tombstone of a scope without versions: version 1, destroyed from the start, without a key and wraps.
    ///
    /// A shredding adds one for each usage that had no key. A concurrent first use expects the scope to be empty, and
    /// so loses its race against the tombstone. [`KeyRecord::is_tombstone`] recognises it.
    #[must_use]
    pub fn tombstone(id: DataKeyId, usage: KeyUsage, context: &EncryptionContext) -> Self {
        Self::new(id, usage, context, KeyCheck::from_bytes(NO_KEY)).with_state(KeyState::Destroyed)
    }

    /// Allows the version in a scope whose versions are all destroyed.
    #[must_use]
    pub fn reviving(mut self) -> Self {
        self.revives = true;
        self
    }

    /// Sets the version's number.
    #[must_use]
    pub fn with_version(mut self, version: KeyVersion) -> Self {
        self.version = version;
        self
    }

    /// Sets the state.
    #[must_use]
    pub fn with_state(mut self, state: KeyState) -> Self {
        self.state = state;
        self
    }

    /// Adds a wrap.
    #[must_use]
    pub fn with_wrap(mut self, wrap: StoredWrap) -> Self {
        self.wraps.push(wrap);
        self
    }

    /// Sets the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Plans the writes that add this key: the new record first, then siblings that change with it.
    ///
    /// `siblings` are all current records of the scope; `at` is the store's clock. Siblings in the plan carry their next
    /// revision: the store must overwrite only the revision before it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if the version is not the next one, if the id is not greater than every other,
    /// if it would be a second active version, or if all others are destroyed and it is not an active one that
    /// [revives](Self::reviving) the scope; [`StoreError::Invalid`] if it could never be added, or if the
    /// reason cannot be stored.
    pub fn plan(&self, siblings: &[KeyRecord], at: Timestamp) -> Result<Vec<KeyRecord>, StoreError> {
        let is_tombstone = match self.state {
            KeyState::PreActive | KeyState::Active => false,
            KeyState::Destroyed => true,
            _ => return Err(invalid("a new key is pre-active or active")),
        };
        if is_tombstone && !(self.wraps.is_empty() && self.key_check.to_bytes() == NO_KEY) {
            return Err(invalid(
                "only a tombstone is added as destroyed: it has no key and no wraps",
            ));
        }
        if Scope::of(self.usage, &self.context) != self.scope {
            return Err(invalid("a key's scope is the one of its usage and context"));
        }
        if !is_tombstone {
            check_wraps(&self.wraps)?;
        }
        check_reason(self.reason.as_deref())?;
        let last = siblings.iter().map(|record| record.version).max();
        let follows = match last {
            None => Some(KeyVersion::FIRST),
            Some(last) => last.next(),
        };
        let grows = siblings.iter().all(|record| record.id < self.id);
        let activates = self.state == KeyState::Active;
        // An operation that began before a shredding must not restore the scope: only an explicit request does.
        if are_shredded(siblings) && !(self.revives && activates) {
            return Err(StoreError::Conflict);
        }
        if follows != Some(self.version) || !grows || (activates && active_of(siblings).is_some()) {
            return Err(StoreError::Conflict);
        }
        let mut record = KeyRecord::new(self.id, self.scope, self.usage, self.version, self.key_check, at);
        record.context = self.context.to_map();
        record.wraps = sorted(&self.wraps);
        record.state = self.state;
        record.activated_at = activates.then_some(at);
        record.destroyed_at = is_tombstone.then_some(at);
        let mut writes = vec![record];
        if activates {
            writes.extend(step_back(siblings, self.id, at));
        }
        Ok(writes)
    }
}

/// A change of one key's state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StateChange {
    /// The key.
    pub id: DataKeyId,
    /// The scope that it must belong to.
    pub scope: Scope,
    /// The revision that the caller last saw.
    pub revision: Revision,
    /// The new state.
    pub to: KeyState,
    /// The reason, for the audit log. At most 1024 bytes, no control characters; never a secret.
    pub reason: Option<String>,
}

impl StateChange {
    /// Asks for a new state of a record as the caller last saw it.
    #[must_use]
    pub fn new(record: &KeyRecord, to: KeyState) -> Self {
        Self {
            id: record.id,
            scope: record.scope,
            revision: record.revision,
            to,
            reason: None,
        }
    }

    /// Sets the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Plans the writes of the change: the changed record first, then siblings that change with it.
    ///
    /// `siblings` are all current records of the scope, including the changed one; `at` is the store's clock. Every
    /// record in the plan carries its next revision: the store must overwrite only the revision before it. A record
    /// without wraps in the plan loses those it had.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::StaleRevision`], [`StoreError::IllegalTransition`],
    /// [`StoreError::Superseded`], or [`StoreError::Invalid`] if the reason cannot be stored.
    pub fn plan(&self, siblings: &[KeyRecord], at: Timestamp) -> Result<Vec<KeyRecord>, StoreError> {
        check_reason(self.reason.as_deref())?;
        let current = siblings
            .iter()
            .find(|record| record.id == self.id && record.scope == self.scope)
            .ok_or(StoreError::NotFound { id: self.id })?;
        check_revision(current, self.revision)?;
        if !current.state.may_become(self.to, current.suspended_from) {
            return Err(StoreError::IllegalTransition {
                id: self.id,
                from: current.state,
                to: self.to,
            });
        }
        let activates = self.to == KeyState::Active;
        let later_was_active = siblings
            .iter()
            .any(|record| record.id > self.id && record.activated_at.is_some());
        if activates && later_was_active {
            return Err(StoreError::Superseded { id: self.id });
        }
        let mut record = touched(current, at);
        record.state = self.to;
        record.suspended_from = (self.to == KeyState::Suspended).then_some(current.state);
        match self.to {
            KeyState::Active => record.activated_at = record.activated_at.or(Some(at)),
            KeyState::Compromised if record.activated_at.is_some() => {
                record.deactivated_at = record.deactivated_at.or(Some(at));
            }
            KeyState::Destroyed => {
                // A suspended key that was active reaches this state without having been deactivated.
                if record.activated_at.is_some() {
                    record.deactivated_at = record.deactivated_at.or(Some(at));
                }
                record.destroyed_at = Some(at);
                record.wraps.clear();
            }
            _ => {}
        }
        let mut writes = vec![record];
        if activates {
            writes.extend(step_back(siblings, self.id, at));
        }
        Ok(writes)
    }
}

/// A new set of wraps for one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WrapChange {
    /// The key.
    pub id: DataKeyId,
    /// The scope that it must belong to.
    pub scope: Scope,
    /// The revision that the caller last saw.
    pub revision: Revision,
    /// All wraps of the key after the change, 1 to 8.
    pub wraps: Vec<StoredWrap>,
    /// The reason, for the audit log. At most 1024 bytes, no control characters; never a secret.
    pub reason: Option<String>,
}

impl WrapChange {
    /// Asks for new wraps of a record as the caller last saw it.
    #[must_use]
    pub fn new(record: &KeyRecord, wraps: Vec<StoredWrap>) -> Self {
        Self {
            id: record.id,
            scope: record.scope,
            revision: record.revision,
            wraps,
            reason: None,
        }
    }

    /// Sets the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Plans the write of the change. `current` is the current record, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::StaleRevision`], or [`StoreError::Invalid`] for a destroyed key, for
    /// wraps that break a rule, and for a reason that cannot be stored.
    pub fn plan(&self, current: Option<&KeyRecord>, at: Timestamp) -> Result<KeyRecord, StoreError> {
        let current = current
            .filter(|record| record.id == self.id && record.scope == self.scope)
            .ok_or(StoreError::NotFound { id: self.id })?;
        check_revision(current, self.revision)?;
        if current.state == KeyState::Destroyed {
            return Err(invalid("a destroyed key takes no wraps"));
        }
        check_wraps(&self.wraps)?;
        check_reason(self.reason.as_deref())?;
        let mut record = touched(current, at);
        record.wraps = sorted(&self.wraps);
        Ok(record)
    }
}

/// The result of one [`WrapChange`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WrapOutcome {
    /// The key.
    pub id: DataKeyId,
    /// The changed record, or why it was not changed.
    pub result: Result<KeyRecord, StoreError>,
}

impl WrapOutcome {
    /// Makes the outcome of one key.
    #[must_use]
    pub fn new(id: DataKeyId, result: Result<KeyRecord, StoreError>) -> Self {
        Self { id, result }
    }
}

/// Makes room for a newly active version: deactivates the active one, and changes the return state of one that was
/// suspended while active to deactivated.
fn step_back(
    siblings: &[KeyRecord],
    activated: DataKeyId,
    at: Timestamp,
) -> impl Iterator<Item = KeyRecord> + '_ {
    siblings
        .iter()
        .filter(move |record| record.id != activated)
        .filter_map(move |record| {
            let mut record = touched(record, at);
            if record.state == KeyState::Active {
                record.state = KeyState::Deactivated;
            } else if record.suspended_from == Some(KeyState::Active) {
                record.suspended_from = Some(KeyState::Deactivated);
            } else {
                return None;
            }
            record.deactivated_at = Some(at);
            Some(record)
        })
}

fn active_of(records: &[KeyRecord]) -> Option<&KeyRecord> {
    records.iter().find(|record| record.state == KeyState::Active)
}

fn touched(record: &KeyRecord, at: Timestamp) -> KeyRecord {
    let mut record = record.clone();
    record.revision = record.revision.next();
    record.changed_at = at;
    record
}

fn check_revision(record: &KeyRecord, expected: Revision) -> Result<(), StoreError> {
    if record.revision == expected {
        Ok(())
    } else {
        Err(StoreError::StaleRevision {
            id: record.id,
            expected,
            found: record.revision,
        })
    }
}

fn check_wraps(wraps: &[StoredWrap]) -> Result<(), StoreError> {
    if wraps.is_empty() || wraps.len() > MAX_WRAPS {
        return Err(invalid("a key has 1 to 8 wraps"));
    }
    if wraps
        .iter()
        .any(|wrap| !(1..=WrappedKey::MAX_LEN).contains(&wrap.wrapped.ciphertext.len()))
    {
        return Err(invalid("a wrap has 1 to 8192 bytes"));
    }
    let unfit = |material: &String| material.len() > 256 || material.contains(char::is_control);
    if wraps
        .iter()
        .any(|wrap| wrap.wrapped.kek_material.as_ref().is_some_and(unfit))
    {
        return Err(invalid(
            "the name of a KEK's material has at most 256 bytes and no control characters",
        ));
    }
    let names: BTreeSet<_> = wraps.iter().map(|wrap| (&wrap.kms, &wrap.wrapped.kek)).collect();
    if names.len() < wraps.len() {
        return Err(invalid("a key has one wrap for each KEK"));
    }
    Ok(())
}

fn check_reason(reason: Option<&str>) -> Result<(), StoreError> {
    if reason.is_some_and(|reason| reason.len() > 1024 || reason.contains(char::is_control)) {
        return Err(invalid(
            "a reason has at most 1024 bytes and no control characters",
        ));
    }
    Ok(())
}

fn sorted(wraps: &[StoredWrap]) -> Vec<StoredWrap> {
    let mut wraps = wraps.to_vec();
    wraps.sort_by(|a, b| (&a.kms, &a.wrapped.kek).cmp(&(&b.kms, &b.wrapped.kek)));
    wraps
}

fn invalid(what: &str) -> StoreError {
    StoreError::Invalid {
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests;
