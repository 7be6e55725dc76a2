//! Jobs: long walks over rows or keys that many processes share.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::bounds::{MAX_BYTES, check, is_name};
use super::processes::ProcessId;
use crate::store::{StoreError, Timestamp};

/// Jobs: long walks that any number of processes share. Each process claims a range, works on it and completes it. A
/// claim ends by itself, so another process takes over the range of one that died.
///
/// No connection or transaction is held between two calls. Times are the store's clock. A claim ends at the moment that
/// its term ends; a term is at most 366 days. A job's name has 1 to 200 bytes and no control characters; anything else is
/// [`StoreError::Invalid`]. Stores check with [`JobStatus::check_name`] and its like.
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
#[allow(clippy::missing_errors_doc, reason = "the trait documents the errors once")]
pub trait JobStore: fmt::Debug + Send + Sync {
    /// Joins a job. Begins a new run if there is no job of this name, if it is finished, or if its plan differs.
    ///
    /// The plan says what the job does, in at most 8192 bytes of text without a NUL. Opening the job under another plan
    /// discards all its ranges and counts. Returns the job's progress.
    async fn open_job(&self, name: &str, plan: &str) -> Result<JobStatus, StoreError>;

    /// Returns a job's progress; `None` if there is no job of this name.
    async fn job(&self, name: &str) -> Result<Option<JobStatus>, StoreError>;

    /// Claims, for `term`, a range whose earlier claim ended before it was completed; otherwise tells what to do instead.
    async fn claim_range(
        &self,
        run: &JobStatus,
        holder: ProcessId,
        term: Duration,
    ) -> Result<RangeClaim, StoreError>;

    /// Moves a job's frontier from `after` to `upto` and claims the range between, for `term`. `None` if the frontier
    /// is no longer at `after`, because another process moved it first.
    ///
    /// Positions are the walker's own, of at most 8192 bytes; the store only compares them for equality. `after` is
    /// `None` at the beginning. `upto` is `None` for the last range, which reaches to the end: the frontier then keeps
    /// its position and is marked as at the end.
    async fn extend_job(
        &self,
        run: &JobStatus,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<JobRange>, StoreError>;

    /// Extends a claim by another `term`. `false` if it was lost: another process has the range, or it is complete. An
    /// expired claim is lost only when another process takes the range.
    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError>;

    /// Completes a range and adds to the job's counts and faults. `false`, without counting, if the claim was lost. The
    /// job is finished with the last range, once the frontier is at the end.
    async fn complete_range(
        &self,
        range: &JobRange,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, StoreError>;
}

/// A job's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// The job's name.
    pub name: String,
    /// Distinguishes this run of the job from earlier ones of the same name.
    pub run: i64,
    /// What the job does: the plan of this run.
    pub plan: String,
    /// The frontier: everything before it was claimed at least once. `None` at the beginning.
    pub frontier: Option<Vec<u8>>,
    /// Whether the frontier is at the end.
    pub at_end: bool,
    /// Whether the job is finished.
    pub finished: bool,
    /// The counts so far.
    pub tally: JobTally,
    /// The failures so far, by kind.
    pub faults: JobFaults,
    /// When a range of this run was last completed; `None` if none was.
    pub completed_at: Option<Timestamp>,
}

impl JobStatus {
    /// Describes a job that has just begun. A store fills in the rest from its row, including the plan.
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
            faults: JobFaults::default(),
            completed_at: None,
        }
    }

    /// Makes a job's name from what it does and on what, such as its columns. For walks.
    ///
    /// The same words give the same name in every process. A name that would be too long, or that has a control
    /// character or a part with a space, is shortened and ends with a hash of the whole.
    #[must_use]
    pub fn name_for<T: AsRef<str>>(what: &str, of: impl IntoIterator<Item = T>) -> String {
        let mut name = what.to_owned();
        let (mut hash, mut is_clear) = (Sha256::new_with_prefix(what), true);
        for part in of {
            let part = part.as_ref();
            name.push(' ');
            name.push_str(part);
            // A part with a space could be read as two.
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
    /// [`StoreError::Invalid`] unless it has 1 to 200 bytes and no control characters.
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

/// The counts of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobTally {
    /// The number of changed items.
    pub changed: u64,
    /// The number of items that needed no change.
    pub unchanged: u64,
    /// The number of items that could not be changed.
    pub failed: u64,
}

impl JobTally {
    /// Makes a tally.
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

/// The failures of a job: for each kind of fault, the number of items and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFaults(BTreeMap<String, JobFault>);

/// The faults of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobFault {
    /// The number of items with this fault.
    pub items: u64,
    /// The first items, at most [`JobFaults::MAX_EXAMPLES`], as the walk names them.
    pub examples: Vec<String>,
}

impl JobFaults {
    /// The greatest number of kinds. Further kinds count as `other`.
    pub const MAX_KINDS: usize = 32;

    /// The greatest number of named items of a kind.
    pub const MAX_EXAMPLES: usize = 20;

    /// The greatest length of an item's name, in bytes; a longer one is cut.
    const MAX_EXAMPLE: usize = 300;

    /// Counts a fault of an item.
    ///
    /// A kind has 1 to 40 lower-case letters, digits and hyphens; any other text counts as `other`.
    pub fn add(&mut self, kind: &str, item: &str) {
        let mut end = item.len().min(Self::MAX_EXAMPLE);
        while !item.is_char_boundary(end) {
            end -= 1;
        }
        let examples = vec![item[..end].to_owned()];
        self.put(kind, JobFault { items: 1, examples });
    }

    /// Adds another process's faults. For stores.
    pub fn merge(&mut self, more: Self) {
        more.0
            .into_iter()
            .for_each(|(kind, fault)| self.put(&kind, fault));
    }

    /// Adds faults of a kind. For stores.
    pub fn put(&mut self, kind: &str, fault: JobFault) {
        let is_kind = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_named = (1..=40).contains(&kind.len()) && kind.bytes().all(is_kind);
        // One is kept for `other`.
        let named = self.0.len() - usize::from(self.0.contains_key("other"));
        let has_room = self.0.contains_key(kind) || named + 1 < Self::MAX_KINDS;
        let kind = if is_named && has_room { kind } else { "other" };
        let known = self.0.entry(kind.to_owned()).or_default();
        known.items = known.items.saturating_add(fault.items);
        let room = Self::MAX_EXAMPLES.saturating_sub(known.examples.len());
        known.examples.extend(fault.examples.into_iter().take(room));
    }

    /// Returns the faults of a kind, if any.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&JobFault> {
        self.0.get(kind)
    }

    /// Lists the kinds of faults in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &JobFault)> {
        self.0.iter().map(|(kind, fault)| (kind.as_str(), fault))
    }

    /// Tells whether nothing failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    /// The process that claimed it.
    pub holder: ProcessId,
    /// The range begins after this position; `None` at the beginning.
    pub after: Option<Vec<u8>>,
    /// The range ends with this position; `None` at the end.
    pub upto: Option<Vec<u8>>,
}

