//! The counts that a process reports to the key store.

use encx_core::store::{Counted, ProcessCounts};

use crate::cache::Stats;

/// Converts a process's counts to the names that key stores keep.
pub(super) fn counts_of(stats: &Stats) -> ProcessCounts {
    let mut counts = ProcessCounts::new();
    counts.add(Counted::Decrypts, stats.decrypts);
    counts.add(Counted::Encrypts, stats.encrypts);
    counts.add(Counted::Hits, stats.hits);
    counts.add(Counted::Misses, stats.misses);
    let refused = stats.refused;
    for refusals in [
        refused.authentication,
        refused.key_row,
        refused.key_state,
        refused.suite,
        refused.unknown_key,
    ] {
        counts.add(Counted::Refusals, refusals);
    }
    for of in stats.kms.iter().flat_map(|kms| &kms.operations) {
        counts.add(Counted::KmsCalls(of.operation), of.calls());
        counts.add(Counted::KmsFailures(of.operation), of.failures());
    }
    counts
}

/// Returns how much counts have grown.
pub(super) fn growth(since: &ProcessCounts, now: &ProcessCounts) -> ProcessCounts {
    let mut grown = ProcessCounts::new();
    for (what, count) in now.iter() {
        grown.add(what, count.saturating_sub(since.get(what)));
    }
    grown
}
