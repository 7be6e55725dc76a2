//! Leases, jobs and the registry of processes. Each write is one short transaction, mostly of one statement.

use std::time::Duration;

use async_trait::async_trait;
use encx_core::store::{
    DailyCounts, Fence, JobFaults, JobRange, JobStatus, JobStore, JobTally, Lease, Leases, ProcessCounts,
    ProcessId, ProcessInfo, ProcessList, ProcessRegistry, RangeClaim, StoreError, Timestamp,
};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Decode, Postgres, Row, Type};
use uuid::Uuid;

use super::PostgresKeyStore;
use super::moment::Moment;
use super::sql::shared_work as sql;
use crate::shared_work::{RawJob, RawProcess, counts, daily_counts, fault_rows, range, rows_of, unreadable};

type Statement<'q> = Query<'q, Postgres, PgArguments>;

impl PostgresKeyStore {
    /// Runs one statement in its own transaction, and returns its row if there is one.
    async fn write_one(&self, statement: Statement<'_>) -> Result<Option<PgRow>, StoreError> {
        self.ready().await?;
        let mut transaction = self.database.begin_write().await?;
        let row = transaction.fetch_one(statement).await?;
        transaction.commit().await?;
        Ok(row)
    }
}

#[async_trait]
impl Leases for PostgresKeyStore {
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        Lease::check_name(name)?;
        let statement = sqlx::query(sql::ACQUIRE_LEASE)
            .bind(name)
            .bind(holder.as_uuid())
            .bind(Lease::term_micros(term));
        let Some(row) = self.write_one(statement).await? else {
            return Ok(None);
        };
        let leases = Columns("leases", &row);
        Ok(Some(Lease::new(
            leases.moment("since")?,
            leases.moment("until")?,
            leases.get("term")?,
        )))
    }

    async fn release_lease(&self, name: &str, holder: ProcessId) -> Result<(), StoreError> {
        Lease::check_name(name)?;
        let statement = sqlx::query(sql::RELEASE_LEASE).bind(name).bind(holder.as_uuid());
        self.write_one(statement).await.map(drop)
    }
}

#[async_trait]
impl JobStore for PostgresKeyStore {
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError> {
        JobStatus::check_name(name)?;
        JobStatus::check_plan(plan)?;
        self.ready().await?;
        let mut transaction = self.database.begin_write().await?;
        let begin = sqlx::query(sql::BEGIN_JOB).bind(name).bind(plan);
        if let Some(begun) = transaction.fetch_one(begin).await? {
            let number: i64 = Columns("jobs", &begun).get("run")?;
            let delete = sqlx::query(sql::DELETE_OLD_RANGES).bind(name).bind(number);
            transaction.run(delete).await?;
            let delete = sqlx::query(sql::DELETE_OLD_FAULTS).bind(name).bind(number);
            transaction.run(delete).await?;
        }
        let row = transaction.fetch_one(sqlx::query(sql::JOB).bind(name)).await?;
        transaction.commit().await?;
        // The row existed or was just added, and jobs are never removed.
        let row = row.ok_or(StoreError::Conflict)?;
        status_of(name, &row)
    }

    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError> {
        JobStatus::check_name(name)?;
        self.ready().await?;
        let rows = self.database.fetch(sqlx::query(sql::JOB).bind(name)).await?;
        rows.first().map(|row| status_of(name, row)).transpose()
    }

    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError> {
        JobStatus::check_name(&run.name)?;
        let claim = sqlx::query(sql::CLAIM_RANGE)
            .bind(&run.name)
            .bind(run.run)
            .bind(holder.as_uuid())
            .bind(Lease::term_micros(term));
        if let Some(row) = self.write_one(claim).await? {
            let claimed = Columns("job ranges", &row);
            let number = claimed.get("number")?;
            let (after, upto) = (claimed.get("after")?, claimed.get("upto")?);
            return Ok(RangeClaim::Range(range(run, number, holder, after, upto)));
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
        let statement = sqlx::query(sql::EXTEND_JOB)
            .bind(&run.name)
            .bind(run.run)
            .bind(after)
            .bind(upto)
            .bind(holder.as_uuid())
            .bind(Lease::term_micros(term));
        let Some(row) = self.write_one(statement).await? else {
            return Ok(None);
        };
        let number = Columns("job ranges", &row).get("number")?;
        let (after, upto) = (after.map(<[u8]>::to_vec), upto.map(<[u8]>::to_vec));
        Ok(Some(range(run, number, holder, after, upto)))
    }

    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        self.ready().await?;
        let mut transaction = self.database.begin_write().await?;
        let keep = of_range(sql::KEEP_RANGE, range).bind(Lease::term_micros(term));
        let kept = transaction.run(keep).await? == 1;
        transaction.commit().await?;
        Ok(kept)
    }

