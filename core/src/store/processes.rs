//! The registry of the processes that use a store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::bounds::{LONGEST_TERM, check, is_name};
use super::counts::{DailyCounts, ProcessCounts};
use crate::store::{StoreError, Timestamp};

/// Lists the processes that use the store, and how far each has followed the changes of keys.
///
/// A *fence* is a number that is raised after a change. A process acknowledges it once it has followed every change
/// that was committed before. No connection or transaction is held between two calls. Times are the store's clock.
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
#[allow(clippy::missing_errors_doc, reason = "the trait documents the errors once")]
pub trait ProcessRegistry: fmt::Debug + Send + Sync {
    /// Registers a process or refreshes its registration, and returns the last raised fence.
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError>;

    /// Records that a process has followed every change that was committed before the fence was raised. Never goes
    /// back. Does nothing for an unregistered process, nor for a fence that was not raised: acknowledging a later fence
    /// would count once that fence is raised.
    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError>;

    /// Removes a process that ends.
    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError>;

    /// Raises the fence, pushes a hint of it if the store can, and returns it.
    async fn raise_fence(&self) -> Result<Fence, StoreError>;

    /// Lists the processes, and the current time by the same clock. A process that has been silent for an hour longer
    /// than it could use any key ([`ProcessInfo::serves_for`]) may be left out and removed.
    async fn list_processes(&self) -> Result<ProcessList, StoreError>;

    /// Adds a process's new counts to the current day (UTC) by the store's clock.
    ///
    /// If the answer is lost, the counts may still have been added: a caller that adds them again counts them twice.
    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError>;

    /// Lists the counts of all processes by day, from the day of `since` on, oldest first. Days without counts are left
    /// out, as are those before the last [`DailyCounts::KEPT_DAYS`].
    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError>;
}

/// Names one `Crypto` of one process for its lifetime: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(Uuid);

impl ProcessId {
    /// Generates a new id.
    ///
    /// # Panics
    ///
    /// If the operating system returns no randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Takes a stored id.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Returns the id as a UUID.
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

/// A number that is raised after a change, so that processes can report that they have followed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(i64);

impl Fence {
    /// The value before any fence is raised.
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

/// A process's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its id.
    pub id: ProcessId,
    /// Its name for people, such as `billing-7`: at most 200 bytes, no control characters.
    pub name: String,
    /// How long it may use a withdrawn key while it cannot be reached: its `ttl`, and how long keys may serve beyond.
    /// Stored in microseconds, rounded up, and at most 100 years.
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

    /// Checks a process's description. For stores.
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

    /// Returns how long it may use a withdrawn key, as stored: in whole microseconds, rounded up, and at most 100
    /// years. For stores.
    #[must_use]
    pub fn serves_for_micros(&self) -> i64 {
        const LONGEST: i64 = 100 * LONGEST_TERM;
        let micros = self.serves_for.as_nanos().div_ceil(1000);
        i64::try_from(micros).map_or(LONGEST, |micros| micros.min(LONGEST))
    }
}

/// The registry's record of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessRecord {
    /// The process's description of itself.
    pub info: ProcessInfo,
    /// When it first registered.
    pub started_at: Timestamp,
    /// Its last heartbeat.
    pub seen_at: Timestamp,
    /// The last fence that it acknowledged.
    pub acknowledged: Fence,
}

impl ProcessRecord {
    /// Describes a process in the registry. For stores.
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
    /// The current time by the store's clock.
    pub now: Timestamp,
    /// The processes, in the order of their ids.
    pub processes: Vec<ProcessRecord>,
}

impl ProcessList {
    /// Makes a list. For stores.
    #[must_use]
    pub fn new(now: Timestamp, processes: Vec<ProcessRecord>) -> Self {
        Self { now, processes }
    }
}
