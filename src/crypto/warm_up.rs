//! Loads many keyrings before they are needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::cache::{Cache, Entry};
use crate::error::Error;

/// How many contexts one query covers.
const CONTEXTS_PER_QUERY: usize = 1000;

/// The report of [`Crypto::warm_up`](crate::Crypto::warm_up).
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let tenants = [EncryptionContext::from_pairs([("tenantId", "t-42")])?];
/// let report = crypto.warm_up(&tenants).await;
/// for failed in &report.failed {
///     eprintln!("{:?}: {}", tenants[failed.index], failed.error);
/// }
/// # assert!(report.failed.is_empty());
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "only the report lists the contexts that could not be loaded"]
pub struct WarmUpReport {
    /// How many contexts now have their active key cached.
    pub loaded: u64,
    /// How many contexts have no key yet. None was made.
    pub without_keys: u64,
    /// The failures, in the order of the contexts.
    pub failed: Vec<FailedWarmUp>,
}

/// A context whose key could not be loaded.
///
/// ```
/// use encx::FailedWarmUp;
///
/// /// Formats a log line: its place in the list, and why.
/// fn describe(failed: &FailedWarmUp) -> String {
///     format!("context {}: {}", failed.index, failed.error)
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedWarmUp {
    /// The index of the context, from 0.
    pub index: usize,
    /// Why.
    pub error: Error,
}

/// Loads the active keys of entries in parts, so that a part's rows are still fresh when its last key is unwrapped.
pub(super) async fn warm_up(cache: &Arc<Cache>, entries: &[Arc<Entry>]) -> WarmUpReport {
    let mut report = WarmUpReport::default();
    for (number, some) in entries.chunks(CONTEXTS_PER_QUERY).enumerate() {
        warm_up_part(cache, some, number * CONTEXTS_PER_QUERY, &mut report).await;
    }
    report.failed.sort_by_key(|failed| failed.index);
    report
}

async fn warm_up_part(cache: &Arc<Cache>, entries: &[Arc<Entry>], first: usize, report: &mut WarmUpReport) {
    cache.preload(entries).await;
    let (entries, next) = (Arc::new(entries.to_vec()), Arc::new(AtomicUsize::new(0)));
    let (outcomes, mut outcome) = mpsc::unbounded_channel();
    for _ in 0..entries.len().min(cache.keks.max_concurrent_calls) {
        let (of, entries, next, outcomes) = (
            Arc::clone(cache),
            Arc::clone(&entries),
            Arc::clone(&next),
            outcomes.clone(),
        );
        let spawned = cache.spawn(async move {
            while !outcomes.is_closed() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = entries.get(index) else { return };
                let _ = outcomes.send((index, load(&of, entry).await));
            }
        });
        if spawned.is_err() {
            break;
        }
    }
    drop(outcomes);
    let mut is_done = vec![false; entries.len()];
    while let Some((index, loaded)) = outcome.recv().await {
        is_done[index] = true;
        match loaded {
            Ok(true) => report.loaded += 1,
            Ok(false) => report.without_keys += 1,
            Err(error) => report.failed.push(FailedWarmUp {
                index: first + index,
                error,
            }),
        }
    }
    // If there is no runtime, or the `Crypto` was shut down.
    for index in (0..entries.len()).filter(|index| !is_done[*index]) {
        let error = match cache.is_closed() {
            true => Error::ShutDown,
            false if tokio::runtime::Handle::try_current().is_err() => Error::NoRuntime,
            false => Error::Interrupted,
        };
        report.failed.push(FailedWarmUp {
            index: first + index,
            error,
        });
    }
}

/// Loads the active key of an entry. `false` if it has no keys.
async fn load(cache: &Arc<Cache>, entry: &Arc<Entry>) -> Result<bool, Error> {
    let records = cache.current_records(entry).await?;
    // An entry that had a key is not without keys.
    records.active()?;
    if records.is_empty() {
        return Ok(false);
    }
    cache.active_key(entry).await.map(|_| true)
}
