//! State that processes share, besides keys: the rows of leases, jobs, processes and counts.

use std::collections::BTreeMap;

use encx_core::store::{JobRange, JobStatus, Lease, ProcessCounts, ProcessId, ProcessRecord, Timestamp};

/// The leases, jobs, processes and counts of a store.
#[derive(Default)]
pub(super) struct SharedWork {
    pub(super) leases: BTreeMap<String, (ProcessId, Lease)>,
    pub(super) jobs: BTreeMap<String, Job>,
    pub(super) processes: BTreeMap<ProcessId, ProcessRecord>,
    pub(super) fence: i64,
    /// By the number of the day.
    pub(super) counts: BTreeMap<i64, ProcessCounts>,
}

pub(super) struct Job {
    pub(super) status: JobStatus,
    /// The number of ranges so far.
    pub(super) ranges: i64,
    /// The incomplete ranges, and when their claims end.
    pub(super) claimed: BTreeMap<i64, (Timestamp, JobRange)>,
}

impl Job {
    pub(super) fn begin(name: &str, run: i64, plan: &str) -> Self {
        let mut status = JobStatus::new(name, run);
        plan.clone_into(&mut status.plan);
        Self {
            status,
            ranges: 0,
            claimed: BTreeMap::new(),
        }
    }
}

impl SharedWork {
    /// Returns a job if its run is still this one.
    pub(super) fn running(&mut self, name: &str, run: i64) -> Option<&mut Job> {
        let job = self.jobs.get_mut(name)?;
        (job.status.run == run && !job.status.finished).then_some(job)
    }
}
