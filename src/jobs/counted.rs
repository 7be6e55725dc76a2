//! What the jobs of this process did, counted for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use encx_core::store::JobTally;

/// Jobs belong to no `Crypto`, and metrics to a process: so these do too.
static CHANGED: AtomicU64 = AtomicU64::new(0);
static UNCHANGED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Counts what was done in a range.
pub(super) fn count(tally: JobTally) {
    CHANGED.fetch_add(tally.changed, Ordering::Relaxed);
    UNCHANGED.fetch_add(tally.unchanged, Ordering::Relaxed);
    FAILED.fetch_add(tally.failed, Ordering::Relaxed);
}

/// Returns what all jobs of this process did, dry runs not counted.
#[cfg(feature = "metrics")]
pub(crate) fn items_of_this_process() -> JobTally {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    JobTally::new(load(&CHANGED), load(&UNCHANGED), load(&FAILED))
}
