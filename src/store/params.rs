//! What is asked of a key store, and what each request means: the rules of the key's life, in one place.

use std::collections::BTreeSet;

use crate::context::EncryptionContext;
use crate::key::{
    DataKeyId, KekId, KeyCheck, KeyState, KeyUsage, KeyVersion, KmsName, MAX_WRAPS, Scope, WrappedKey,
};
use crate::store::{KeyRecord, Revision, StoreError, StoredWrap, Timestamp};

/// A version to add to a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewKey {
    /// The key's id, greater than every id of the scope.
    pub id: DataKeyId,
    /// The scope, computed from usage and context.
    pub scope: Scope,
    /// What the key is for.
    pub usage: KeyUsage,
    /// The encryption context that chooses it.
    pub context: EncryptionContext,
    /// Its number: the one after the scope's last, or 1.
    pub version: KeyVersion,
    /// [`KeyState::PreActive`] or [`KeyState::Active`].
    pub state: KeyState,
    /// What recognises the unwrapped key.
    pub key_check: KeyCheck,
    /// Its wrapped forms, 1 to 8.
    pub wraps: Vec<StoredWrap>,
}

impl NewKey {
    /// Describes the first version of a scope, active at once, without wraps.
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
        }
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

    /// Works out what adding this key writes: the new record first, then siblings that change with it.
    ///
    /// `siblings` are all records of the scope, as they are now; `at` is the store's clock. Siblings in the
    /// answer carry their next revision: the store writes them only over the one before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if the version is not the one that follows, if the id is not greater than every
    /// other, or if it would be a second active one; [`StoreError::Invalid`] if it could never be added.
    pub fn plan(&self, siblings: &[KeyRecord], at: Timestamp) -> Result<Vec<KeyRecord>, StoreError> {
        if !matches!(self.state, KeyState::PreActive | KeyState::Active) {
            return Err(invalid("a new key is pre-active or active"));
        }
        if Scope::of(self.usage, &self.context) != self.scope {
            return Err(invalid("a key's scope is the one of its usage and context"));
        }
        check_wraps(&self.wraps)?;
        let last = siblings.iter().map(|record| record.version).max();
        let follows = match last {
            None => Some(KeyVersion::FIRST),
            Some(last) => last.next(),
        };
        let grows = siblings.iter().all(|record| record.id < self.id);
        let activates = self.state == KeyState::Active;
        if follows != Some(self.version) || !grows || (activates && active_of(siblings).is_some()) {
            return Err(StoreError::Conflict);
        }
        let mut record = KeyRecord::new(self.id, self.scope, self.usage, self.version, self.key_check, at);
        record.context = self.context.to_map();
        record.wraps = sorted(&self.wraps);
        record.state = self.state;
        record.activated_at = activates.then_some(at);
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
    /// The revision that the caller has seen.
    pub revision: Revision,
    /// The state to go to.
    pub to: KeyState,
    /// Why, for the audit log. At most 1024 bytes, no control characters; never a secret.
    pub reason: Option<String>,
}

impl StateChange {
    /// Asks for a new state of a record as the caller has seen it.
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

    /// Says why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Works out what the change writes: the changed record first, then siblings that change with it.
    ///
    /// `siblings` are all records of the scope, the changed one among them, as they are now; `at` is the
    /// store's clock. Every record in the answer carries its next revision: the store writes it only over
    /// the one before. A record without wraps in the answer loses those it had.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::StaleRevision`], [`StoreError::IllegalTransition`],
    /// [`StoreError::Superseded`], or [`StoreError::Invalid`] for a reason that cannot be kept.
    pub fn plan(&self, siblings: &[KeyRecord], at: Timestamp) -> Result<Vec<KeyRecord>, StoreError> {
        let unfit = |reason: &String| reason.len() > 1024 || reason.contains(char::is_control);
        if self.reason.as_ref().is_some_and(unfit) {
            return Err(invalid(
                "a reason has at most 1024 bytes and no control characters",
            ));
        }
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
                // From suspended, a key that was active ends here without having been deactivated.
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
    /// The revision that the caller has seen.
    pub revision: Revision,
    /// All wraps that the key has afterwards, 1 to 8.
    pub wraps: Vec<StoredWrap>,
}

impl WrapChange {
    /// Asks for new wraps of a record as the caller has seen it.
    #[must_use]
    pub fn new(record: &KeyRecord, wraps: Vec<StoredWrap>) -> Self {
        Self {
            id: record.id,
            scope: record.scope,
            revision: record.revision,
            wraps,
        }
    }

