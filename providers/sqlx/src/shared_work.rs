//! Leases, jobs and the process registry: bounds and row conversions shared by both databases.

use std::time::Duration;

use encx_core::store::{
    Counted, DailyCounts, Fence, JobFault, JobFaults, JobRange, JobStatus, JobTally, ProcessCounts,
    ProcessId, ProcessInfo, ProcessRecord, StoreError, Timestamp,
};
use uuid::Uuid;

/// The columns of a job that make up its status.
pub(crate) struct RawJob {
    pub(crate) run: i64,
    pub(crate) plan: String,
    pub(crate) frontier: Option<Vec<u8>>,
    pub(crate) at_end: bool,
    pub(crate) finished: bool,
    pub(crate) changed: i64,
    pub(crate) unchanged: i64,
    pub(crate) failed: i64,
    /// As JSON, lists of kind, items and examples; NULL if there are none.
    pub(crate) faults: Option<String>,
    pub(crate) completed_at: Option<Timestamp>,
}

impl RawJob {
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if a count is negative, or the faults cannot be read.
    pub(crate) fn into_status(self, name: &str) -> Result<JobStatus, StoreError> {
        let count = |count: i64, column| u64::try_from(count).map_err(|_| unreadable("jobs", column));
        let mut status = JobStatus::new(name, self.run);
        status.tally = JobTally::new(
            count(self.changed, "changed")?,
            count(self.unchanged, "unchanged")?,
            count(self.failed, "failed")?,
        );
        status.plan = self.plan;
        status.frontier = self.frontier;
        status.at_end = self.at_end;
        status.finished = self.finished;
        status.completed_at = self.completed_at;
        if let Some(faults) = self.faults {
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
}

/// Returns the rows of a job's faults: the kind, the number of items, and the first ones as JSON.
pub(crate) fn fault_rows(faults: &JobFaults) -> impl Iterator<Item = (&str, i64, String)> {
    faults.iter().map(|(kind, fault)| {
        let items = i64::try_from(fault.items).unwrap_or(i64::MAX);
        // Serialising a list of texts does not fail.
        let examples = serde_json::to_string(&fault.examples).unwrap_or_else(|_| "[]".to_owned());
        (kind, items, examples)
    })
}

/// Returns the numbers of changed, unchanged and failed items, as column values.
pub(crate) fn counts(tally: JobTally) -> [i64; 3] {
    [tally.changed, tally.unchanged, tally.failed].map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

/// Makes a claimed range.
pub(crate) fn range(
    run: &JobStatus,
    number: i64,
    holder: ProcessId,
    after: Option<Vec<u8>>,
    upto: Option<Vec<u8>>,
) -> JobRange {
    let mut range = JobRange::new(run, number, holder);
    range.after = after;
    range.upto = upto;
    range
}

/// The columns of a process's row.
pub(crate) struct RawProcess {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    /// In microseconds.
    pub(crate) serves_for: i64,
    pub(crate) version: Option<String>,
    pub(crate) started_at: Timestamp,
    pub(crate) seen_at: Timestamp,
    pub(crate) acknowledged: i64,
}

impl RawProcess {
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if its time to serve keys is negative.
    pub(crate) fn into_record(self) -> Result<ProcessRecord, StoreError> {
        let serves_for = u64::try_from(self.serves_for).map_err(|_| unreadable("processes", "serves_for"))?;
        let id = ProcessId::from_uuid(self.id);
        let mut info = ProcessInfo::new(id, self.name, Duration::from_micros(serves_for));
        info.version = self.version;
        let acknowledged = Fence::new(self.acknowledged);
        Ok(ProcessRecord::new(
            info,
            self.started_at,
            self.seen_at,
            acknowledged,
        ))
    }
}

/// Returns counts as rows.
pub(crate) fn rows_of(counts: &ProcessCounts) -> impl Iterator<Item = (&'static str, i64)> {
    counts
        .iter()
        .map(|(what, count)| (what.name(), i64::try_from(count).unwrap_or(i64::MAX)))
}

/// Assembles days from rows, in which rows of the same day are adjacent: its number, the counter's name, and the count.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if a count is negative.
pub(crate) fn daily_counts(
    rows: impl IntoIterator<Item = Result<(i64, String, i64), StoreError>>,
) -> Result<Vec<DailyCounts>, StoreError> {
    let mut days: Vec<DailyCounts> = Vec::new();
    for row in rows {
        let (number, what, count) = row?;
        let count = u64::try_from(count).map_err(|_| unreadable("daily counts", "count"))?;
        // A newer library has more counters.
        let Some(what) = Counted::from_name(&what) else {
            continue;
        };
        let mut counts = ProcessCounts::new();
        counts.add(what, count);
        let day = DailyCounts::new(number, counts);
        match days.last_mut() {
            Some(last) if last.day == day.day => last.counts.add(what, count),
            _ => days.push(day),
        }
    }
    Ok(days)
}

/// Returns the error for a column with a value that encx does not write.
pub(crate) fn unreadable(table: &str, column: &str) -> StoreError {
    StoreError::Corrupt {
        what: format!(
            "a row of the {table}: its column `{column}` is missing, NULL, of another type or out of bounds"
        ),
    }
}
