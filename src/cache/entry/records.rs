//! The key store's records of an entry's scope.

use std::sync::Arc;
use std::time::Duration;

use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::{KeyRecord, Revision};

use crate::error::{Error, Location};

/// The greatest version under which this process has encrypted, and the greatest revision of it that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) id: DataKeyId,
    pub(crate) revision: Revision,
}

impl Used {
    /// Merges a version that is now used. Never goes back.
    pub(super) fn with(before: Option<Self>, now: &KeyRecord) -> Self {
        let now = Self {
            id: now.id,
            revision: now.revision,
        };
        now.or_later(before)
    }

    /// Returns the greater of two.
    pub(super) fn or_later(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if (other.id, other.revision) > (self.id, self.revision) => other,
            _ => self,
        }
    }
}

/// All versions of a scope, as one read of the key store returned them.
#[derive(Debug)]
pub(crate) struct Records {
    /// Sorted by id.
    pub(super) list: Vec<Arc<KeyRecord>>,
    /// The clock's time when the read began.
    pub(crate) read_at: Duration,
    /// The read's position in the order of events.
    pub(crate) tick: u64,
    pub(super) used: Option<Used>,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<KeyRecord>> {
        self.list.iter()
    }

    pub(crate) fn find(&self, id: DataKeyId) -> Option<&Arc<KeyRecord>> {
        let at = self.list.binary_search_by_key(&id, |record| record.id).ok()?;
        self.list.get(at)
    }

    /// Returns the active version; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::RolledBack`] if the key store has lost a version under which this process encrypted. Encrypting under
    /// the now active version, or under a new first one, would hide the loss.
    pub(crate) fn active(&self) -> Result<Option<&Arc<KeyRecord>>, Error> {
        let active = self.iter().rfind(|record| record.state == KeyState::Active);
        let Some(used) = self.used else {
            return Ok(active);
        };
        // Promoting a later version is the way to continue after a loss.
        if active.is_some_and(|active| active.id > used.id) {
            return Ok(active);
        }
        let rolled_back = |found| {
            let used = used.id;
            Err(Error::RolledBack { found, used })
        };
        match self.find(used.id) {
            None => rolled_back(active.map(|active| active.id)),
            Some(record) if record.revision < used.revision || record.lacks_wraps() => {
                rolled_back(Some(record.id))
            }
            // A process never encrypts under a smaller id than one that it has used.
            Some(_) => match active {
                Some(active) if active.id < used.id => rolled_back(Some(active.id)),
                active => Ok(active),
            },
        }
    }

    /// Tells whether other records contain all of these, in the same or later revisions.
    pub(super) fn are_followed_by(&self, others: &Self) -> bool {
        self.iter().all(|record| {
            let other = others.find(record.id);
            other.is_some_and(|other| other.revision >= record.revision)
        })
    }

    pub(crate) fn is_shredded(&self) -> bool {
        !self.is_empty() && self.iter().all(|record| record.state == KeyState::Destroyed)
    }

    pub(crate) fn why_none_is_active(&self) -> Error {
        if self.is_shredded() {
            Error::Shredded
        } else {
            Error::NoActiveKey
        }
    }

    /// Returns the error for an id without a version.
    pub(crate) fn why_unknown(&self, id: DataKeyId) -> Error {
        if self.is_shredded() {
            Error::Shredded
        } else if self.used.is_some_and(|used| used.id == id) {
            // The version existed.
            let active = self.iter().rfind(|record| record.state == KeyState::Active);
            let found = active.map(|active| active.id);
            Error::RolledBack { found, used: id }
        } else {
            Error::UnknownKey {
                id,
                at: Location::default(),
            }
        }
    }
}
