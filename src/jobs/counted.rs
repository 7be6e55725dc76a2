//! Counts the work of this process's jobs, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use encx_core::store::JobTally;

/// Static, because jobs belong to no `Crypto`, and metrics to the process.
static CHANGED: AtomicU64 = AtomicU64::new(0);
static UNCHANGED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Adds the counts of a range.
pub(super) fn count(tally: JobTally) {
    CHANGED.fetch_add(tally.changed, Ordering::Relaxed);
    UNCHANGED.fetch_add(tally.unchanged, Ordering::Relaxed);
    FAILED.fetch_add(tally.failed, Ordering::Relaxed);
}

/// Returns the counts of all jobs of this process, without dry runs.
#[cfg(feature = "metrics")]
pub(crate) fn items_of_this_process() -> JobTally {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    JobTally::new(load(&CHANGED), load(&UNCHANGED), load(&FAILED))
}