    /// Works out what the change writes. `current` is the record as it is now, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::StaleRevision`], or [`StoreError::Invalid`] for a destroyed key and
    /// for wraps that break a rule.
    pub fn plan(&self, current: Option<&KeyRecord>, at: Timestamp) -> Result<KeyRecord, StoreError> {
        let current = current
            .filter(|record| record.id == self.id && record.scope == self.scope)
            .ok_or(StoreError::NotFound { id: self.id })?;
        check_revision(current, self.revision)?;
        if current.state == KeyState::Destroyed {
            return Err(invalid("a destroyed key takes no wraps"));
        }
        check_wraps(&self.wraps)?;
        let mut record = touched(current, at);
        record.wraps = sorted(&self.wraps);
        Ok(record)
    }
}

/// What became of one [`WrapChange`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WrapOutcome {
    /// The key.
    pub id: DataKeyId,
    /// The record afterwards, or why it was left alone.
    pub result: Result<KeyRecord, StoreError>,
}

impl WrapOutcome {
    /// Reports on one key.
    #[must_use]
    pub fn new(id: DataKeyId, result: Result<KeyRecord, StoreError>) -> Self {
        Self { id, result }
    }
}

/// Which keys to list. Everything that is not set matches every key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyQuery {
    /// The most records in a page, 1 to 1000.
    pub limit: u32,
    /// Only keys whose id is greater.
    pub after: Option<DataKeyId>,
    /// Only keys of this scope.
    pub scope: Option<Scope>,
    /// Only keys for this.
    pub usage: Option<KeyUsage>,
    /// Only keys in one of these states; empty for all.
    pub states: Vec<KeyState>,
    /// Only keys that have a wrap by this KEK of this KMS.
    pub wrapped_by: Option<(KmsName, KekId)>,
    /// Only keys that became active before this moment.
    pub activated_before: Option<Timestamp>,
}

impl KeyQuery {
    /// Asks for all keys, at most `limit` a page. A limit outside 1 to 1000 is moved into it.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit: limit.clamp(1, 1000),
            after: None,
            scope: None,
            usage: None,
            states: Vec::new(),
            wrapped_by: None,
            activated_before: None,
        }
    }

    /// Goes on after a page: pass its [`KeyPage::next`].
    #[must_use]
    pub fn after(mut self, id: DataKeyId) -> Self {
        self.after = Some(id);
        self
    }

    /// Asks for one scope.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Asks for one usage.
    #[must_use]
    pub fn usage(mut self, usage: KeyUsage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds a state to those asked for.
    #[must_use]
    pub fn state(mut self, state: KeyState) -> Self {
        self.states.push(state);
        self
    }

    /// Asks for keys that a KEK wraps.
    #[must_use]
    pub fn wrapped_by(mut self, kms: KmsName, kek: KekId) -> Self {
        self.wrapped_by = Some((kms, kek));
        self
    }

    /// Asks for keys that became active before a moment.
    #[must_use]
    pub fn activated_before(mut self, moment: Timestamp) -> Self {
        self.activated_before = Some(moment);
        self
    }

    /// Tells whether a record belongs into the list. Stores whose database does not filter use it.
    #[must_use]
    pub fn matches(&self, record: &KeyRecord) -> bool {
        let wrapped_by = |(kms, kek): &(KmsName, KekId)| {
            record
                .wraps
                .iter()
                .any(|wrap| wrap.kms == *kms && wrap.wrapped.kek == *kek)
        };
        self.after.is_none_or(|after| record.id > after)
            && self.scope.is_none_or(|scope| record.scope == scope)
            && self.usage.is_none_or(|usage| record.usage == usage)
            && (self.states.is_empty() || self.states.contains(&record.state))
            && self.wrapped_by.as_ref().is_none_or(wrapped_by)
            && self
                .activated_before
                .is_none_or(|moment| record.activated_at.is_some_and(|at| at < moment))
    }
}

/// A page of keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys, in the order of their ids.
    pub records: Vec<KeyRecord>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<DataKeyId>,
}

