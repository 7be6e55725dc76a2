//! Unwraps versions that are published but not yet active, so that no request waits when they become active.
//!
//! Only for entries in use. From then on such a key is kept and refreshed like a used one.

use std::sync::Arc;
use std::time::Duration;

use encx_core::key::{DataKeyId, KeyState};
use tokio::sync::mpsc;

use crate::cache::Cache;
use crate::cache::entry::Entry;
use crate::error::Error;

/// How long an acknowledgement waits for keys to load: a KMS that hangs must not keep other processes from learning
/// that a withdrawn key is gone.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cache {
    /// Starts to load due versions, without waiting.
    pub(super) fn begin_prefetch(self: &Arc<Self>) {
        let due = due(self, false);
        if !due.is_empty() {
            // An error means that there is nothing left to do.
            let _ = start(self, due);
        }
    }

    /// Loads due versions, and waits for them and for those already loading, up to a limit.
    pub(super) async fn prefetch_now(self: &Arc<Self>) {
        let due = due(self, true);
        if due.is_empty() {
            return;
        }
        if let Ok(mut under_way) = start(self, due) {
            tokio::select! {
                // `None` once each task has dropped its sender.
                _ = under_way.recv() => {}
                () = self.clock.sleep(PATIENCE) => {}
            }
        }
    }
}

fn due(cache: &Cache, and_under_way: bool) -> Vec<(Arc<Entry>, DataKeyId)> {
    let now = cache.clock.elapsed();
    let entries = cache.entries.iter().map(|(_, entry)| entry);
    entries
        .filter_map(|entry| {
            let id = entry.next_to_load(now, &cache.limits, and_under_way)?;
            Some((entry, id))
        })
        .collect()
}

fn start(cache: &Arc<Cache>, due: Vec<(Arc<Entry>, DataKeyId)>) -> Result<mpsc::Receiver<()>, Error> {
    let (ends, under_way) = mpsc::channel::<()>(1);
    for (entry, id) in due {
        let (cache_of_task, end) = (Arc::clone(cache), ends.clone());
        cache.tasks.spawn(async move {
            let _end = end;
            // Never closed. Requests must find permits of the KMS too, however many keys are due.
            let permit = cache_of_task.refreshes.acquire().await;
            let loaded = load_one(&cache_of_task, &entry, id).await;
            drop(permit);
            entry.loaded_ahead(id);
            if let Err(error) = loaded {
                tracing::warn!(
                    target: "encx::cache", key = %id, %error,
                    "loading a version that is about to become active failed; it is retried"
                );
            }
        })?;
    }
    Ok(under_way)
}

async fn load_one(cache: &Arc<Cache>, entry: &Arc<Entry>, id: DataKeyId) -> Result<(), Error> {
    let Some(mut records) = entry.records() else {
        return Ok(());
    };
    if !cache.is_fresh(&records) {
        records = cache.reload(entry).await?;
    }
    let waiting = records
        .find(id)
        .filter(|record| record.state == KeyState::PreActive);
    let Some(record) = waiting else { return Ok(()) };
    if let Some(error) = cache.keks.circuits_open(record) {
        return Err(error);
    }
    let key = cache.unwrap(entry, record, Duration::ZERO).await?;
    // So that it is refreshed even if it has not been used when it is about to expire.
    key.mark_used();
    Ok(())
}
