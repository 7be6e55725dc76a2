//! What lets processes work together: leases, jobs that many share, and the registry of processes.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::{StoreError, Timestamp};

/// Lets processes work together, through the key store that they share.
///
/// Three things, none of which holds a connection or a transaction between two calls:
///
/// - A *lease* is held by one process at a time and ends by itself.
/// - A *job* is a long walk that any number of processes share: each claims a range, works on it and completes it. A
///   claim ends by itself, so that a range whose process died is claimed by another.
/// - The *registry* knows which processes use the store. A *fence* is a number that is raised after a change; a
///   process acknowledges it once it has followed every change that was committed before.
///
/// Times are the store's clock, and a claim or a lease has ended at the moment that its term ends; a term is 366 days at
/// most. A name of a lease or a job has 1 to 200 bytes and no control characters; anything else is
/// [`StoreError::Invalid`], and stores ask [`Lease::check_name`] and its like. A store mounts the conformance suite with `encx_testkit::store_conformance!`.
///
/// # Errors
///
/// Every method: [`StoreError::Invalid`] for a name or a position that breaks a bound, [`StoreError::Unavailable`],
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
pub trait Coordination: fmt::Debug + Send + Sync {
    /// Takes a lease for `term`, or extends the one that `holder` has. `None` if another process holds it.
    async fn acquire_lease(
        &self,
        name: &str,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Lease>, StoreError>;

    /// Gives a lease back before its time. Does nothing if `holder` does not hold it.
    async fn release_lease(&self, name: &str, holder: ProcessId) -> Result<(), StoreError>;

    /// Joins a job, or begins it anew if there is none of this name, if it is finished, or if its plan was another.
    ///
    /// The plan says what the job does, in at most 8192 bytes of text without a NUL: whoever opens the job under another plan discards
    /// all its ranges and counts. Returns how far it is.
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

    /// Keeps a claim for another `term`. `false` if it was lost: the range belongs to somebody else, or is complete. A
    /// claim whose term is over is not lost before another process takes the range.
    async fn keep_range(&self, range: &JobRange, term: Duration) -> Result<bool, StoreError>;

    /// Completes a range and adds to the job's counts. `false`, and nothing is counted, if the claim was lost. The job is
    /// finished with the last range, once the frontier is at the end.
    async fn complete_range(&self, range: &JobRange, tally: JobTally) -> Result<bool, StoreError>;

    /// Registers a process, or notes that it is still there, and returns the last fence that was raised.
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError>;

    /// Notes that a process has followed every change that was committed before the fence was raised. Never goes back.
    /// Does nothing for a process that is not registered, nor for a fence that was not raised: whoever said today that it
    /// has followed all that is to come would be believed tomorrow.
    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError>;

    /// Forgets a process that ends.
    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError>;

    /// Raises the fence, pushes a hint of it if the store can, and returns it.
    async fn raise_fence(&self) -> Result<Fence, StoreError>;

    /// Lists the processes, and what time it is by the same clock. Those that have not been heard of for longer than they
    /// could serve any key ([`ProcessInfo::serves_for`]), and an hour, may be left out and forgotten.
    async fn processes(&self) -> Result<ProcessList, StoreError>;
}

/// Names one `Crypto` of one process, for as long as it lives: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(Uuid);

impl ProcessId {
    /// Draws a new one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Takes a stored one.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Returns it as a UUID.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The longest term, 366 days in microseconds: what stands in a row for longer is of no use to anybody.
const LONGEST_TERM: i64 = 366 * 86_400_000_000;

/// The most bytes that a plan or a position has.
const MAX_BYTES: usize = 8192;

fn check(fits: bool, rule: &str) -> Result<(), StoreError> {
    if fits {
        return Ok(());
    }
    Err(StoreError::Invalid {
        what: rule.to_owned(),
    })
}

fn is_name(name: &str) -> bool {
    (1..=200).contains(&name.len()) && !name.contains(char::is_control)
}

/// A lease that a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// When it was taken or last extended.
    pub since: Timestamp,
    /// When it ends unless it is extended.
    pub until: Timestamp,
    /// Grows by one whenever the lease goes to another holder: what was written under a smaller one is outdated.
    pub term: i64,
}

impl Lease {
    /// Describes a lease. For stores.
    #[must_use]
    pub const fn new(since: Timestamp, until: Timestamp, term: i64) -> Self {
        Self { since, until, term }
    }

