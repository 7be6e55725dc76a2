//! Processes on a KMS, a database and a clock in memory, with a connection that a test can hold and break.

use std::time::Duration;

use encx::keys::{DataKeyId, KeyManager, KeyState};
use encx::{Clock, Crypto, CryptoBuilder, EncryptionContext};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

use crate::connection::Connection;
use crate::standard::{MINUTE, SECOND};
use crate::waiting::{settle, until};

/// A KMS, a database and a clock in memory, which processes share, and the connection of the process under test.
///
/// `encx_testkit::Harness` has one key store for all its processes, and moves time from one event to the next. This one
/// has faults that only one process sees, and time that jumps past due events.
#[derive(Debug)]
pub struct FaultHarness {
    /// The clock of all processes.
    pub clock: ManualClock,
    /// The KMS.
    pub kms: MemoryKms,
    /// The database itself: what other processes see, regardless of `store`.
    pub rows: MemoryKeyStore,
    /// The connection of the process under test.
    pub store: Connection,
}

impl FaultHarness {
    /// Creates one whose key store pushes no hints, so that only polls show changes.
    pub fn new() -> Self {
        Self::of(false)
    }

    /// Creates one whose key store pushes hints.
    pub fn with_hints() -> Self {
        Self::of(true)
    }

    /// Adds a registry of processes to its key store.
    #[must_use]
    pub fn with_registry(mut self) -> Self {
        self.store.coordinates = true;
        self
    }

    /// Gives its key store leases and jobs, but no registry.
    pub fn without_registry(mut self) -> Self {
        self.store.coordinates = true;
        self.store.registers = false;
        self
    }

    fn of(hints: bool) -> Self {
        let clock = ManualClock::new();
        let rows = MemoryKeyStore::with_clock(clock.clone());
        Self {
            store: Connection::new(rows.clone(), hints),
            kms: MemoryKms::new(),
            clock,
            rows,
        }
    }

    /// Begins a process on the connection under test. Its `build` calls neither the KMS nor the key store: tests count
    /// calls, and set faults before.
    pub fn builder(&self) -> CryptoBuilder {
        Crypto::builder(self.kms.clone(), self.store.clone())
            .clock(self.clock.clone())
            .connect_lazily()
    }

    /// Starts a process with default settings.
    pub async fn process(&self) -> Crypto {
        self.built(self.builder()).await
    }

    /// Starts a process, and waits for its first poll, so that none is in flight when the test begins.
    pub async fn built(&self, builder: CryptoBuilder) -> Crypto {
        let before = self.rows.polls();
        let crypto = builder.build().await.unwrap();
        until("the first poll", || self.rows.polls() > before).await;
        settle().await;
        crypto
    }

    /// Manages keys in another process, without informing the one under test.
    pub fn elsewhere(&self) -> KeyManager {
        Crypto::builder(self.kms.clone(), self.rows.clone())
            .clock(self.clock.clone())
            .build_key_manager()
            .unwrap()
    }

    /// Advances time in small steps, so that polls, sweeps and other due work run.
    pub async fn pass(&self, time: Duration) {
        self.pass_with(time, || {}).await;
    }

    /// The same, with a request between the steps.
    pub async fn pass_with(&self, time: Duration, mut request: impl FnMut()) {
        let until = self.clock.elapsed() + time;
        while self.clock.elapsed() < until {
            self.clock
                .advance((until - self.clock.elapsed()).min(10 * SECOND));
            settle().await;
            request();
        }
    }

    /// Suspends the active version in another process.
    pub async fn suspend_elsewhere(&self, context: &EncryptionContext) -> DataKeyId {
        let versions = self.elsewhere().list(context).await.unwrap();
        let active = versions.iter().find(|version| version.state == KeyState::Active);
        let id = active.unwrap().id;
        let manager = self.elsewhere();
        manager.set_state(context, id, KeyState::Suspended).await.unwrap();
        id
    }

    /// Advances half of the default `state_ttl`, and waits for the poll in it.
    pub async fn next_poll(&self) {
        let before = self.rows.polls();
        self.clock.advance(MINUTE / 2);
        until("the next poll", || self.rows.polls() > before).await;
        settle().await;
    }

    /// The same, while the key store is down.
    pub async fn next_failed_poll(&self, process: &Crypto) {
        let before = process.stats().failed_polls;
        self.clock.advance(MINUTE / 2);
        until("the next poll to fail", || process.stats().failed_polls > before).await;
        settle().await;
    }
}

impl Default for FaultHarness {
    fn default() -> Self {
        Self::new()
    }
}
