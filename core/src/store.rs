//! The contract of a key store, which keeps wrapped data keys and their states.

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
/// This is the minimum that a store implements. [`NewKey::plan`], [`StateChange::plan`] and [`WrapChange::plan`] work out
/// what a change means. A store reads, writes the plan if no other process wrote since, and otherwise returns
/// [`StoreError::Conflict`] or [`StoreError::StaleRevision`]. A store mounts the conformance suite with
/// `encx_testkit::store_conformance!`.
///
/// Every store guarantees:
///
/// - Every write is an atomic compare-and-swap. A scope never has two active versions.
/// - A record reads back exactly as written, through every handle on the same database.
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

    /// Loads keys by id, sorted by id, up to a thousand at once. Unknown ids are left out. For jobs, for tools, and for
    /// checks that cached keys still exist.
    ///
    /// Decryption uses [`load`](Self::load): it finds a key by scope and id, never by id alone.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError>;

    /// Adds the version that follows the scope's last one: pre-active, active, or the [tombstone](NewKey::tombstone) of a
    /// scope without versions.
    ///
    /// Of several processes that race to add the same version, one wins. A shredded scope therefore gets no new key: its
    /// versions are destroyed, and if it had none, its tombstone is version 1.
    ///
    /// # Errors
    ///
    /// Those of [`NewKey::plan`], above all [`StoreError::Conflict`] for the loser of a race; and as
    /// [`load`](Self::load).
    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError>;

    /// Changes a key's state. In the same transaction, promotion deactivates the version that was active, and destruction
    /// deletes the wraps.
    ///
    /// # Errors
    ///
    /// Those of [`StateChange::plan`], above all [`StoreError::StaleRevision`] for the loser of a race; and
    /// as [`load`](Self::load).
    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError>;

    /// Replaces the wraps of keys, each independently. Returns one outcome for each change, in the same order.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), if no change could be tried. The failure of a single key is in its outcome.
    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError>;

    /// Lists keys in the order of their ids, one page at a time.
    ///
    /// Every key that existed before the first page and matches throughout is listed exactly once, even if others are
    /// added between the pages.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError>;

    /// Counts the versions by usage and state, in the database. A million keys take about half a second: use it for
    /// status pages, not for requests.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn summary(&self) -> Result<KeySummary, StoreError>;

    /// Lists the KEKs that wrap any version, sorted by KMS and KEK, with the number of versions that each wraps. Reads
    /// all wraps in the database; a million take some seconds.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn keks(&self) -> Result<Vec<KekUse>, StoreError>;

    /// Lists the changes since an earlier call. One cheap poll serves a whole process.
    ///
    /// No change is missed, in any order of commits. A change may be listed more than once.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError>;

    /// Subscribes to hints of changes, for stores that can push them. The stream may never yield.
    fn changes(&self) -> KeyChanges;

    /// Returns the store's leases; `None` if it has none. Without them, every process does the scheduled work.
    fn leases(&self) -> Option<&dyn Leases>;

    /// Returns the store's jobs; `None` if it has none. Without them, each process does the whole of a job.
    fn jobs(&self) -> Option<&dyn JobStore>;

    /// Returns the store's registry of processes; `None` if it has none. Without it, only elapsed time shows that no
    /// process still uses a version.
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

/// A hint from a store that something changed: read again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyHint {
    /// A key of this scope changed.
    Changed {
        /// The scope to reload.
        scope: Scope,
    },
    /// The fence was raised: read all changes, then acknowledge it.
    Fence(Fence),
    /// Hints may have been lost: anything may have changed.
    Gap,
}

/// A stream of hints that a store pushes.
pub struct KeyChanges(Option<Pin<Box<dyn Stream<Item = KeyHint> + Send>>>);

impl KeyChanges {
    /// Wraps the hints of a store that pushes them.
    #[must_use]
    pub fn new(hints: impl Stream<Item = KeyHint> + Send + 'static) -> Self {
        Self(Some(Box::pin(hints)))
    }

    /// Returns a stream that never yields, for a store that only answers polls.
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
