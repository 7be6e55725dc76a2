//! What the key store said about a slot's scope.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::key::{DataKeyId, KeyState};
use crate::store::KeyRecord;

/// All versions of a scope, as one read of the key store found them.
#[derive(Debug)]
pub(crate) struct Records {
    /// Sorted by id.
    pub(super) list: Vec<Arc<KeyRecord>>,
    /// The clock's time when the read began.
    pub(crate) read_at: Duration,
    /// Where that read stands in the order of events.
    pub(crate) tick: u64,
    /// The greatest version that this slot has encrypted under.
    pub(super) newest_active: Option<DataKeyId>,
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
    pub(crate) fn active(&self) -> Result<Option<&Arc<KeyRecord>>, Error> {
        let Some(active) = self.iter().rfind(|record| record.state == KeyState::Active) else {
            return Ok(None);
        };
        match self.newest_active {
            // A process never encrypts under a smaller id than one that it has used.
            Some(used) if active.id < used => Err(Error::RolledBack {
                found: active.id,
                used,
            }),
            _ => Ok(Some(active)),
        }
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

    pub(crate) fn why_unknown(&self, id: DataKeyId) -> Error {
        if self.is_shredded() {
            Error::Shredded
        } else {
            Error::UnknownKey { id }
        }
    }
}
