//! What an entry knows, under its lock.

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
    /// When the records came here, in the order of events.
    pub(super) published: u64,
    /// Reads that began before this are too old to be believed.
    pub(super) not_before: u64,
    pub(super) used: Option<Used>,
    /// A key that is kept although no record of it is known yet.
    pub(super) expected: Option<DataKeyId>,
    /// What was tried to have the next version in memory. Nearly always nothing, in a hundred thousand entries.
    pub(super) tried: Option<Box<Tried>>,
    /// Whether the entry stands among those that have keys.
    pub(super) settled: bool,
}

impl State {
    /// Drops all keys, of which nothing is known, but the one that waits for its record.
    pub(super) fn keep_expected(&mut self) {
        self.keys.retain(|held| self.expected == Some(held.key.id));
    }

    pub(super) fn find(&self, id: DataKeyId) -> Option<&CachedKey> {
        self.keys.iter().map(|held| &held.key).find(|key| key.id == id)
    }
}

/// What was tried to have the next version in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) id: DataKeyId,
    pub(super) revision: Revision,
    pub(super) tries: u32,
    pub(super) again_at: Duration,
    pub(super) under_way: bool,
}
