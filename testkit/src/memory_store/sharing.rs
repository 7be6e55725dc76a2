//! Leases, jobs and the registry in memory, under one lock, with the behaviour of the databases.

use std::sync::MutexGuard;
use std::time::Duration;

use async_trait::async_trait;
use encx_core::store::{
    DailyCounts, Fence, JobFaults, JobRange, JobStatus, JobStore, JobTally, KeyHint, Lease, Leases,
    ProcessCounts, ProcessId, ProcessInfo, ProcessList, ProcessRecord, ProcessRegistry, RangeClaim,
    StoreError, Timestamp,
};

use super::shared_work::{Job, SharedWork};
use super::{MemoryKeyStore, lock};

/// An hour, in microseconds.
const AN_HOUR: i64 = 3_600_000_000;

impl MemoryKeyStore {
    fn shared_work(&self) -> Result<(MutexGuard<'_, SharedWork>, Timestamp), StoreError> {
        self.check_available()?;
        // Not a write's time, which may run ahead of the clock: a claim ends exactly when the clock says so.
        let now = Timestamp::from_micros(self.now());
        Ok((lock(&self.0.shared_work), now))
    }
}

fn end(now: Timestamp, term: Duration) -> Timestamp {
    Timestamp::from_micros(now.as_micros().saturating_add(Lease::term_micros(term)))
}

#[async_trait]
impl Leases for MemoryKeyStore {
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        Lease::check_name(name)?;
        let (mut work, now) = self.shared_work()?;
        let number = match work.leases.get(name) {
            None => 1,
            Some((last, lease)) if *last == holder => lease.term,
            Some((_, lease)) if lease.until <= now => lease.term + 1,
            Some(_) => return Ok(None),
        };
        let lease = Lease::new(now, end(now, term), number);
        work.leases.insert(name.to_owned(), (holder, lease));
        Ok(Some(lease))
    }

    async fn release_lease(&self, name: &str, holder: ProcessId) -> Result<(), StoreError> {
        Lease::check_name(name)?;
        let (mut work, _) = self.shared_work()?;
        if let Some((last, lease)) = work.leases.get_mut(name)
            && *last == holder
        {
            lease.until = lease.since;
        }
        Ok(())
    }
}

#[async_trait]
impl JobStore for MemoryKeyStore {
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError> {
        JobStatus::check_name(name)?;
        JobStatus::check_plan(plan)?;
        let (mut work, _) = self.shared_work()?;
        let run = match work.jobs.get(name) {
            Some(job) if !job.status.finished && job.status.plan == plan => return Ok(job.status.clone()),
            Some(job) => job.status.run + 1,
            None => 1,
        };
        let job = Job::begin(name, run, plan);
        let status = job.status.clone();
        work.jobs.insert(name.to_owned(), job);
        Ok(status)
    }

    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError> {
        JobStatus::check_name(name)?;
        let (work, _) = self.shared_work()?;
        Ok(work.jobs.get(name).map(|job| job.status.clone()))
    }

    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError> {
        JobStatus::check_name(&run.name)?;
        let (mut work, now) = self.shared_work()?;
        let Some(job) = work.running(&run.name, run.run) else {
            return Ok(RangeClaim::Finished);
        };
        if let Some((until, range)) = job.claimed.values_mut().find(|(until, _)| *until <= now) {
            *until = end(now, term);
            range.holder = holder;
            return Ok(RangeClaim::Range(range.clone()));
        }
        if job.status.at_end {
            return Ok(RangeClaim::Wait);
        }
        Ok(RangeClaim::Frontier(job.status.frontier.clone()))
    }

