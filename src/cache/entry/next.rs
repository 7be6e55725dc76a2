//! An entry's published version that is not active yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::KeyRecord;

use super::state::{State, Tried};
use super::{Entry, Records};
use crate::cache::Limits;

impl Records {
    /// Returns the newest version that is waiting to become active.
    pub(crate) fn next_up(&self) -> Option<&Arc<KeyRecord>> {
        let active = self.active().ok().flatten()?;
        let newest = self.iter().rfind(|record| record.state == KeyState::PreActive)?;
        (newest.id > active.id).then_some(newest)
    }
}

impl State {
    /// Tells whether a key other than the next version's was used since it was unwrapped.
    pub(super) fn is_in_use(&self, next: DataKeyId) -> bool {
        let others = self.keys.iter().filter(|held| held.key.id != next);
        others.map(|held| &held.key).any(|key| key.is_used())
    }

    /// Keeps the next version's key for as long as the others are used.
    pub(super) fn keep_next(&self) {
        let next = self.records.as_ref().and_then(|records| records.next_up());
        if let Some(key) = next.and_then(|next| self.find(next.id))
            && self.is_in_use(key.id)
        {
            key.mark_used();
        }
    }

    pub(super) fn lacks_next(&self, records: &Records) -> bool {
        let next = records.next_up();
        next.is_some_and(|next| self.find(next.id).is_none())
    }
}

impl Entry {
    /// Returns the version to load in advance, and records the attempt. `None` if there is none, if the entry is not in
    /// use, or if it was tried a moment ago. `or_under_way` includes one that is being loaded.
    pub(in crate::cache) fn next_to_load(
        &self,
        now: Duration,
        limits: &Limits,
        or_under_way: bool,
    ) -> Option<DataKeyId> {
        // Without the lock: every entry is asked, and almost none has a version waiting.
        if !self.lacks_next.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        let records = state.records.as_ref()?;
        let (id, revision) = records.next_up().map(|next| (next.id, next.revision))?;
        if state.find(id).is_some() || !state.is_in_use(id) {
            return None;
        }
        let before = state
            .tried
            .as_deref()
            .filter(|tried| (tried.id, tried.revision) == (id, revision));
        if let Some(tried) = before.filter(|tried| now < tried.again_at) {
            return (or_under_way && tried.under_way).then_some(id);
        }
        let tries = before.map_or(0, |tried| tried.tries).saturating_add(1);
        state.tried = Some(Box::new(Tried {
            id,
            revision,
            tries,
            again_at: now.saturating_add(limits.pause_after(tries)),
            under_way: true,
        }));
        Some(id)
    }

    /// Records the end of an attempt to load a version in advance.
    pub(in crate::cache) fn loaded_ahead(&self, id: DataKeyId) {
        let mut state = self.state();
        if let Some(tried) = state.tried.as_mut().filter(|tried| tried.id == id) {
            tried.under_way = false;
        }
    }
}
