//! Faults of stores with leases, jobs, the registry and the audit log.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use encx::keys::KeyState;
use encx::store::{
    AuditLog, AuditPage, AuditQuery, DailyCounts, Fence, JobFaults, JobRange, JobStatus, JobStore, JobTally,
    Lease, Leases, ProcessCounts, ProcessId, ProcessInfo, ProcessList, ProcessRegistry, RangeClaim,
    StoreError, Timestamp,
};

use super::{Broken, Fault};

/// State of the faults besides the memory store.
#[derive(Debug, Default)]
pub(super) struct Memories {
    holder: Option<ProcessId>,
    claimed: Option<JobRange>,
    tally: JobTally,
    acknowledged: HashMap<ProcessId, Fence>,
    last_counts: ProcessCounts,
}

impl Broken {
    /// Replaces a run by the current one of its job.
    async fn current(&self, run: &JobStatus) -> Result<JobStatus, StoreError> {
        let mut current = run.clone();
        if self.is(Fault::ServesOldRuns)
            && let Some(job) = self.inner.job(&run.name).await?
        {
            current.run = job.run;
        }
        Ok(current)
    }
}

#[async_trait]
impl Leases for Broken {
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let mut lease = self.inner.acquire_lease(name, holder, term).await?;
        match (&mut lease, self.fault) {
            (None, Fault::TwoHoldALease) => {
                let at = Timestamp::from_micros(0);
                lease = Some(Lease::new(at, at, 2));
            }
            (Some(lease), Fault::TermsOfLeasesStand) => lease.term = 1,
            (Some(_), _) if name != "clock" => self.memories.lock().unwrap().holder = Some(holder),
            _ => {}
        }
        Ok(lease)
    }

    async fn release_lease(&self, name: &str, holder: ProcessId) -> Result<(), StoreError> {
        let holds = self.memories.lock().unwrap().holder;
        let holder = holds
            .filter(|_| self.is(Fault::AnyoneReleasesALease))
            .unwrap_or(holder);
        self.inner.release_lease(name, holder).await
    }
}

#[async_trait]
impl JobStore for Broken {
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError> {
        if self.is(Fault::JoinsUnderAnyPlan)
            && let Some(job) = self.inner.job(name).await?
        {
            return Ok(job);
        }
        self.inner.open_job(name, plan).await
    }

    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError> {
        let mut job = self.inner.job(name).await?;
        if let Some(job) = &mut job {
            job.tally += self.memories.lock().unwrap().tally;
            match self.fault {
                Fault::FinishesBeforeTheLastRange => job.finished = job.at_end,
                Fault::NeverFinishes => job.finished = false,
                _ => {}
            }
        }
        Ok(job)
    }

    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError> {
        let run = self.current(run).await?;
        let claim = self.inner.claim_range(&run, holder, term).await?;
        let mut memories = self.memories.lock().unwrap();
        Ok(match (claim, self.fault) {
            (RangeClaim::Range(_), Fault::LosesAbandonedRanges) => RangeClaim::Wait,
            (RangeClaim::Range(range), _) => {
                memories.claimed = Some(range.clone());
                RangeClaim::Range(range)
            }
            (RangeClaim::Frontier(after), Fault::GivesARangeToTwo) => match memories.claimed.clone() {
                Some(range) => RangeClaim::Range(range),
                None => RangeClaim::Frontier(after),
            },
            (other, _) => other,
        })
    }

    async fn extend_job(
        &self,
        run: &JobStatus,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<JobRange>, StoreError> {
        let run = self.current(run).await?;
        let term = if self.is(Fault::ClaimsEndAtOnce) {
            Duration::ZERO
        } else {
            term
        };
        let range = self.inner.extend_job(&run, after, upto, holder, term).await?;
        if range.is_none() && self.is(Fault::ExtendsFromAnywhere) {
            let job = self.inner.job(&run.name).await?;
            let frontier = job.and_then(|job| job.frontier);
            return self
                .inner
                .extend_job(&run, frontier.as_deref(), upto, holder, term)
                .await;
        }
        Ok(range)
    }

    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError> {
        let kept = self.inner.keep_range(range, term).await?;
        Ok(kept || self.is(Fault::KeepsWhatIsLost))
    }

    async fn complete_range(
        &self,
        range: &JobRange,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, StoreError> {
        let told = if self.is(Fault::ForgetsFaults) {
            &JobFaults::default()
        } else {
            faults
        };
        let completed = self.inner.complete_range(range, tally, told).await?;
        let counts = match self.fault {
            Fault::CountsWhatIsLost => !completed,
            Fault::CountsTwice => completed,
            _ => false,
        };
        if counts {
            self.memories.lock().unwrap().tally += tally;
        }
        Ok(completed || self.is(Fault::CompletesTwice))
    }
}

#[async_trait]
impl ProcessRegistry for Broken {
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError> {
        self.inner.heartbeat(process).await
    }

    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError> {
        self.memories.lock().unwrap().acknowledged.insert(process, fence);
        self.inner.acknowledge(process, fence).await
    }

    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError> {
        if self.is(Fault::ForgetsNoProcess) {
            return Ok(());
        }
        self.inner.deregister(process).await
    }

    async fn raise_fence(&self) -> Result<Fence, StoreError> {
        let fence = self.inner.raise_fence().await?;
        Ok(match self.fault {
            Fault::TwoRaiseOneFence => Fence::new(fence.get() / 2 + 1),
            _ => fence,
        })
    }

    async fn list_processes(&self) -> Result<ProcessList, StoreError> {
        let mut list = self.inner.list_processes().await?;
        for process in &mut list.processes {
            let memories = self.memories.lock().unwrap();
            let last = memories.acknowledged.get(&process.info.id);
            match (self.fault, last) {
                (Fault::AcknowledgesAnEarlierFence, Some(last)) => process.acknowledged = *last,
                (Fault::HeartbeatsBeginAnew, _) => process.started_at = process.seen_at,
                _ => {}
            }
        }
        Ok(list)
    }

    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError> {
        self.memories.lock().unwrap().last_counts = counts.clone();
        self.inner.add_counts(counts).await
    }

    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError> {
        let mut days = self.inner.daily_counts(since).await?;
        if self.is(Fault::CountsOverwrite) {
            for day in &mut days {
                day.counts = self.memories.lock().unwrap().last_counts.clone();
            }
        }
        Ok(days)
    }
}

#[async_trait]
impl AuditLog for Broken {
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let mut query = query.clone();
        if self.is(Fault::AuditIgnoresTheEnd) {
            query.until = None;
        }
        let mut page = self.inner.audit_page(&query).await?;
        if self.is(Fault::AuditLeavesOutDemotions) {
            page.entries.retain(|entry| entry.to != KeyState::Deactivated);
        }
        Ok(page)
    }
}
