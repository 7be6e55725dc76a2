//! A registry of processes that can refuse counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use encx::store::{
    DailyCounts, Fence, KeyStore, ProcessCounts, ProcessId, ProcessInfo, ProcessList, ProcessRegistry,
    StoreError, Timestamp,
};
use encx_testkit::MemoryKeyStore;

use crate::gate::Gate;

/// The registry of a key store in memory.
#[derive(Clone, Debug)]
pub struct Registry {
    rows: MemoryKeyStore,
    counts_fail: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
    /// Holds the calls that add counts.
    pub counts: Gate,
}

impl Registry {
    pub(crate) fn new(rows: MemoryKeyStore) -> Self {
        Self {
            rows,
            counts_fail: Arc::default(),
            tries: Arc::default(),
            counts: Gate::new(),
        }
    }

    /// Makes every call fail that adds counts, until `false` is set.
    pub fn fail_counts(&self, fail: bool) {
        self.counts_fail.store(fail, Ordering::SeqCst);
    }

    /// Returns how often counts were submitted.
    pub fn tries(&self) -> usize {
        self.tries.load(Ordering::SeqCst)
    }

    fn inner(&self) -> &dyn ProcessRegistry {
        self.rows.processes().unwrap()
    }
}

#[async_trait]
impl ProcessRegistry for Registry {
    async fn heartbeat(&self, process: &ProcessInfo) -> Result<Fence, StoreError> {
        self.inner().heartbeat(process).await
    }

    async fn acknowledge(&self, process: ProcessId, fence: Fence) -> Result<(), StoreError> {
        self.inner().acknowledge(process, fence).await
    }

    async fn deregister(&self, process: ProcessId) -> Result<(), StoreError> {
        self.inner().deregister(process).await
    }

    async fn raise_fence(&self) -> Result<Fence, StoreError> {
        self.inner().raise_fence().await
    }

    async fn list_processes(&self) -> Result<ProcessList, StoreError> {
        self.inner().list_processes().await
    }

    async fn add_counts(&self, counts: &ProcessCounts) -> Result<(), StoreError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        self.counts.pass().await;
        if self.counts_fail.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable(std::io::Error::other("no counts")));
        }
        self.inner().add_counts(counts).await
    }

    async fn daily_counts(&self, since: Timestamp) -> Result<Vec<DailyCounts>, StoreError> {
        self.inner().daily_counts(since).await
    }
}
