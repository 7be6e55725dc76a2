//! Leases, jobs and the registry of processes. Each write is one transaction, which begins by taking the write lock.

use std::time::Duration;

use async_trait::async_trait;
use encx_core::store::{
    DailyCounts, Fence, JobFaults, JobRange, JobStatus, JobStore, JobTally, Lease, Leases, ProcessCounts,
    ProcessId, ProcessInfo, ProcessList, ProcessRegistry, RangeClaim, StoreError, Timestamp,
};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Decode, Executor, Row, Sqlite, Transaction, Type};
use uuid::Uuid;

use super::SqliteKeyStore;
use super::error::store_error;
use super::sql::shared_work as sql;
use super::statement::{execute, now};
use crate::shared_work::{RawJob, RawProcess, counts, daily_counts, fault_rows, range, rows_of, unreadable};

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

impl SqliteKeyStore {
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.ready().await?;
        self.connections.begin().await
    }
}

#[async_trait]
impl Leases for SqliteKeyStore {
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        Lease::check_name(name)?;
        let mut transaction = self.begin().await?;
        let now = now(&mut *transaction).await?;
        let acquire = sqlx::query(sql::ACQUIRE_LEASE)
            .bind(name)
            .bind(bytes(holder))
            .bind(now)
            .bind(end(now, term));
        let row = row_of(&mut *transaction, acquire).await?;
        transaction.commit().await.map_err(store_error)?;
        let Some(row) = row else {
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
        let mut transaction = self.begin().await?;
        let release = sqlx::query(sql::RELEASE_LEASE).bind(name).bind(bytes(holder));
        execute(&mut *transaction, release).await?;
        transaction.commit().await.map_err(store_error)
    }
}

