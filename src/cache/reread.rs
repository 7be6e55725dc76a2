//! Reloads many entries from the key store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use encx_core::key::Scope;
use encx_core::store::{KeyRecord, StoreError};

use crate::cache::{Cache, Entry};
use crate::error::Error;

/// How many scopes one query reads.
const SCOPES_PER_READ: usize = 1000;

/// How often a read is repeated because another change overtook it.
const MAX_ATTEMPTS: usize = 8;

/// Reloads entries. A read of theirs that is in flight becomes too old.
pub(super) async fn read_again(cache: &Arc<Cache>, entries: HashMap<Scope, Arc<Entry>>) -> Result<(), Error> {
    let mut entries: Vec<_> = entries.into_values().collect();
    let changed = cache.tick();
    for entry in &entries {
        entry.expect_change(changed);
    }
    for _ in 0..MAX_ATTEMPTS {
        if entries.is_empty() {
            return Ok(());
        }
        // The task that announced the overtaking change may fail to read it, so do not rely on it.
        entries = read(cache, &entries).await?;
    }
    for entry in entries {
        entry.forget(cache.tick());
    }
    Ok(())
}

/// Reads the scopes of many entries, a thousand in one query. Returns those that another change overtook.
pub(super) async fn read(cache: &Cache, entries: &[Arc<Entry>]) -> Result<Vec<Arc<Entry>>, Error> {
    let mut overtaken = Vec::new();
    let mut failed = None;
    // A failure for some does not stop the others.
    for some in entries.chunks(SCOPES_PER_READ) {
        match read_together(cache, some, &mut overtaken).await {
            // One row that encx did not write must not hide changes of others' keys.
            Err(Error::Store(StoreError::Corrupt { .. })) => {
                for entry in some {
                    failed = read_alone(cache, entry, &mut overtaken).await.err().or(failed);
                }
            }
            read => failed = read.err().or(failed),
        }
    }
    failed.map_or(Ok(overtaken), Err)
}

async fn read_alone(cache: &Cache, entry: &Arc<Entry>, overtaken: &mut Vec<Arc<Entry>>) -> Result<(), Error> {
    match read_together(cache, std::slice::from_ref(entry), overtaken).await {
        Err(Error::Store(StoreError::Corrupt { .. })) => {
            // Cached keys must not outlive that, and the next caller gets the error.
            entry.forget(cache.tick());
            Ok(())
        }
        read => read,
    }
}

async fn read_together(
    cache: &Cache,
    entries: &[Arc<Entry>],
    overtaken: &mut Vec<Arc<Entry>>,
) -> Result<(), Error> {
    let scopes: Vec<_> = entries.iter().map(|entry| entry.scope).collect();
    let mut rows: HashMap<Scope, Vec<KeyRecord>> = HashMap::new();
    let read = cache.begin_read();
    cache.counters.loads.fetch_add(1, Ordering::Relaxed);
    for row in cache.ask(cache.store.load(&scopes)).await? {
        rows.entry(row.scope).or_default().push(row);
    }
    for entry in entries {
        let rows = rows.remove(&entry.scope).unwrap_or_default();
        match entry.publish_records(cache, rows, read) {
            Ok(records) if entry.is_outdated(&records) => overtaken.push(Arc::clone(entry)),
            Ok(_) => cache.settle(entry),
            // The rows were tampered with: cached keys must not outlive that.
            Err(_) => entry.forget(read.tick),
        }
    }
    Ok(())
}
