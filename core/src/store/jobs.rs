//! Jobs: long walks that many processes share.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::bounds::{MAX_BYTES, check, is_name};
use super::processes::ProcessId;
use crate::store::StoreError;

/// Jobs: long walks that any number of processes share. Each claims a range, works on it and completes it. A claim ends by
/// itself, so that a range whose process died is claimed by another.
///
/// No connection or transaction is held between two calls. Times are the store's clock, and a claim has ended at the moment
/// that its term ends; a term is 366 days at most. A job's name has 1 to 200 bytes and no control characters; anything else is
/// [`StoreError::Invalid`], and stores ask [`JobStatus::check_name`] and its like.
///
/// # Errors
///
/// Every method: [`StoreError::Invalid`] for a name, a plan or a position that breaks a bound, [`StoreError::Unavailable`],
/// [`StoreError::NotMigrated`], [`StoreError::Corrupt`] or [`StoreError::Database`].
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future. A write is then either done or not done.
#[async_trait]
#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the trait, once for all"
)]
pub trait JobStore: fmt::Debug + Send + Sync {
    /// Joins a job, or begins it anew if there is none of this name, if it is finished, or if its plan was another.
    ///
    /// The plan says what the job does, in at most 8192 bytes of text without a NUL. Opening the job under
    /// another plan discards all its ranges and counts. Returns how far it is.
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError>;

    /// Returns how far a job is; `None` if there is none of this name.
    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError>;

    /// Claims, for `term`, a range that was claimed before and whose claim ended without its completion; else tells what
    /// there is to do instead.
    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError>;

    /// Moves a job's frontier from `after` to `upto` and claims the range between, for `term`. `None` if the frontier is
    /// not at `after` any more: another process was faster.
    ///
    /// Positions are the walker's own, of at most 8192 bytes; the store only compares them for equality. `after` is
    /// `None` at the beginning; `upto` is `None` for the last range, which reaches to the end: the frontier then stays
    /// where it was, and is at the end.
    async fn extend_job(
        &self,
        run: &JobStatus,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<JobRange>, StoreError>;

    /// Keeps a claim for another `term`. `false` if it was lost: the range is another process's, or is complete. A
    /// claim whose term is over is not lost before another process takes the range.
    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError>;

    /// Completes a range and adds to the job's counts. `false`, and nothing is counted, if the claim was lost. The job is
    /// finished with the last range, once the frontier is at the end.
    async fn complete_range(&self, range: &JobRange, tally: JobTally) -> Result<bool, StoreError>;
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// The job's name.
    pub name: String,
    /// Tells this run of the job from earlier ones of the same name.
    pub run: i64,
    /// What the job does: the plan under which this run was begun.
    pub plan: String,
    /// Where the frontier is: everything up to it was claimed at least once. `None` at the beginning.
    pub frontier: Option<Vec<u8>>,
    /// Whether the frontier is at the end.
    pub at_end: bool,
    /// Whether all is done.
    pub finished: bool,
    /// What was counted so far.
    pub tally: JobTally,
}

impl JobStatus {
    /// Describes a job that has just begun. A store fills in the rest from its row, also the plan.
    #[must_use]
    pub fn new(name: impl Into<String>, run: i64) -> Self {
        Self {
            name: name.into(),
            run,
            plan: String::new(),
            frontier: None,
            at_end: false,
            finished: false,
            tally: JobTally::default(),
        }
    }

