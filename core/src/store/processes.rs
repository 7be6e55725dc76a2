//! The registry of the processes that use a store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::bounds::{LONGEST_TERM, check, is_name};
use super::counts::{DailyCounts, ProcessCounts};
use crate::store::{StoreError, Timestamp};

/// Knows which processes use the store, and how far each has followed the changes of keys.
///
/// A *fence* is a number that is raised after a change; a process acknowledges it once it has followed every change that was
/// committed before. No connection or transaction is held between two calls. Times are the store's clock.
///
/// # Errors
///
/// Every method: [`StoreError::Invalid`] for a name that breaks a bound, [`StoreError::Unavailable`],
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
pub trait ProcessRegistry: fmt::Debug + Send + Sync {
    /// Registers a process, or notes that it is still there, and returns the last fence that was raised.
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError>;

    /// Notes that a process has followed every change that was committed before the fence was raised. Never goes back.
    /// Does nothing for a process that is not registered, nor for a fence that was not raised:
    /// an acknowledgement of a later fence would count once that is raised.
    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError>;

    /// Forgets a process that ends.
    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError>;

    /// Raises the fence, pushes a hint of it if the store can, and returns it.
    async fn raise_fence(&self) -> Result<Fence, StoreError>;

    /// Lists the processes, and what time it is by the same clock. Those that have not been heard of for longer than they
    /// could serve any key ([`ProcessInfo::serves_for`]), and an hour, may be left out and forgotten.
    async fn list_processes(&self) -> Result<ProcessList, StoreError>;

    /// Adds what a process has counted since it last did, to the store's day (UTC): its clock decides.
    ///
    /// If the answer is lost, the counts may have been added all the same: a caller that adds them again counts them twice.
    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError>;

    /// Lists what all processes counted, by day, from the day of `since` on, oldest first. Days on which nothing was counted
    /// are left out, and so are those before the last [`DailyCounts::KEPT_DAYS`].
    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError>;
}

/// Names one `Crypto` of one process, for as long as it lives: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(Uuid);

impl ProcessId {
    /// Draws a new one.
    ///
    /// # Panics
    ///
    /// If the operating system gives no randomness.
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
    /// How long it may use a key that is withdrawn while it cannot be reached: its `ttl`, and how long keys may serve beyond.
    /// Kept to the microsecond, rounded up, and 100 years at most.
    pub serves_for: Duration,
    /// The version of `encx` that it runs, such as `0.1.0`: at most 64 bytes, no control characters. `None` of a process whose
    /// library does not say.
    pub version: Option<String>,
}

impl ProcessInfo {
    /// Describes a process.
    #[must_use]
    pub fn new(id: ProcessId, name: impl Into<String>, serves_for: Duration) -> Self {
        Self {
            id,
            name: name.into(),
            serves_for,
            version: None,
        }
    }

    /// Says which version of `encx` it runs.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Checks what a process says of itself. For stores.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if its name has more than 200 bytes, its version is empty or has more than 64, or one of them
    /// has control characters.
    pub fn check(&self) -> Result<(), StoreError> {
        let rule = "a process's name has at most 200 bytes and no control characters";
        check(self.name.is_empty() || is_name(&self.name), rule)?;
        let rule = "a process's version has 1 to 64 bytes and no control characters";
        let fits = |version: &String| version.len() <= 64 && is_name(version);
        check(self.version.as_ref().is_none_or(fits), rule)
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
