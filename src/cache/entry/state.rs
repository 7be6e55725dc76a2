//! An entry's state, which its lock protects.

use std::sync::Arc;
use std::time::Duration;

use encx_core::key::DataKeyId;
use encx_core::store::Revision;

use super::records::{Records, Used};
use super::refresh_schedule::ScheduledKey;
use crate::cache::CachedKey;

#[derive(Default)]
pub(super) struct State {
    pub(super) records: Option<Arc<Records>>,
    pub(super) keys: Vec<ScheduledKey>,
    /// When the records arrived here, in the order of events.
    pub(super) published: u64,
    /// Reads that began before this are too old to use.
    pub(super) not_before: u64,
    pub(super) used: Option<Used>,
    /// A key that is kept although its record is not known yet.
    pub(super) expected: Option<DataKeyId>,
    /// The attempt to cache the next version. Boxed: almost always `None`.
    pub(super) tried: Option<Box<Tried>>,
    /// Whether the entry is among those with keys.
    pub(super) settled: bool,
}

impl State {
    /// Drops all keys, except the one that waits for its record: without records nothing is known about them.
    pub(super) fn keep_expected(&mut self) {
        self.keys.retain(|held| self.expected == Some(held.key.id));
    }

    pub(super) fn find(&self, id: DataKeyId) -> Option<&CachedKey> {
        self.keys.iter().map(|held| &held.key).find(|key| key.id == id)
    }
}

/// An attempt to cache the next version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) id: DataKeyId,
    pub(super) revision: Revision,
    pub(super) tries: u32,
    pub(super) again_at: Duration,
    pub(super) under_way: bool,
}