    async fn extend_job(
        &self,
        run: &JobStatus,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<JobRange>, StoreError> {
        JobStatus::check_name(&run.name)?;
        JobRange::check_position(after)?;
        JobRange::check_position(upto)?;
        let (mut work, now) = self.shared_work()?;
        let Some(job) = work.running(&run.name, run.run) else {
            return Ok(None);
        };
        if job.status.at_end || job.status.frontier.as_deref() != after {
            return Ok(None);
        }
        match upto {
            Some(upto) => job.status.frontier = Some(upto.to_vec()),
            None => job.status.at_end = true,
        }
        job.ranges += 1;
        let mut range = JobRange::new(run, job.ranges, holder);
        range.after = after.map(<[u8]>::to_vec);
        range.upto = upto.map(<[u8]>::to_vec);
        job.claimed.insert(range.number, (end(now, term), range.clone()));
        Ok(Some(range))
    }

    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        let (mut work, now) = self.shared_work()?;
        let job = work.running(&range.job, range.run);
        let claim = job.and_then(|job| job.claimed.get_mut(&range.number));
        match claim {
            Some((until, claimed)) if claimed.holder == range.holder => {
                *until = end(now, term);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn complete_range(
        &self,
        range: &JobRange,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        let (mut work, now) = self.shared_work()?;
        let Some(job) = work.running(&range.job, range.run) else {
            return Ok(false);
        };
        let claim = job.claimed.get(&range.number);
        if claim.is_none_or(|(_, claimed)| claimed.holder != range.holder) {
            return Ok(false);
        }
        job.claimed.remove(&range.number);
        job.status.tally += tally;
        job.status.faults.merge(faults.clone());
        job.status.completed_at = Some(now);
        job.status.finished = job.status.at_end && job.claimed.is_empty();
        Ok(true)
    }
}

#[async_trait]
impl ProcessRegistry for MemoryKeyStore {
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError> {
        process.check()?;
        let (mut work, now) = self.shared_work()?;
        let mut kept = process.clone();
        kept.serves_for = Duration::from_micros(process.serves_for_micros().unsigned_abs());
        work.processes
            .entry(process.id)
            .and_modify(|record| {
                record.info = kept.clone();
                record.seen_at = now;
            })
            .or_insert_with(|| ProcessRecord::new(kept, now, now, Fence::NONE));
        Ok(Fence::new(work.fence))
    }

    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError> {
        let (mut work, _) = self.shared_work()?;
        let raised = Fence::new(work.fence);
        // A fence that was never raised cannot have been followed.
        if fence <= raised
            && let Some(record) = work.processes.get_mut(&process)
        {
            record.acknowledged = record.acknowledged.max(fence);
        }
        Ok(())
    }

    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError> {
        let (mut work, _) = self.shared_work()?;
        work.processes.remove(&process);
        Ok(())
    }

    async fn raise_fence(&self) -> Result<Fence, StoreError> {
        let fence = {
            let (mut work, _) = self.shared_work()?;
            work.fence += 1;
            Fence::new(work.fence)
        };
        self.hint(KeyHint::Fence(fence));
        Ok(fence)
    }

    async fn list_processes(&self) -> Result<ProcessList, StoreError> {
        let (mut work, now) = self.shared_work()?;
        work.processes.retain(|_, record| {
            let forgotten = record.info.serves_for_micros().saturating_add(AN_HOUR);
            now.as_micros().saturating_sub(record.seen_at.as_micros()) <= forgotten
        });
        Ok(ProcessList::new(now, work.processes.values().cloned().collect()))
    }

    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError> {
        let (mut work, now) = self.shared_work()?;
        let today = DailyCounts::number_of(now);
        let day = work.counts.entry(today).or_default();
        counts.iter().for_each(|(what, count)| day.add(what, count));
        work.counts
            .retain(|day, _| *day > today.saturating_sub(DailyCounts::KEPT_DAYS));
        Ok(())
    }

    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError> {
        let (work, now) = self.shared_work()?;
        let kept = DailyCounts::number_of(now)
            .saturating_sub(DailyCounts::KEPT_DAYS)
            .saturating_add(1);
        let first = DailyCounts::number_of(since).max(kept);
        let days = work.counts.range(first..);
        let days = days.filter(|(_, counts)| !counts.is_empty());
        Ok(days
            .map(|(day, counts)| DailyCounts::new(*day, counts.clone()))
            .collect())
    }
}