    async fn complete_range(
        &self,
        range: &JobRange,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        self.ready().await?;
        let mut transaction = self.database.begin_write().await?;
        let [changed, unchanged, failed] = counts(tally);
        let count = sqlx::query(sql::COUNT_RANGE)
            .bind(&range.job)
            .bind(range.run)
            .bind(changed)
            .bind(unchanged)
            .bind(failed);
        let done = transaction.run(count).await? == 1
            && transaction.run(of_range(sql::DELETE_RANGE, range)).await? == 1;
        if done && !faults.is_empty() {
            // Counting locked the job's row, so no other transaction adds faults between these two statements.
            let job = transaction
                .fetch_one(sqlx::query(sql::JOB).bind(&range.job))
                .await?;
            let mut all = status_of(&range.job, &job.ok_or(StoreError::Conflict)?)?.faults;
            all.merge(faults.clone());
            let (mut kinds, mut items, mut examples) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, count, first) in fault_rows(&all) {
                kinds.push(kind);
                items.push(count);
                examples.push(first);
            }
            let set = sqlx::query(sql::SET_FAULTS)
                .bind(&range.job)
                .bind(range.run)
                .bind(kinds)
                .bind(items)
                .bind(examples);
            transaction.run(set).await?;
        }
        // Otherwise the transaction is rolled back: a lost range is not counted.
        if done {
            transaction.commit().await?;
        }
        Ok(done)
    }
}

#[async_trait]
impl ProcessRegistry for PostgresKeyStore {
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError> {
        process.check()?;
        self.ready().await?;
        let mut transaction = self.database.begin_write().await?;
        let bound = |text| {
            sqlx::query(text)
                .bind(process.id.as_uuid())
                .bind(&process.name)
                .bind(process.serves_for_micros())
                .bind(&process.version)
        };
        let mut row = transaction.fetch_one(bound(sql::HEARTBEAT)).await?;
        if row.is_none() {
            row = transaction.fetch_one(bound(sql::REGISTER)).await?;
            // A process registers: rarely enough to also remove those that ended without deregistering.
            transaction.run(sqlx::query(sql::FORGET)).await?;
        }
        transaction.commit().await?;
        let row = row.ok_or(StoreError::Conflict)?;
        Columns("fences", &row).get("fence").map(Fence::new)
    }

    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError> {
        let statement = sqlx::query(sql::ACKNOWLEDGE)
            .bind(process.as_uuid())
            .bind(fence.get());
        self.write_one(statement).await.map(drop)
    }

    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError> {
        let statement = sqlx::query(sql::DEREGISTER).bind(process.as_uuid());
        self.write_one(statement).await.map(drop)
    }

    async fn raise_fence(&self) -> Result<Fence, StoreError> {
        let row = self.write_one(sqlx::query(sql::RAISE_FENCE)).await?;
        // An upsert without a condition returns a row.
        let row = row.ok_or(StoreError::Conflict)?;
        Columns("fences", &row).get("number").map(Fence::new)
    }

    async fn list_processes(&self) -> Result<ProcessList, StoreError> {
        self.ready().await?;
        let rows = self.database.fetch(sqlx::query(sql::PROCESSES)).await?;
        let mut list = ProcessList::new(Timestamp::from_micros(0), Vec::new());
        for row in &rows {
            let process = Columns("processes", row);
            list.now = process.moment("now")?;
            let Some(id) = process.get::<Option<Uuid>>("id")? else {
                continue;
            };
            let raw = RawProcess {
                id,
                name: process.get("name")?,
                serves_for: process.get("serves_for")?,
                version: process.get("version")?,
                started_at: process.moment("started_at")?,
                seen_at: process.moment("seen_at")?,
                acknowledged: process.get("acknowledged")?,
            };
            list.processes.push(raw.into_record()?);
        }
        Ok(list)
    }

    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError> {
        self.ready().await?;
        let (names, numbers): (Vec<_>, Vec<_>) = rows_of(counts).unzip();
        let mut transaction = self.database.begin_write().await?;
        let add = sqlx::query(sql::ADD_COUNTS).bind(names).bind(numbers);
        transaction.run(add).await?;
        let delete = sqlx::query(sql::DELETE_OLD_COUNTS).bind(DailyCounts::KEPT_DAYS);
        transaction.run(delete).await?;
        transaction.commit().await
    }

    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError> {
        self.ready().await?;
        let statement = sqlx::query(sql::DAILY_COUNTS)
            .bind(DailyCounts::number_of(since))
            .bind(DailyCounts::KEPT_DAYS);
        let rows = self.database.fetch(statement).await?;
        daily_counts(rows.iter().map(|row| {
            let counts = Columns("daily counts", row);
            let day: i32 = counts.get("day")?;
            Ok((day.into(), counts.get("what")?, counts.get("count")?))
        }))
    }
}

/// Binds the parameters that identify a claim.
fn of_range<'q>(text: &'static str, range: &'q JobRange) -> Statement<'q> {
    sqlx::query(text)
        .bind(&range.job)
        .bind(range.run)
        .bind(range.number)
        .bind(range.holder.as_uuid())
}

fn status_of(name: &str, row: &PgRow) -> Result<JobStatus, StoreError> {
    let job = Columns("jobs", row);
    let raw = RawJob {
        run: job.get("run")?,
        plan: job.get("plan")?,
        frontier: job.get("frontier")?,
        at_end: job.get("at_end")?,
        finished: job.get("finished")?,
        changed: job.get("changed")?,
        unchanged: job.get("unchanged")?,
        failed: job.get("failed")?,
        faults: job.get("faults")?,
        completed_at: job.get::<Option<Moment>>("completed_at")?.map(|moment| moment.0),
    };
    raw.into_status(name)
}

/// A row, with its table's name for errors.
struct Columns<'r>(&'static str, &'r PgRow);

impl<'r> Columns<'r> {
    fn get<T: Decode<'r, Postgres> + Type<Postgres>>(&self, column: &str) -> Result<T, StoreError> {
        self.1.try_get(column).map_err(|_| unreadable(self.0, column))
    }

    fn moment(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.get::<Moment>(column).map(|moment| moment.0)
    }
}
