//! The contract of a key store: where wrapped data keys and their states are kept.

mod all_usages;
mod audit;
mod bounds;
mod census;
mod counts;
mod error;
mod jobs;
mod leases;
mod params;
mod processes;
mod query;
mod record;
mod revision;
mod summary;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;

use crate::key::{DataKeyId, Scope};

#[doc(hidden)]
pub use all_usages::load_all_usages;
pub use audit::{AuditEntry, AuditLog, AuditPage, AuditQuery, AuditedPart};
pub use census::{ColumnCount, KeyCensus, OpenTransactions};
pub use counts::{Counted, DailyCounts, ProcessCounts};
pub use error::StoreError;
pub use jobs::{JobFault, JobFaults, JobRange, JobStatus, JobStore, JobTally, RangeClaim};
pub use leases::{Lease, Leases};
pub use params::{NewKey, StateChange, WrapChange, WrapOutcome};
pub use processes::{Fence, ProcessId, ProcessInfo, ProcessList, ProcessRecord, ProcessRegistry};
pub use query::{ChangeCursor, ChangePage, CursorPosition, KeyChange, KeyPage, KeyQuery};
#[doc(hidden)]
pub use record::are_shredded;
pub use record::{KeyRecord, StoredWrap};
pub use revision::Revision;
pub use summary::{KekUse, KeyCount, KeySummary};

pub use crate::timestamp::Timestamp;

/// Keeps wrapped data keys, their versions and their states.
///
/// This is the least that a store does. What a change means is worked out by [`NewKey::plan`],
/// [`StateChange::plan`] and [`WrapChange::plan`]; a store reads, writes what the plan says if nobody wrote
/// meanwhile, and says [`StoreError::Conflict`] or [`StoreError::StaleRevision`] otherwise. A store mounts the
/// conformance suite with `encx_testkit::store_conformance!`.
///
/// What every store guarantees:
///
/// - Every write is atomic and compares before it swaps. A scope never has two active versions.
/// - What is written comes back bit by bit, through every handle on the same database.
/// - [`KeyRecord::changed_at`] and the other times are the store's clock, not the process's.
/// - No connection or transaction is held between two calls.
///
/// # Cancellation
///
/// Every method may be cancelled by dropping its future. A write is then either done or not done.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Loads all versions of the given scopes, sorted by scope and version. Scopes without keys are left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`], [`StoreError::NotMigrated`] or
    /// [`StoreError::Database`].
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError>;

    /// Loads keys by id, sorted by id: for jobs, for tools, and to see whether keys in memory are still there, up to a
    /// thousand at once. Unknown ids are left out.
    ///
    /// What decrypts uses [`load`](Self::load): a key is found by scope and id, never by id alone.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError>;

    /// Adds a version if it is the one that follows the scope's last: pre-active, active, or the
    /// [tombstone](NewKey::tombstone) of a scope without versions.
    ///
    /// Of several that race to add the same version, one wins. So no key comes to be in a scope that was shredded: its
    /// versions are destroyed, and if it had none its tombstone is version 1.
    ///
    /// # Errors
    ///
    /// Those of [`NewKey::plan`], above all [`StoreError::Conflict`] for the loser of a race; and as
    /// [`load`](Self::load).
    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError>;

    /// Changes a key's state. Promotion demotes the version that was active, in the same transaction;
    /// destruction deletes the wraps, likewise.
    ///
    /// # Errors
    ///
    /// Those of [`StateChange::plan`], above all [`StoreError::StaleRevision`] for the loser of a race; and as
    /// [`load`](Self::load).
    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError>;

    /// Replaces the wraps of keys, each by itself: one outcome for each change, in the same order.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), if nothing could be tried. What went wrong with one key is in its outcome.
    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError>;

    /// Lists keys in the order of their ids, a page at a time.
    ///
    /// Every key that existed before the first page and matches throughout is listed exactly once, whatever is
    /// added meanwhile.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError>;

    /// Counts the versions by usage and state, in the database. Over a million keys it takes about half a second: it is for
    /// status pages, not for requests.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn summary(&self) -> Result<KeySummary, StoreError>;

    /// Lists the KEKs that wrap any version, sorted by KMS and KEK, with how many versions each wraps. It reads all wraps
    /// in the database, a million in some seconds.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn keks(&self) -> Result<Vec<KekUse>, StoreError>;

    /// Lists what changed since an earlier call: one cheap poll for a whole process.
    ///
    /// No change is missed, whatever order writers commit in; a change may be listed more than once.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError>;

    /// Subscribes to hints of changes, for stores that can push them. It may never yield anything.
    fn changes(&self) -> KeyChanges;

    /// Returns the store's leases; `None` if it has none. Without them every process does scheduled work.
    fn leases(&self) -> Option<&dyn Leases>;

    /// Returns the store's jobs; `None` if it has none. Without them each process walks the whole of a job by itself.
    fn jobs(&self) -> Option<&dyn JobStore>;

    /// Returns the store's registry of processes; `None` if it has none. Without it, only time tells that no process uses
    /// a version any more.
    fn processes(&self) -> Option<&dyn ProcessRegistry>;

    /// Returns the store's audit log; `None` if it keeps none that can be listed.
    fn audit(&self) -> Option<&dyn AuditLog>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: KeyStore + ?Sized> KeyStore for Arc<T> {
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        (**self).load(scopes).await
    }

    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError> {
        (**self).get(ids).await
    }

    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        (**self).insert(new).await
    }

    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError> {
        (**self).apply(change).await
    }

    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError> {
        (**self).replace_wraps(changes).await
    }

    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError> {
        (**self).page(query).await
    }

    async fn summary(&self) -> Result<KeySummary, StoreError> {
        (**self).summary().await
    }

    async fn keks(&self) -> Result<Vec<KekUse>, StoreError> {
        (**self).keks().await
    }

    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError> {
        (**self).changed_since(cursor).await
    }

    fn changes(&self) -> KeyChanges {
        (**self).changes()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        (**self).leases()
    }

    fn jobs(&self) -> Option<&dyn JobStore> {
        (**self).jobs()
    }

    fn processes(&self) -> Option<&dyn ProcessRegistry> {
        (**self).processes()
    }

    fn audit(&self) -> Option<&dyn AuditLog> {
        (**self).audit()
    }
}

/// A hint that a store pushed: read again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyHint {
    /// A key of this scope changed.
    Changed {
        /// The scope to load again.
        scope: Scope,
    },
    /// The fence was raised: follow all changes, and acknowledge it.
    Fence(Fence),
    /// Hints may have been lost: everything may have changed.
    Gap,
}

/// Hints of changes, as a store pushes them.
pub struct KeyChanges(Option<Pin<Box<dyn Stream<Item = KeyHint> + Send>>>);

impl KeyChanges {
    /// Wraps the hints of a store that pushes them.
    #[must_use]
    pub fn new(hints: impl Stream<Item = KeyHint> + Send + 'static) -> Self {
        Self(Some(Box::pin(hints)))
    }

    /// Makes a stream that never yields, for a store that only answers polls.
    #[must_use]
    pub fn never() -> Self {
        Self(None)
    }
}

impl Stream for KeyChanges {
    type Item = KeyHint;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<KeyHint>> {
        match &mut self.0 {
            Some(hints) => hints.as_mut().poll_next(context),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for KeyChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyChanges")
            .field("pushes", &self.0.is_some())
            .finish()
    }
}
