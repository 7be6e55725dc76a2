//! Jobs: long walks over many items, which any number of processes share, which can be stopped at any time, and which go
//! on where they were.

mod budget;
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

pub use self::report::{JobEnd, JobError, JobEvent, JobFailure, JobReport};
pub use self::run::{JobRun, JobStopper};

/// How many items a range has at most.
const MAX_RANGE: u32 = 1000;

/// How many bytes a worker has in hand by default.
const MAX_MEMORY: u64 = 64 << 20;

/// A walk over items that have an order, such as the rows of a table: what a [`Job`] does.
///
/// The walks that encx brings are those of [`KeyManager::rewrap_all`](crate::keys::KeyManager::rewrap_all) and of `encx-tables`;
/// write one for rows that lie elsewhere, and run it with [`Job::new`].
///
/// A *position* is a place between two items, as bytes of the walk's own, at most 8192. Work may be done twice, when a
/// process dies before it could say that it was done: so working on an item that is done already must do nothing, and an
/// item must be changed whole or not at all.
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future: each item is then either done or not.
#[async_trait]
pub trait Walk: Send + Sync + 'static {
    /// An item, as much as is needed to work on it.
    type Item: Send + 'static;

    /// Says what the walk does, in at most 8000 bytes. Walks that say the same continue each other.
    fn plan(&self) -> String;

    /// Reads at most `limit` items, in order, that lie behind `after` and not behind `upto`. `None` stands for the
    /// beginning and for the end.
    ///
    /// # Errors
    ///
    /// Any [`JobError`]. One that is retryable is tried again a few times; then the job ends.
    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<Self::Item>, JobError>;

    /// Says how many bytes of memory working on an item takes, beyond those that the item has already: [`Job::max_memory`]
    /// bounds their sum. 0 where that does not matter.
    fn weight(&self, item: &Self::Item) -> u64;

    /// Works on items, and says what became of each.
    async fn work(&self, items: Vec<Self::Item>) -> Vec<WalkOutcome<Self::Item>>;

    /// Says what [`work`](Self::work) would do, and changes nothing.
    async fn inspect(&self, items: Vec<Self::Item>) -> Vec<WalkOutcome<Self::Item>>;
}

/// What a [`Walk`] read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalkPage<T> {
    /// The items.
    pub items: Vec<T>,
    /// Up to which position these are all that there are; `None` if they reach to the end of what was asked for.
    pub upto: Option<Vec<u8>>,
}

impl<T> WalkPage<T> {
    /// Puts a page together.
    #[must_use]
    pub fn new(items: Vec<T>, upto: Option<Vec<u8>>) -> Self {
        Self { items, upto }
    }
}

/// What became of an item.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WalkOutcome<T> {
    /// It was changed.
    Changed,
    /// It cannot be changed.
    Failed {
        /// Which item, for people.
        what: String,
        /// Why.
        error: JobError,
    },
    /// Somebody else changed or removed it meanwhile, so that nothing is left to do.
    Overtaken,
    /// It could not be changed now: to be tried again.
    Retry {
        /// The item.
        item: T,
        /// Which item, for people.
        what: String,
        /// Why not now.
        error: JobError,
    },
    /// It needed no change.
    Unchanged,
}

/// A walk, and how fast and how far it goes.
///
/// Any number of processes may run a job of the same name at once on one key store that
/// [keeps jobs](KeyStore::jobs): they share the ranges. A range whose process died is taken over by another after
/// half a minute. A job that ended before all was done goes on where it was when it is run again.
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
    /// The name should say what the walk does and to what: [`JobStatus::name_for`](crate::store::JobStatus::name_for).
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
    /// The default says what the job does and to what, so that different jobs on one key store have different names. A job
    /// that is opened under the name of another that does something else takes its place
    /// ([`JobEnd::Replaced`]). Set a name where two services share a key store and have tables of the same name.
    pub fn job_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self.is_named = true;
        self
    }

    /// Renames the job, unless the caller has named it.
    pub(crate) fn rename(&mut self, name: impl FnOnce(&W) -> String) {
        if !self.is_named {
            self.name = name(&self.walk);
        }
    }

    /// Sets how many items are taken at once, 1 to 1000. The default is 500.
    pub fn range_size(mut self, items: u32) -> Self {
        self.range_size = items.clamp(1, MAX_RANGE);
        self
    }

    /// Limits this process to so many items a second, at least 1.
    pub fn throttle(mut self, per_second: u32) -> Self {
        self.throttle = Some(per_second.max(1));
        self
    }

    /// Bounds the memory of the items that this worker has in hand, in bytes. The default is 64 MiB.
    ///
    /// Large items are worked on few at a time, and one that is larger than the bound alone. So a worker never needs
    /// more than this or what its largest item takes: of a row, about eight times the length of its value.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Counts what would be done, and changes nothing. A dry run is shared with nobody.
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