#[async_trait]
impl JobStore for SqliteKeyStore {
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError> {
        JobStatus::check_name(name)?;
        JobStatus::check_plan(plan)?;
        let mut transaction = self.begin().await?;
        let begin = sqlx::query(sql::BEGIN_JOB).bind(name).bind(plan);
        if let Some(begun) = row_of(&mut *transaction, begin).await? {
            let number: i64 = Columns("jobs", &begun).get("run")?;
            let delete = sqlx::query(sql::DELETE_OLD_RANGES).bind(name).bind(number);
            execute(&mut *transaction, delete).await?;
            let delete = sqlx::query(sql::DELETE_OLD_FAULTS).bind(name).bind(number);
            execute(&mut *transaction, delete).await?;
        }
        let row = row_of(&mut *transaction, sqlx::query(sql::JOB).bind(name)).await?;
        transaction.commit().await.map_err(store_error)?;
        // The row existed or was just added, and jobs are never removed.
        let row = row.ok_or(StoreError::Conflict)?;
        status_of(name, &row)
    }

    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError> {
        JobStatus::check_name(name)?;
        self.ready().await?;
        let row = row_of(
            &mut *self.connections.acquire().await?,
            sqlx::query(sql::JOB).bind(name),
        )
        .await?;
        row.map(|row| status_of(name, &row)).transpose()
    }

    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError> {
        JobStatus::check_name(&run.name)?;
        let mut transaction = self.begin().await?;
        let now = now(&mut *transaction).await?;
        let claim = sqlx::query(sql::CLAIM_RANGE)
            .bind(&run.name)
            .bind(run.run)
            .bind(bytes(holder))
            .bind(now)
            .bind(end(now, term));
        let claimed = row_of(&mut *transaction, claim).await?;
        let job = row_of(&mut *transaction, sqlx::query(sql::JOB).bind(&run.name)).await?;
        transaction.commit().await.map_err(store_error)?;
        if let Some(row) = claimed {
            let claimed = Columns("job ranges", &row);
            let number = claimed.get("number")?;
            let (after, upto) = (claimed.get("after")?, claimed.get("upto")?);
            return Ok(RangeClaim::Range(range(run, number, holder, after, upto)));
        }
        let job = job.map(|row| status_of(&run.name, &row)).transpose()?;
        Ok(match job {
            Some(job) if job.run != run.run || job.finished => RangeClaim::Finished,
            Some(job) if job.at_end => RangeClaim::Wait,
            Some(job) => RangeClaim::Frontier(job.frontier),
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
        let mut transaction = self.begin().await?;
        let now = now(&mut *transaction).await?;
        let extend = sqlx::query(sql::MOVE_FRONTIER)
            .bind(&run.name)
            .bind(run.run)
            .bind(after)
            .bind(upto);
        let Some(row) = row_of(&mut *transaction, extend).await? else {
            return Ok(None);
        };
        let number: i64 = Columns("jobs", &row).get("number")?;
        let insert = sqlx::query(sql::INSERT_RANGE)
            .bind(&run.name)
            .bind(run.run)
            .bind(number)
            .bind(after)
            .bind(upto)
            .bind(bytes(holder))
            .bind(end(now, term));
        execute(&mut *transaction, insert).await?;
        transaction.commit().await.map_err(store_error)?;
        let (after, upto) = (after.map(<[u8]>::to_vec), upto.map(<[u8]>::to_vec));
        Ok(Some(range(run, number, holder, after, upto)))
    }

    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        let mut transaction = self.begin().await?;
        let until = end(now(&mut *transaction).await?, term);
        let keep = of_range(sql::KEEP_RANGE, range).bind(until);
        let kept = execute(&mut *transaction, keep).await? == 1;
        transaction.commit().await.map_err(store_error)?;
        Ok(kept)
    }

    async fn complete_range(
        &self,
        range: &JobRange,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, StoreError> {
        JobStatus::check_name(&range.job)?;
        let mut transaction = self.begin().await?;
        let now = now(&mut *transaction).await?;
        let [changed, unchanged, failed] = counts(tally);
        let count = sqlx::query(sql::COUNT_RANGE)
            .bind(&range.job)
            .bind(range.run)
            .bind(changed)
            .bind(unchanged)
            .bind(failed)
            .bind(now);
        let done = execute(&mut *transaction, count).await? == 1
            && execute(&mut *transaction, of_range(sql::DELETE_RANGE, range)).await? == 1;
        if done && !faults.is_empty() {
            let job = row_of(&mut *transaction, sqlx::query(sql::JOB).bind(&range.job)).await?;
            let mut all = status_of(&range.job, &job.ok_or(StoreError::Conflict)?)?.faults;
            all.merge(faults.clone());
            for (kind, items, examples) in fault_rows(&all) {
                let set = sqlx::query(sql::SET_FAULT)
                    .bind(&range.job)
                    .bind(range.run)
                    .bind(kind)
                    .bind(items)
                    .bind(examples);
                execute(&mut *transaction, set).await?;
            }
        }
        if done {
            transaction.commit().await.map_err(store_error)?;
        } else {
            // A lost range is not counted.
            transaction.rollback().await.map_err(store_error)?;
        }
        Ok(done)
    }
}

#[async_trait]
impl ProcessRegistry for SqliteKeyStore {
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError> {
        process.check()?;
        let mut transaction = self.begin().await?;
        let now = now(&mut *transaction).await?;
        let heartbeat = sqlx::query(sql::HEARTBEAT)
            .bind(bytes(process.id))
            .bind(&process.name)
            .bind(process.serves_for_micros())
            .bind(now)
            .bind(&process.version);
        execute(&mut *transaction, heartbeat).await?;
        execute(&mut *transaction, sqlx::query(sql::FORGET).bind(now)).await?;
        let fence: i64 = sqlx::query_scalar(sql::FENCE)
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        Ok(Fence::new(fence))
    }

    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let acknowledge = sqlx::query(sql::ACKNOWLEDGE)
            .bind(bytes(process))
            .bind(fence.get());
        execute(&mut *transaction, acknowledge).await?;
        transaction.commit().await.map_err(store_error)
    }

    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        execute(
            &mut *transaction,
            sqlx::query(sql::DEREGISTER).bind(bytes(process)),
        )
        .await?;
        transaction.commit().await.map_err(store_error)
    }

