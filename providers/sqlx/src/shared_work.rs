//! Leases, jobs and the process registry, for both databases. Each write is one short transaction.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use async_trait::async_trait;
use encx_core::store::{
    Counted, DailyCounts, Fence, JobFault, JobFaults, JobRange, JobStatus, JobStore, JobTally, Lease, Leases,
    ProcessCounts, ProcessId, ProcessInfo, ProcessList, ProcessRecord, ProcessRegistry, RangeClaim,
    StoreError, Timestamp,
};
use uuid::Uuid;

use crate::columns::{StoredRow, of_table, unreadable};

/// What is bound to a parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    Bytes(Option<&'v [u8]>),
    Id(ProcessId),
    Integer(i64),
    OptionalText(Option<&'v str>),
    Text(&'v str),
}

/// The tables of a key store.
pub(crate) trait Tables: Send + Sync + 'static {
    type Row: StoredRow;
    type Write: Write<Row = Self::Row>;
    const STATEMENTS: Statements;

    /// Checks that the tables are of this version.
    fn ready(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Runs a statement that reads.
    fn read(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Begins a transaction that writes. It is rolled back if it is dropped.
    fn begin(&self) -> impl Future<Output = Result<Self::Write, StoreError>> + Send;
}

/// A transaction that writes.
pub(crate) trait Write: Send {
    type Row: StoredRow;

    /// Runs a statement that returns at most one row.
    fn row(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<Self::Row>, StoreError>> + Send;

    /// Runs a statement, and returns the number of rows written.
    fn run(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The statements, with their parameters in order. Terms and other durations are in microseconds, and begin at the
/// database's time.
pub(crate) struct Statements {
    /// Name, holder, term. Returns `since`, `until`, `term`; no row if another holds it.
    pub(crate) acquire_lease: &'static str,
    /// Name, holder.
    pub(crate) release_lease: &'static str,
    /// Name, plan. Returns `run`; no row if an existing job was joined.
    pub(crate) begin_job: &'static str,
    /// Name, the new run.
    pub(crate) delete_old_ranges: &'static str,
    /// Name, the new run.
    pub(crate) delete_old_faults: &'static str,
    /// Name.
    pub(crate) job: &'static str,
    /// Takes the range whose claim ended first. Job, run, holder, term. Returns `number`, `after`, `upto`.
    pub(crate) claim_range: &'static str,
    /// Job, run, after, up to. Returns `number`; no row if the frontier is elsewhere. Only one of several racing
    /// workers moves it; the others then find it moved.
    pub(crate) move_frontier: &'static str,
    /// Job, run, number, after, up to, holder, term.
    pub(crate) insert_range: &'static str,
    /// Job, run, number, holder, term.
    pub(crate) keep_range: &'static str,
    /// Counts a range before it is deleted, in the same transaction; starting the job again locks in the same order.
    /// The count tells which range is the last. Looking at the ranges would not: two concurrent transactions do not
    /// see each other's deletions.
    ///
    /// Job, run, changed, unchanged, failed.
    pub(crate) count_range: &'static str,
    /// Job, run, number, holder.
    pub(crate) delete_range: &'static str,
    /// Job, run, faults as a JSON array of arrays: kind, number of items, examples.
    pub(crate) set_faults: &'static str,
    /// Id, name, how long it serves keys, version. Returns `fence`; no row if it is not registered.
    pub(crate) heartbeat: &'static str,
    /// Like `heartbeat`.
    pub(crate) register: &'static str,
    /// Removes processes that have been silent for an hour longer than they could serve a key.
    pub(crate) forget: &'static str,
    /// Id, fence. A fence that was never raised cannot be acknowledged.
    pub(crate) acknowledge: &'static str,
    /// Id.
    pub(crate) deregister: &'static str,
    /// Returns `number`.
    pub(crate) raise_fence: &'static str,
    /// Returns a row with `now` even without processes.
    pub(crate) processes: &'static str,
    /// Today's counts as a JSON object of numbers.
    pub(crate) add_counts: &'static str,
    /// The number of days kept.
    pub(crate) delete_old_counts: &'static str,
    /// The first day, as days since 1970, and the number of days kept. Returns `day`, `what`, `count`.
    pub(crate) daily_counts: &'static str,
}

/// The tables of a key store, and what processes share in them.
#[derive(Clone)]
pub(crate) struct SharedWork<T>(pub(crate) T);

impl<T> Deref for SharedWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for SharedWork<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWork").finish_non_exhaustive()
    }
}

impl<T: Tables> SharedWork<T> {
    const SQL: Statements = T::STATEMENTS;

    async fn begin_write(&self) -> Result<T::Write, StoreError> {
        self.0.ready().await?;
        self.0.begin().await
    }

    /// Runs one statement in its own transaction, and returns its row if there is one.
    async fn write_row(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<T::Row>, StoreError> {
        let mut write = self.begin_write().await?;
        let row = write.row(statement, values).await?;
        write.commit().await?;
        Ok(row)
    }

    /// Runs one statement in its own transaction, and returns the number of rows written.
    async fn write(&self, statement: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let mut write = self.begin_write().await?;
        let written = write.run(statement, values).await?;
        write.commit().await?;
        Ok(written)
    }
}

#[async_trait]
impl<T: Tables> Leases for SharedWork<T> {
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        Lease::check_name(name)?;
        let values = [Value::Text(name), Value::Id(holder), micros(term)];
        let Some(row) = self.write_row(Self::SQL.acquire_lease, &values).await? else {
            return Ok(None);
        };
        let lease = of_table("leases", &row);
        Ok(Some(Lease::new(
            lease.get(T::Row::moment, "since")?,
            lease.get(T::Row::moment, "until")?,
            lease.get(T::Row::integer, "term")?,
        )))
    }

    async fn release_lease(&self, name: &str, holder: ProcessId) -> Result<(), StoreError> {
        Lease::check_name(name)?;
        let values = [Value::Text(name), Value::Id(holder)];
        self.write(Self::SQL.release_lease, &values).await.map(drop)
    }
}

#[async_trait]
impl<T: Tables> JobStore for SharedWork<T> {
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError> {
        JobStatus::check_name(name)?;
        JobStatus::check_plan(plan)?;
        let mut write = self.begin_write().await?;
        let begin = [Value::Text(name), Value::Text(plan)];
        if let Some(begun) = write.row(Self::SQL.begin_job, &begin).await? {
            let run = of_table("jobs", &begun).get(T::Row::integer, "run")?;
            let older = [Value::Text(name), Value::Integer(run)];
            write.run(Self::SQL.delete_old_ranges, &older).await?;
            write.run(Self::SQL.delete_old_faults, &older).await?;
        }
        let row = write.row(Self::SQL.job, &[Value::Text(name)]).await?;
        write.commit().await?;
        // The row existed or was just added, and jobs are never removed.
        status_of(name, &row.ok_or(StoreError::Conflict)?)
    }

    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError> {
        JobStatus::check_name(name)?;
        self.0.ready().await?;
        let rows = self.0.read(Self::SQL.job, &[Value::Text(name)]).await?;
        rows.first().map(|row| status_of(name, row)).transpose()
    }

    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError> {
        JobStatus::check_name(&run.name)?;
        let [job, number] = of_run(run);
        let values = [job, number, Value::Id(holder), micros(term)];
        if let Some(row) = self.write_row(Self::SQL.claim_range, &values).await? {
            let claimed = of_table("job ranges", &row);
            let mut range = JobRange::new(run, claimed.get(T::Row::integer, "number")?, holder);
            range.after = claimed.optional(T::Row::bytes, "after")?;
            range.upto = claimed.optional(T::Row::bytes, "upto")?;
            return Ok(RangeClaim::Range(range));
        }
        Ok(match self.job(&run.name).await? {
            Some(now) if now.run != run.run || now.finished => RangeClaim::Finished,
            Some(now) if now.at_end => RangeClaim::Wait,
            Some(now) => RangeClaim::Frontier(now.frontier),
            None => RangeClaim::Finished,
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
        JobStatus::check_name(&run.name)?;
        JobRange::check_position(after)?;
        JobRange::check_position(upto)?;
        let mut write = self.begin_write().await?;
        let [job, number] = of_run(run);
        let values = [job, number, Value::Bytes(after), Value::Bytes(upto)];
        let Some(row) = write.row(Self::SQL.move_frontier, &values).await? else {
            return Ok(None);
        };
        let number = of_table("jobs", &row).get(T::Row::integer, "number")?;
        let mut range = JobRange::new(run, number, holder);
        let [job, run, number, holder] = of_range(&range);
        let (after_value, upto_value) = (Value::Bytes(after), Value::Bytes(upto));
        let values = [job, run, number, after_value, upto_value, holder, micros(term)];
        write.run(Self::SQL.insert_range, &values).await?;
        write.commit().await?;
        range.after = after.map(<[u8]>::to_vec);
        range.upto = upto.map(<[u8]>::to_vec);
        Ok(Some(range))
    }

    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        let [job, run, number, holder] = of_range(range);
        let values = [job, run, number, holder, micros(term)];
        Ok(self.write(Self::SQL.keep_range, &values).await? == 1)
    }

    async fn complete_range(
        &self,
        range: &JobRange,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        let mut write = self.begin_write().await?;
        let claim = of_range(range);
        let [job, run, ..] = claim;
        let [changed, unchanged, failed] = [tally.changed, tally.unchanged, tally.failed].map(number);
        let count = [job, run, changed, unchanged, failed];
        if write.run(Self::SQL.count_range, &count).await? != 1
            || write.run(Self::SQL.delete_range, &claim).await? != 1
        {
            // Dropping the transaction rolls it back: a lost range is not counted.
            return Ok(false);
        }
        if !faults.is_empty() {
            // Counting locked the job's row, so no other transaction adds faults between these two statements.
            let row = write.row(Self::SQL.job, &[job]).await?;
            let mut all = status_of(&range.job, &row.ok_or(StoreError::Conflict)?)?.faults;
            all.merge(faults.clone());
            let all = fault_list(&all)?;
            write
                .run(Self::SQL.set_faults, &[job, run, Value::Text(&all)])
                .await?;
        }
        write.commit().await?;
        Ok(true)
    }
}

#[async_trait]
impl<T: Tables> ProcessRegistry for SharedWork<T> {
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError> {
        process.check()?;
        let mut write = self.begin_write().await?;
        let values = [
            Value::Id(process.id),
            Value::Text(&process.name),
            Value::Integer(process.serves_for_micros()),
            Value::OptionalText(process.version.as_deref()),
        ];
        let mut row = write.row(Self::SQL.heartbeat, &values).await?;
        if row.is_none() {
            row = write.row(Self::SQL.register, &values).await?;
            // A process registers: rarely enough to also remove those that ended without deregistering.
            write.run(Self::SQL.forget, &[]).await?;
        }
        write.commit().await?;
        let row = row.ok_or(StoreError::Conflict)?;
        of_table("fences", &row)
            .get(T::Row::integer, "fence")
            .map(Fence::new)
    }

    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError> {
        let values = [Value::Id(process), Value::Integer(fence.get())];
        self.write(Self::SQL.acknowledge, &values).await.map(drop)
    }

    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError> {
        self.write(Self::SQL.deregister, &[Value::Id(process)])
            .await
            .map(drop)
    }

    async fn raise_fence(&self) -> Result<Fence, StoreError> {
        let row = self.write_row(Self::SQL.raise_fence, &[]).await?;
        // An upsert without a condition returns a row.
        let row = row.ok_or(StoreError::Conflict)?;
        of_table("fences", &row)
            .get(T::Row::integer, "number")
            .map(Fence::new)
    }

    async fn list_processes(&self) -> Result<ProcessList, StoreError> {
        self.0.ready().await?;
        let rows = self.0.read(Self::SQL.processes, &[]).await?;
        let mut list = ProcessList::new(Timestamp::from_micros(0), Vec::new());
        for row in &rows {
            list.now = of_table("processes", row).get(T::Row::moment, "now")?;
            list.processes.extend(process_of(row)?);
        }
        Ok(list)
    }

    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError> {
        let counts: BTreeMap<_, _> = counts
            .iter()
            .map(|(what, count)| (what.name(), saturated(count)))
            .collect();
        let counts = serde_json::to_string(&counts).map_err(StoreError::database)?;
        let mut write = self.begin_write().await?;
        write.run(Self::SQL.add_counts, &[Value::Text(&counts)]).await?;
        let kept = Value::Integer(DailyCounts::KEPT_DAYS);
        write.run(Self::SQL.delete_old_counts, &[kept]).await?;
        write.commit().await
    }

    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError> {
        self.0.ready().await?;
        let first = Value::Integer(DailyCounts::number_of(since));
        let kept = Value::Integer(DailyCounts::KEPT_DAYS);
        let rows = self.0.read(Self::SQL.daily_counts, &[first, kept]).await?;
        let mut days: Vec<DailyCounts> = Vec::new();
        // Rows of the same day are adjacent.
        for row in &rows {
            let columns = of_table("daily counts", row);
            let day = columns.get(T::Row::integer, "day")?;
            let what = columns.get(T::Row::text, "what")?;
            let count = columns.get(T::Row::integer, "count")?;
            let count = u64::try_from(count).map_err(|_| unreadable("daily counts", "count"))?;
            // A newer library has more counters.
            let Some(what) = Counted::from_name(&what) else {
                continue;
            };
            let mut counts = ProcessCounts::new();
            counts.add(what, count);
            let day = DailyCounts::new(day, counts);
            match days.last_mut() {
                Some(last) if last.day == day.day => last.counts.add(what, count),
                _ => days.push(day),
            }
        }
        Ok(days)
    }
}

fn micros(term: Duration) -> Value<'static> {
    Value::Integer(Lease::term_micros(term))
}

fn saturated(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn number(count: u64) -> Value<'static> {
    Value::Integer(saturated(count))
}

fn of_run(run: &JobStatus) -> [Value<'_>; 2] {
    [Value::Text(&run.name), Value::Integer(run.run)]
}

/// The parameters that identify a claim.
fn of_range(range: &JobRange) -> [Value<'_>; 4] {
    let (run, number) = (Value::Integer(range.run), Value::Integer(range.number));
    [Value::Text(&range.job), run, number, Value::Id(range.holder)]
}

/// # Errors
///
/// [`StoreError::Corrupt`] if a count is negative, or the faults cannot be read.
fn status_of<R: StoredRow>(name: &str, row: &R) -> Result<JobStatus, StoreError> {
    let job = of_table("jobs", row);
    let count = |column| {
        let count = job.get(R::integer, column)?;
        u64::try_from(count).map_err(|_| unreadable("jobs", column))
    };
    let mut status = JobStatus::new(name, job.get(R::integer, "run")?);
    status.tally = JobTally::new(count("changed")?, count("unchanged")?, count("failed")?);
    status.plan = job.get(R::text, "plan")?;
    status.frontier = job.optional(R::bytes, "frontier")?;
    status.at_end = job.get(R::boolean, "at_end")?;
    status.finished = job.get(R::boolean, "finished")?;
    status.completed_at = job.optional(R::moment, "completed_at")?;
    if let Some(faults) = job.optional(R::text, "faults")? {
        let faults: Vec<(String, u64, Vec<String>)> =
            serde_json::from_str(&faults).map_err(|_| unreadable("job faults", "examples"))?;
        for (kind, items, examples) in faults {
            let mut fault = JobFault::default();
            (fault.items, fault.examples) = (items, examples);
            status.faults.put(&kind, fault);
        }
    }
    Ok(status)
}

/// Encodes a job's faults, as they are read: kind, number of items, examples.
fn fault_list(faults: &JobFaults) -> Result<String, StoreError> {
    let rows = faults
        .iter()
        .map(|(kind, fault)| (kind, saturated(fault.items), &fault.examples));
    serde_json::to_string(&rows.collect::<Vec<_>>()).map_err(StoreError::database)
}

/// Reads a process; `None` for the row that only contains the time.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if its id is none, or its time to serve keys is negative.
fn process_of<R: StoredRow>(row: &R) -> Result<Option<ProcessRecord>, StoreError> {
    let unfit = |column| unreadable("processes", column);
    let process = of_table("processes", row);
    let Some(id) = process.optional(R::id, "id")? else {
        return Ok(None);
    };
    let id = ProcessId::from_uuid(Uuid::from_slice(&id).map_err(|_| unfit("id"))?);
    let serves_for = process.get(R::integer, "serves_for")?;
    let serves_for = u64::try_from(serves_for).map_err(|_| unfit("serves_for"))?;
    let name = process.get(R::text, "name")?;
    let mut info = ProcessInfo::new(id, name, Duration::from_micros(serves_for));
    info.version = process.optional(R::text, "version")?;
    Ok(Some(ProcessRecord::new(
        info,
        process.get(R::moment, "started_at")?,
        process.get(R::moment, "seen_at")?,
        Fence::new(process.get(R::integer, "acknowledged")?),
    )))
}