    /// Checks a lease's name. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if it has not 1 to 200 bytes, or has control characters.
    pub fn check_name(name: &str) -> Result<(), StoreError> {
        let rule = "a lease's name has 1 to 200 bytes and no control characters";
        check(is_name(name), rule)
    }

    /// Returns a term of a lease or a claim in microseconds, 366 days at most. For stores.
    #[must_use]
    pub fn term_micros(term: Duration) -> i64 {
        i64::try_from(term.as_micros()).map_or(LONGEST_TERM, |micros| micros.min(LONGEST_TERM))
    }
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
    /// The same words give the same name in every process. What would be too long, or has a control character, is cut
    /// short and ends with a hash of the whole.
    #[must_use]
    pub fn name_for<T: AsRef<str>>(what: &str, of: impl IntoIterator<Item = T>) -> String {
        let mut name = what.to_owned();
        for part in of {
            name.push(' ');
            name.push_str(part.as_ref());
        }
        if is_name(&name) {
            return name;
        }
        let hash = Sha256::digest(name.as_bytes());
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

/// What [`Coordination::claim_range`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeClaim {
    /// The run is finished, or was replaced by another.
    Finished,
    /// Nothing was abandoned: the walk goes on behind this position, with [`Coordination::extend_job`].
    Frontier(Option<Vec<u8>>),
    /// A range that another process abandoned is this one's now.
    Range(JobRange),
    /// Others are at work on what is left; ask again later.
    Wait,
}

/// A number that is raised after a change, so that processes can say that they have seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(i64);

impl Fence {
    /// Before the first that is raised.
    pub const NONE: Self = Self(0);

    /// Takes a stored number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its id.
    pub id: ProcessId,
    /// What people call it, such as `billing-7`: at most 200 bytes, no control characters.
    pub name: String,
    /// How long it may use a key that is withdrawn while nobody can reach it: its `ttl`, and how long keys may serve beyond.
    /// Kept to the microsecond, rounded up, and 100 years at most.
    pub serves_for: Duration,
}

impl ProcessInfo {
    /// Describes a process.
    #[must_use]
    pub fn new(id: ProcessId, name: impl Into<String>, serves_for: Duration) -> Self {
        Self {
            id,
            name: name.into(),
            serves_for,
        }
    }

    /// Checks what a process says of itself. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if its name has more than 200 bytes, or control characters.
    pub fn check(&self) -> Result<(), StoreError> {
        let rule = "a process's name has at most 200 bytes and no control characters";
        check(self.name.is_empty() || is_name(&self.name), rule)
    }

    /// Returns how long it may use a key that is withdrawn, as it is kept: in whole microseconds, rounded up, and 100 years
    /// at most. For stores.
    #[must_use]
    pub fn serves_for_micros(&self) -> i64 {
        const LONGEST: i64 = 100 * LONGEST_TERM;
        let micros = self.serves_for.as_nanos().div_ceil(1000);
        i64::try_from(micros).map_or(LONGEST, |micros| micros.min(LONGEST))
    }
}

/// What the registry knows of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessRecord {
    /// What it said of itself.
    pub info: ProcessInfo,
    /// When it was first heard of.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// The last fence that it acknowledged.
    pub acknowledged: Fence,
}

impl ProcessRecord {
    /// Describes a process as it is in the registry. For stores.
    #[must_use]
    pub fn new(info: ProcessInfo, started_at: Timestamp, seen_at: Timestamp, acknowledged: Fence) -> Self {
        Self {
            info,
            started_at,
            seen_at,
            acknowledged,
        }
    }
}

/// The processes that use a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProcessList {
    /// What time it was.
    pub now: Timestamp,
    /// The processes, in the order of their ids.
    pub processes: Vec<ProcessRecord>,
}

impl ProcessList {
    /// Puts a list together. For stores.
    #[must_use]
    pub fn new(now: Timestamp, processes: Vec<ProcessRecord>) -> Self {
        Self { now, processes }
    }
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
        ];
        for (place, name) in names.iter().enumerate() {
            JobStatus::check_name(name).unwrap();
            assert!(!names[..place].contains(name), "{name}");
        }
    }
}
