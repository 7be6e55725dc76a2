//! Checks whether the key store still has the cached keys. Its changes are listed, but deleted and restored rows are
//! not among them.

use std::collections::HashMap;
use std::sync::Arc;

use encx_core::key::DataKeyId;
use encx_core::store::{KeyRecord, StoreError};

use crate::cache::reread::read_again;
use crate::cache::{Cache, Entry};
use crate::error::Error;

/// How many keys one query asks for.
const KEYS_PER_QUERY: usize = 1000;

/// A cached key, as last read.
struct KeyInMemory {
    entry: Arc<Entry>,
    record: Arc<KeyRecord>,
}

/// Reads the rows of all cached keys, and reloads the scopes where a row is missing or different. Skips records that were
/// read since `tick`.
pub(super) async fn check_vanished(cache: &Arc<Cache>, tick: u64) -> Result<(), Error> {
    let mut held: HashMap<DataKeyId, KeyInMemory> = HashMap::new();
    for entry in cache.all_entries() {
        for record in entry.held_records(tick) {
            let entry = Arc::clone(&entry);
            held.insert(record.id, KeyInMemory { entry, record });
        }
    }
    let held: Vec<_> = held.into_values().collect();
    let mut differing = HashMap::new();
    for some in held.chunks(KEYS_PER_QUERY) {
        let ids: Vec<_> = some.iter().map(|held| held.record.id).collect();
        let rows = match cache.ask(cache.store.get(&ids)).await {
            Ok(rows) => rows,
            // Then each scope is read separately: one row that encx did not write must not hide changes of the others.
            Err(StoreError::Corrupt { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let rows: HashMap<_, _> = rows.iter().map(|row| (row.id, row)).collect();
        let changed = some.iter().filter(|held| {
            let row = rows.get(&held.record.id);
            !row.is_some_and(|row| is_same(&held.record, row))
        });
        differing.extend(changed.map(|held| (held.entry.scope, Arc::clone(&held.entry))));
    }
    let entries: Vec<_> = differing.values().cloned().collect();
    read_again(cache, differing).await?;
    for entry in entries {
        let lost = entry.records().and_then(|records| records.active().err());
        if let Some(error) = lost {
            tracing::warn!(target: "encx::store", %error, "the key store has lost a key that is in use");
        }
    }
    Ok(())
}

/// Tells whether a row matches the known record, as far as that decides about the key's use.
fn is_same(known: &KeyRecord, row: &KeyRecord) -> bool {
    row.scope == known.scope
        && row.state == known.state
        && row.revision == known.revision
        && row.wraps.len() == known.wraps.len()
}