    async fn raise_fence(&self) -> Result<Fence, StoreError> {
        let mut transaction = self.begin().await?;
        let row = row_of(&mut *transaction, sqlx::query(sql::RAISE_FENCE)).await?;
        transaction.commit().await.map_err(store_error)?;
        // An upsert without a condition returns a row.
        let row = row.ok_or(StoreError::Conflict)?;
        Columns("fences", &row).get("number").map(Fence::new)
    }

    async fn list_processes(&self) -> Result<ProcessList, StoreError> {
        self.ready().await?;
        let mut connection = self.connections.acquire().await?;
        let now = now(&mut *connection).await?;
        let rows = sqlx::query(sql::PROCESSES)
            .bind(now)
            .fetch_all(&mut *connection)
            .await
            .map_err(store_error)?;
        let mut list = ProcessList::new(Timestamp::from_micros(now), Vec::new());
        for row in &rows {
            let process = Columns("processes", row);
            let id: Vec<u8> = process.get("id")?;
            let raw = RawProcess {
                id: Uuid::from_slice(&id).map_err(|_| unreadable("processes", "id"))?,
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
        let mut transaction = self.begin().await?;
        let now = Timestamp::from_micros(now(&mut *transaction).await?);
        let today = DailyCounts::number_of(now);
        for (what, count) in rows_of(counts) {
            let add = sqlx::query(sql::ADD_COUNT).bind(today).bind(what).bind(count);
            execute(&mut *transaction, add).await?;
        }
        let delete = sqlx::query(sql::DELETE_OLD_COUNTS).bind(today.saturating_sub(DailyCounts::KEPT_DAYS));
        execute(&mut *transaction, delete).await?;
        transaction.commit().await.map_err(store_error)
    }

    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError> {
        self.ready().await?;
        let mut connection = self.connections.acquire().await?;
        let now = Timestamp::from_micros(now(&mut *connection).await?);
        let past = DailyCounts::number_of(now).saturating_sub(DailyCounts::KEPT_DAYS);
        let first = DailyCounts::number_of(since).max(past.saturating_add(1));
        let rows = sqlx::query(sql::DAILY_COUNTS)
            .bind(first)
            .fetch_all(&mut *connection)
            .await
            .map_err(store_error)?;
        daily_counts(rows.iter().map(|row| {
            let counts = Columns("daily counts", row);
            Ok((counts.get("day")?, counts.get("what")?, counts.get("count")?))
        }))
    }
}

fn bytes(process: ProcessId) -> Vec<u8> {
    process.as_uuid().as_bytes().to_vec()
}

fn end(now: i64, term: Duration) -> i64 {
    now.saturating_add(Lease::term_micros(term))
}

/// Binds the parameters that identify a claim.
fn of_range<'q>(text: &'static str, range: &'q JobRange) -> Statement<'q> {
    sqlx::query(text)
        .bind(&range.job)
        .bind(range.run)
        .bind(range.number)
        .bind(bytes(range.holder))
}

fn status_of(name: &str, row: &SqliteRow) -> Result<JobStatus, StoreError> {
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
        completed_at: job
            .get::<Option<i64>>("completed_at")?
            .map(Timestamp::from_micros),
    };
    raw.into_status(name)
}

async fn row_of<'c, E>(executor: E, statement: Statement<'_>) -> Result<Option<SqliteRow>, StoreError>
where
    E: Executor<'c, Database = Sqlite>,
{
    statement.fetch_optional(executor).await.map_err(store_error)
}

/// A row, with its table's name for errors.
struct Columns<'r>(&'static str, &'r SqliteRow);

impl<'r> Columns<'r> {
    fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &str) -> Result<T, StoreError> {
        self.1.try_get(column).map_err(|_| unreadable(self.0, column))
    }

    fn moment(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.get::<i64>(column).map(Timestamp::from_micros)
    }
}
