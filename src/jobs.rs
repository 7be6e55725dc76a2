//! Jobs: long walks over many items, shared by any number of processes. A job can be stopped at any time and resumes
//! where it was.

mod budget;
mod counted;
mod engine;
mod pace;
mod ranges;
mod report;
mod run;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use encx_core::store::{KeyStore, StoreError};

use crate::clock::Clock;
use crate::crypto::Crypto;

#[cfg(feature = "metrics")]
pub(crate) use self::counted::items_of_this_process;
pub use self::report::{JobEnd, JobError, JobEvent, JobFailure, JobReport};
pub use self::run::{JobRun, JobStopper};

/// The maximum number of items in a range.
const MAX_RANGE: u32 = 10_000;

/// The default bound on a worker's in-flight items, in bytes.
const MAX_MEMORY: u64 = 64 << 20;

/// An ordered walk over items, such as the rows of a table: the work of a [`Job`].
///
/// encx provides the walks of [`KeyManager::rewrap_all`](crate::keys::KeyManager::rewrap_all) and of `encx-tables`.
/// Implement this trait for data stored elsewhere, and run it with [`Job::new`].
///
/// A *position* is a place between two items, encoded by the walk in at most 8192 bytes. Work may be repeated if a
/// process dies before it records completion. So working on an item that is already done must change nothing, and each
/// item must be changed entirely or not at all.
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future: each item is then either done or not.
#[async_trait]
pub trait Walk: Send + Sync + 'static {
    /// An item, with what is needed to work on it.
    type Item: Send + 'static;

    /// Describes the walk, in at most 8000 bytes. A walk continues an unfinished walk with the same description.
    fn plan(&self) -> String;

    /// Reads at most `limit` items, in order, after position `after` and up to position `upto`. `None` means the
    /// beginning or the end.
    ///
    /// # Errors
    ///
    /// Any [`JobError`]. A retryable one is retried a few times; then the job ends.
    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<Self::Item>, JobError>;

    /// Returns how many bytes of memory working on an item takes, in addition to the item itself. [`Job::max_memory`]
    /// bounds their sum. 0 if memory is no concern.
    fn weight(&self, item: &Self::Item) -> u64;

    /// Works on items, and returns the outcome of each.
    async fn work(&self, items: Vec<Self::Item>) -> Vec<WalkOutcome<Self::Item>>;

    /// Returns the outcomes that [`work`](Self::work) would have, and changes nothing.
    async fn inspect(&self, items: Vec<Self::Item>) -> Vec<WalkOutcome<Self::Item>>;
}

/// A page of items read by a [`Walk`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalkPage<T> {
    /// The items.
    pub items: Vec<T>,
    /// The position up to which the page is complete; `None` if it reaches the end of the requested part.
    pub upto: Option<Vec<u8>>,
}

impl<T> WalkPage<T> {
    /// Makes a page.
    #[must_use]
    pub fn new(items: Vec<T>, upto: Option<Vec<u8>>) -> Self {
        Self { items, upto }
    }
}

/// The outcome of work on an item.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WalkOutcome<T> {
    /// It was changed.
    Changed,
    /// It cannot be changed.
    Failed {
        /// The item, for people.
        what: String,
        /// Why.
        error: JobError,
    },
    /// Another writer changed or removed it in the meantime. Nothing is left to do.
    Overtaken,
    /// It could not be changed now, and is retried.
    Retry {
        /// The item.
        item: T,
        /// The item, for people.
        what: String,
        /// Why.
        error: JobError,
    },
    /// It needed no change.
    Unchanged,
}

/// A walk, its speed, and its bounds.
///
/// Any number of processes may run a job of the same name at once on a key store that [keeps jobs](KeyStore::jobs):
/// they share its ranges. If a process dies, another takes over its range after half a minute. A job that ended early
/// resumes where it was when it is run again.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::Crypto;
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let report = crypto.key_manager().rewrap_all().throttle(500).run().await;
/// if !report.is_complete() {
///     eprintln!("{report}");
/// }
/// # assert!(report.is_complete());
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a job does nothing until it is run"]
pub struct Job<W> {
    walk: W,
    store: Arc<dyn KeyStore>,
    clock: Arc<dyn Clock>,
    name: String,
    /// Whether the caller chose the name.
    is_named: bool,
    range_size: u32,
    throttle: Option<u32>,
    max_memory: u64,
    dry_run: bool,
}

impl<W: Walk> Job<W> {
    /// Makes a job of a walk, shared through the key store of `crypto`.
    ///
    /// The name should say what the walk does, and to what: [`JobStatus::name_for`](crate::store::JobStatus::name_for).
    pub fn new(crypto: &Crypto, name: impl Into<String>, walk: W) -> Self {
        Self::on(crypto.key_store(), crypto.clock(), name, walk)
    }

    pub(crate) fn on(
        store: Arc<dyn KeyStore>,
        clock: Arc<dyn Clock>,
        name: impl Into<String>,
        walk: W,
    ) -> Self {
        Self {
            walk,
            store,
            clock,
            name: name.into(),
            is_named: false,
            range_size: 500,
            throttle: None,
            max_memory: MAX_MEMORY,
            dry_run: false,
        }
    }

    /// Sets the name under which processes share the job: 1 to 200 bytes.
    ///
    /// The default says what the job does, and to what, so that different jobs on one key store have different names.
    /// Starting a job replaces a different job of the same name ([`JobEnd::Replaced`]). Set a name if two services
    /// share a key store and have tables of the same name.
    pub fn job_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self.is_named = true;
        self
    }

    /// Renames the job, unless the caller named it.
    pub(crate) fn rename(&mut self, name: impl FnOnce(&W) -> String) {
        if !self.is_named {
            self.name = name(&self.walk);
        }
    }

    /// Sets how many items a range holds, 1 to 10 000. The default is 500; a job that only reads has larger ranges.
    pub fn range_size(mut self, items: u32) -> Self {
        self.range_size = items.clamp(1, MAX_RANGE);
        self
    }

    /// Limits this process to this many items a second, at least 1.
    pub fn throttle(mut self, per_second: u32) -> Self {
        self.throttle = Some(per_second.max(1));
        self
    }

    /// Bounds the memory of this worker's in-flight items, in bytes. The default is 64 MiB.
    ///
    /// Large items are processed a few at a time, and an item larger than the bound alone. So a worker needs at most
    /// this much, or as much as its largest item: for a row, about eight times the length of its value.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Counts what would be done, and changes nothing. A dry run is not shared.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    pub(crate) fn walk_mut(&mut self) -> &mut W {
        &mut self.walk
    }
}

impl<W> fmt::Debug for Job<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name)
            .field("range_size", &self.range_size)
            .field("throttle", &self.throttle)
            .field("max_memory", &self.max_memory)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Encx(error.into())
    }
}