    /// Puts together a job's name: what it does, and to what, such as the columns that it walks over. For walks.
    ///
    /// The same words give the same name in every process. What would be too long, or has a control character, or a space in a part, is cut
    /// short and ends with a hash of the whole.
    #[must_use]
    pub fn name_for<T: AsRef<str>>(what: &str, of: impl IntoIterator<Item = T>) -> String {
        let mut name = what.to_owned();
        let (mut hash, mut is_clear) = (Sha256::new_with_prefix(what), true);
        for part in of {
            let part = part.as_ref();
            name.push(' ');
            name.push_str(part);
            // A part with a space could be two.
            is_clear &= !part.contains(' ');
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        if is_clear && is_name(&name) {
            return name;
        }
        let hash = hash.finalize();
        let mut short: String = name.chars().filter(|char| !char.is_control()).collect();
        let mut end = short.len().min(160);
        while !short.is_char_boundary(end) {
            end -= 1;
        }
        short.truncate(end);
        short.push_str(" #");
        for byte in &hash[..16] {
            short.push_str(&format!("{byte:02x}"));
        }
        short
    }

    /// Checks a job's name. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if it has not 1 to 200 bytes, or has control characters.
    pub fn check_name(name: &str) -> Result<(), StoreError> {
        let rule = "a job's name has 1 to 200 bytes and no control characters";
        check(is_name(name), rule)
    }

    /// Checks a job's plan. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if it has more than 8192 bytes, or a NUL.
    pub fn check_plan(plan: &str) -> Result<(), StoreError> {
        let rule = "a job's plan has at most 8192 bytes and no NUL";
        check(plan.len() <= MAX_BYTES && !plan.contains('\0'), rule)
    }
}

/// What a job counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobTally {
    /// How many were changed.
    pub changed: u64,
    /// How many needed no change.
    pub unchanged: u64,
    /// How many could not be changed.
    pub failed: u64,
}

impl JobTally {
    /// Puts counts together.
    #[must_use]
    pub const fn new(changed: u64, unchanged: u64, failed: u64) -> Self {
        Self {
            changed,
            unchanged,
            failed,
        }
    }
}

impl std::ops::AddAssign for JobTally {
    fn add_assign(&mut self, more: Self) {
        self.changed = self.changed.saturating_add(more.changed);
        self.unchanged = self.unchanged.saturating_add(more.unchanged);
        self.failed = self.failed.saturating_add(more.failed);
    }
}

/// A range of a job that a process has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobRange {
    /// The job's name.
    pub job: String,
    /// The job's run.
    pub run: i64,
    /// The number of the range within the run, from 1.
    pub number: i64,
    /// Which process claimed it.
    pub holder: ProcessId,
    /// The range begins behind this position; `None` at the beginning.
    pub after: Option<Vec<u8>>,
    /// The range ends with this position; `None` at the end.
    pub upto: Option<Vec<u8>>,
}

impl JobRange {
    /// Describes a range from the beginning to the end. A store fills in its bounds.
    #[must_use]
    pub fn new(run: &JobStatus, number: i64, holder: ProcessId) -> Self {
        Self {
            job: run.name.clone(),
            run: run.run,
            number,
            holder,
            after: None,
            upto: None,
        }
    }

    /// Checks a position. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if it has more than 8192 bytes.
    pub fn check_position(position: Option<&[u8]>) -> Result<(), StoreError> {
        let rule = "a position in a job has at most 8192 bytes";
        check(position.is_none_or(|position| position.len() <= MAX_BYTES), rule)
    }
}

/// What [`JobStore::claim_range`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeClaim {
    /// The run is finished, or was replaced by another.
    Finished,
    /// Nothing was abandoned: the walk goes on behind this position, with [`JobStore::extend_job`].
    Frontier(Option<Vec<u8>>),
    /// A range that another process abandoned is this one's now.
    Range(JobRange),
    /// Others are at work on what is left; ask again later.
    Wait,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_jobs_keep_to_the_bounds_and_differ() {
        let name = |columns: &[&str]| JobStatus::name_for("encx/reencrypt", columns);
        assert_eq!(name(&[]), "encx/reencrypt");
        assert_eq!(name(&["a.b", "c.d"]), "encx/reencrypt a.b c.d");
        let long = "ü".repeat(300);
        let names = [
            name(&[&long]),
            name(&[&long, "x"]),
            name(&["a\nb"]),
            name(&["ab"]),
            name(&["a", "b"]),
            name(&["a", "b c"]),
            name(&["a b", "c"]),
            name(&["a", "b", "c"]),
            name(&["a b c"]),
        ];
        for (place, name) in names.iter().enumerate() {
            JobStatus::check_name(name).unwrap();
            assert!(!names[..place].contains(name), "{name}");
        }
    }
}