impl JobRange {
    /// Describes a range from the beginning to the end. A store sets its bounds.
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

/// The result of [`JobStore::claim_range`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeClaim {
    /// The run is finished, or another run replaced it.
    Finished,
    /// No range is abandoned: the walk continues after this position, with [`JobStore::extend_job`].
    Frontier(Option<Vec<u8>>),
    /// A range that another process abandoned; this process has claimed it.
    Range(JobRange),
    /// Other processes are working on the remaining ranges; ask again later.
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

    #[test]
    fn faults_are_bounded() {
        let mut faults = JobFaults::default();
        assert!(faults.is_empty());
        for number in 0..50 {
            faults.add("damaged", &format!("row {number}"));
        }
        let damaged = faults.get("damaged").unwrap();
        assert_eq!(
            (damaged.items, damaged.examples.len()),
            (50, JobFaults::MAX_EXAMPLES)
        );
        assert_eq!(damaged.examples[0], "row 0");
        for odd in ["", "Damaged", "a b", &"x".repeat(41)] {
            faults.add(odd, &"ü".repeat(200));
        }
        let other = faults.get("other").unwrap();
        assert_eq!((other.items, other.examples[0].len()), (4, 300));
        for number in 0..100 {
            faults.add(&format!("kind-{number}"), "row");
        }
        assert_eq!(faults.iter().count(), JobFaults::MAX_KINDS);
        let all: u64 = faults.iter().map(|(_, fault)| fault.items).sum();
        assert_eq!(all, 154, "nothing is lost");
        let mut both = faults.clone();
        both.merge(faults);
        assert_eq!(both.get("damaged").unwrap().items, 100);
        assert_eq!(both.iter().count(), JobFaults::MAX_KINDS);
    }
}
