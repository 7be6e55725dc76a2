//! Unwraps keys again before they expire, so that no request waits when they do.
//!
//! The sweeper checks every key when it is due, and hands over those that were used. Each key's moment is drawn from the
//! last part of its lifetime, so that keys that were loaded together are not refreshed together.

use std::collections::HashMap;
use std::sync::Arc;

use encx_core::key::DataKeyId;

use crate::cache::entry::Due;
use crate::cache::reread::read;
use crate::cache::{Cache, Records};
use crate::error::Error;

impl Due {
    fn records(&self) -> Option<Arc<Records>> {
        self.entry
            .records()
            .filter(|records| records.find(self.id).is_some())
    }

    /// Records no answer for a KMS that is known not to answer. `false` if it can be asked.
    fn is_hopeless(&self, cache: &Cache) -> bool {
        let records = self.records();
        let record = records.as_ref().and_then(|records| records.find(self.id));
        let Some(error) = record.and_then(|record| cache.keks.circuits_open(record)) else {
            return false;
        };
        self.entry.note_failure(cache, self.id, &error);
        true
    }
}

/// Unwraps keys again: one query for those whose rows were read too long ago, then the KMS calls,
/// a limited number at once.
pub(super) async fn refresh(cache: Arc<Cache>, mut due: Vec<Due>) {
    // Without a query, and so without cost during an outage, however many keys there are.
    due.retain(|due| !due.is_hopeless(&cache));
    let unread = due
        .iter()
        .filter(|due| due.records().is_some_and(|records| !cache.is_fresh(&records)));
    let unread: HashMap<_, _> = unread
        .map(|due| (due.entry.scope, Arc::clone(&due.entry)))
        .collect();
    if unread.len() > 1 {
        let unread: Vec<_> = unread.into_values().collect();
        tokio::select! {
            // Rows that it does not return are read for each key separately.
            _ = read(&cache, &unread) => {}
            () = cache.clock.sleep(cache.limits.load_timeout) => {}
        }
    }
    for due in due {
        let cache_of_task = Arc::clone(&cache);
        let spawned = cache.tasks.spawn(async move {
            // Never closed. Requests must find permits of the KMS too, however many keys are due.
            let permit = cache_of_task.refreshes.acquire().await;
            if due.is_hopeless(&cache_of_task) {
                return;
            }
            let refreshed = cache_of_task
                .refresh_key(&due.entry, due.id, due.expires_at)
                .await;
            drop(permit);
            note_refresh(&cache_of_task, due.id, refreshed);
        });
        if spawned.is_err() {
            return;
        }
    }
}

fn note_refresh(cache: &Cache, id: DataKeyId, refreshed: Result<bool, Error>) {
    match refreshed {
        Ok(true) => cache.counters.count(&cache.counters.refreshes),
        // It is gone, or another task refreshed it.
        Ok(false) => {}
        Err(Error::ShutDown) => {}
        Err(error) => {
            cache.counters.count(&cache.counters.failed_refreshes);
            tracing::warn!(target: "encx::cache", key = %id, %error, "refreshing a key failed");
        }
    }
}