impl KeyPage {
    /// Makes a page of what a query found when it asked for one record more than its limit.
    #[must_use]
    pub fn of_one_more(mut records: Vec<KeyRecord>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|record| record.id);
        Self { records, next }
    }
}

/// Where a poll for changes goes on. Only the store that made it can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeCursor(CursorPosition);

/// What a [`ChangeCursor`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CursorPosition {
    /// Changes at or after `at`; of those at `at` itself only keys with a greater id than `after`.
    At {
        /// The moment.
        at: Timestamp,
        /// The last id seen of that moment, if any was.
        after: Option<DataKeyId>,
        /// Where to go back to once there is no more, for a store whose commits may appear out of order: a
        /// poll of several pages must not go on behind what could still appear when it began.
        back_to: Option<Timestamp>,
    },
    /// Only changes that are made from now on.
    Now,
    /// All there ever were.
    Start,
}

impl ChangeCursor {
    /// Begins with changes that are made from now on, for a process that has nothing in memory yet.
    #[must_use]
    pub fn now() -> Self {
        Self(CursorPosition::Now)
    }

    /// Begins with all changes there ever were.
    #[must_use]
    pub fn start() -> Self {
        Self(CursorPosition::Start)
    }

    /// Makes the cursor of a page. For stores.
    #[must_use]
    pub fn at(at: Timestamp, after: Option<DataKeyId>) -> Self {
        Self(CursorPosition::At {
            at,
            after,
            back_to: None,
        })
    }

    /// Makes the cursor of a page that is not the last, and remembers where the poll goes back to after the last.
    /// For stores.
    #[must_use]
    pub fn at_and_back_to(at: Timestamp, after: DataKeyId, back_to: Timestamp) -> Self {
        Self(CursorPosition::At {
            at,
            after: Some(after),
            back_to: Some(back_to),
        })
    }

    /// Decides where a poll goes on after a page: never behind `horizon`, where changes may still appear. For stores.
    ///
    /// `last` is the time and the id of the page's last row, or where this cursor stands if the page had none. A row
    /// whose time lies behind the horizon is listed again by the next poll: so whoever edits a time into the future
    /// hides nothing that is written later.
    ///
    /// In the midst of several pages the poll must go on behind the horizon all the same, and remembers in the cursor
    /// where to go back to; the horizon of the last page would not do, for whoever took long between the pages.
    #[must_use]
    pub fn following(&self, last: (Timestamp, Option<DataKeyId>), horizon: Timestamp, more: bool) -> Self {
        let back_to = match self.0 {
            CursorPosition::At { back_to, .. } => back_to,
            CursorPosition::Now | CursorPosition::Start => None,
        };
        match (last, back_to) {
            ((at, Some(after)), Some(back_to)) if more => Self::at_and_back_to(at, after, back_to),
            ((at, Some(after)), None) if more && at > horizon => Self::at_and_back_to(at, after, horizon),
            ((at, after), None) if at <= horizon => Self::at(at, after),
            (_, back_to) => Self::at(back_to.unwrap_or(horizon), None),
        }
    }

    /// Returns what the cursor stands for. For stores.
    #[must_use]
    pub fn position(&self) -> CursorPosition {
        self.0
    }
}

/// One change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyChange {
    /// The key.
    pub id: DataKeyId,
    /// Its scope.
    pub scope: Scope,
    /// Its state now.
    pub state: KeyState,
    /// Its revision now.
    pub revision: Revision,
}

impl KeyChange {
    /// Reports a key as it is now.
    #[must_use]
    pub fn new(id: DataKeyId, scope: Scope, state: KeyState, revision: Revision) -> Self {
        Self {
            id,
            scope,
            state,
            revision,
        }
    }
}

/// A page of changes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangePage {
    /// The changes. Some may have been listed before.
    pub changes: Vec<KeyChange>,
    /// Where to go on.
    pub next: ChangeCursor,
    /// Whether to go on at once: there was more than fits a page.
    pub more: bool,
}

impl ChangePage {
    /// Puts a page together.
    #[must_use]
    pub fn new(changes: Vec<KeyChange>, next: ChangeCursor, more: bool) -> Self {
        Self { changes, next, more }
    }
}

/// Makes room for a newly active version: the active one is deactivated, and one that was suspended while
/// active will come back deactivated.
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
