//! Lists keys and their changes, one page at a time.

use std::collections::BTreeMap;

use crate::key::{DataKeyId, KekId, KeyState, KeyUsage, KmsName, Scope};
use crate::store::{KeyRecord, Revision, Timestamp};

/// Which keys to list. A filter that is not set matches every key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyQuery {
    /// The greatest number of records in a page, 1 to 1000.
    pub limit: u32,
    /// Only keys with a greater id.
    pub after: Option<DataKeyId>,
    /// Only keys of this scope.
    pub scope: Option<Scope>,
    /// Only keys of this usage.
    pub usage: Option<KeyUsage>,
    /// Only keys in one of these states; empty for all.
    pub states: Vec<KeyState>,
    /// Only keys that have a wrap by this KEK of this KMS.
    pub wrapped_by: Option<(KmsName, KekId)>,
    /// Only keys that became active before this moment.
    pub activated_before: Option<Timestamp>,
    /// Only keys whose encryption context has all of these pairs, and possibly others.
    pub context: BTreeMap<String, String>,
}

impl KeyQuery {
    /// Asks for all keys, at most `limit` a page. The limit is clamped to 1 to 1000.
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
            context: BTreeMap::new(),
        }
    }

    /// Continues after a page: pass its [`KeyPage::next`].
    #[must_use]
    pub fn after(mut self, id: DataKeyId) -> Self {
        self.after = Some(id);
        self
    }

    /// Restricts the query to one scope.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Restricts the query to one usage.
    #[must_use]
    pub fn usage(mut self, usage: KeyUsage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds a state to list.
    #[must_use]
    pub fn state(mut self, state: KeyState) -> Self {
        self.states.push(state);
        self
    }

    /// Restricts the query to keys that a KEK wraps.
    #[must_use]
    pub fn wrapped_by(mut self, kms: KmsName, kek: KekId) -> Self {
        self.wrapped_by = Some((kms, kek));
        self
    }

    /// Restricts the query to keys that became active before a moment.
    #[must_use]
    pub fn activated_before(mut self, moment: Timestamp) -> Self {
        self.activated_before = Some(moment);
        self
    }

    /// Restricts the query to keys whose encryption context has this pair, and every other pair that is set. A second
    /// value for a key replaces the first.
    ///
    /// Use it to look for keys, not to choose a key for a row: the row itself determines its context.
    ///
    /// ```
    /// use encx_core::store::KeyQuery;
    ///
    /// let query = KeyQuery::new(100).context_pair("tenantId", "t-42").context_pair("purpose", "pii");
    /// ```
    #[must_use]
    pub fn context_pair(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }

    /// Tells whether a record matches. For stores whose database does not filter.
    #[must_use]
    pub fn matches(&self, record: &KeyRecord) -> bool {
        let wrapped_by = |(kms, kek): &(KmsName, KekId)| {
            record
                .wraps
                .iter()
                .any(|wrap| wrap.kms == *kms && wrap.wrapped.kek == *kek)
        };
        let in_context = |(key, value): (&String, &String)| record.context.get(key) == Some(value);
        self.after.is_none_or(|after| record.id > after)
            && self.context.iter().all(in_context)
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
    /// Makes a page from a query for one record more than the limit.
    #[must_use]
    pub fn of_one_more(mut records: Vec<KeyRecord>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|record| record.id);
        Self { records, next }
    }
}

/// The position from which a poll for changes continues. Only the store that made it can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeCursor(CursorPosition);

/// The position of a [`ChangeCursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CursorPosition {
    /// Changes at or after `at`; of those at `at` itself, only keys with a greater id than `after`.
    At {
        /// The moment.
        at: Timestamp,
        /// The last id seen at that moment, if any.
        after: Option<DataKeyId>,
        /// Where to return after the last page, for a store whose commits may appear out of order: a poll of several
        /// pages must not skip changes that could still appear when it began.
        back_to: Option<Timestamp>,
    },
    /// Only changes from now on.
    Now,
    /// All changes.
    Start,
}

impl ChangeCursor {
    /// Starts with changes from now on, for a process with an empty cache.
    #[must_use]
    pub fn now() -> Self {
        Self(CursorPosition::Now)
    }

    /// Starts with all changes.
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

    /// Makes the cursor of a page that is not the last, and remembers where the poll returns after
    /// the last page. For stores.
    #[must_use]
    pub fn at_and_back_to(at: Timestamp, after: DataKeyId, back_to: Timestamp) -> Self {
        Self(CursorPosition::At {
            at,
            after: Some(after),
            back_to: Some(back_to),
        })
    }

    /// Decides where a poll continues after a page: never after `horizon`, where changes may still appear. For stores.
    ///
    /// `last` is the time and the id of the page's last row, or this cursor's position if the page had none. A row
    /// whose time is after the horizon is listed again by the next poll, so editing a row's time into the future cannot
    /// hide later changes.
    ///
    /// Between several pages the poll must go past the horizon all the same, and the cursor remembers where to return.
    /// The horizon of the last page would not do, because the poll may have been slow between the pages.
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

    /// Returns the cursor's position. For stores.
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
    /// Its current state.
    pub state: KeyState,
    /// Its current revision.
    pub revision: Revision,
}

impl KeyChange {
    /// Reports the current state of a key.
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
    /// Where to continue.
    pub next: ChangeCursor,
    /// Whether to continue at once, because more changes exist than fit into a page.
    pub more: bool,
}

impl ChangePage {
    /// Makes a page.
    #[must_use]
    pub fn new(changes: Vec<KeyChange>, next: ChangeCursor, more: bool) -> Self {
        Self { changes, next, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_never_goes_on_behind_what_may_still_appear() {
        let at = Timestamp::from_micros;
        let id = DataKeyId::generate(1, None).unwrap();
        let (early, horizon, late) = (at(10), at(20), at(30));
        let next = |last, back_to: Option<Timestamp>, more| {
            let cursor = match back_to {
                Some(back_to) => ChangeCursor::at_and_back_to(at(1), id, back_to),
                None => ChangeCursor::start(),
            };
            cursor.following(last, horizon, more)
        };
        let seen = ChangeCursor::at(early, Some(id));
        assert_eq!(next((early, Some(id)), None, false), seen);
        assert_eq!(next((early, Some(id)), None, true), seen);
        assert_eq!(
            next((late, Some(id)), None, false),
            ChangeCursor::at(horizon, None)
        );
        let within = ChangeCursor::at_and_back_to(late, id, horizon);
        assert_eq!(next((late, Some(id)), None, true), within);
        // A poll that began with the horizon at 12 returns there, however late it is now.
        let kept = ChangeCursor::at_and_back_to(late, id, at(12));
        assert_eq!(next((late, Some(id)), Some(at(12)), true), kept);
        assert_eq!(
            next((late, Some(id)), Some(at(12)), false),
            ChangeCursor::at(at(12), None)
        );
        let kept = ChangeCursor::at_and_back_to(early, id, at(5));
        assert_eq!(next((early, Some(id)), Some(at(5)), true), kept);
        // If the clock is set back, the poll goes back too.
        assert_eq!(next((late, None), None, false), ChangeCursor::at(horizon, None));
    }
}
