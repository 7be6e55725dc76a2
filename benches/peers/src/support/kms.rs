//! Counts the calls that first uses of a key cost, when many come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How many tasks, or threads, use one key for the first time at once.
pub(crate) const CROWDS: [usize; 2] = [64, 1000];
/// How many keys are used once each, one after the other.
pub(crate) const KEYS: usize = 1000;

/// How long a call takes that others may come during: about as long as one to a cloud's KMS in the same region.
pub(crate) const LATENCY: Duration = Duration::from_millis(10);

/// How many KMS calls a library made.
#[derive(Clone, Copy)]
pub(crate) struct KmsCalls {
    /// For encryptions at once under a key that does not exist yet, by [`CROWDS`].
    pub(crate) encrypt: [Stampede; 2],
    /// For decryptions at once in a process that has just begun, by [`CROWDS`].
    pub(crate) decrypt: [Stampede; 2],
    /// For one encryption under each of [`KEYS`] new keys, one after the other.
    pub(crate) keys: u64,
}

/// What a crowd cost.
#[derive(Clone, Copy)]
pub(crate) struct Stampede {
    pub(crate) calls: u64,
    /// How many of the crowd got an error.
    pub(crate) failed: usize,
}

/// Counts calls, and makes each as slow as a KMS. Clones share one count.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    calls: Arc<AtomicU64>,
    latency: Duration,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            calls: Arc::default(),
            latency: LATENCY,
        }
    }

    /// Counts without waiting, for calls that come one after the other.
    pub(crate) fn instant() -> Self {
        Self {
            latency: Duration::ZERO,
            ..Self::new()
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) async fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    pub(crate) fn call_blocking(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency);
        }
    }
}

/// Starts a runtime as a service has one.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
}

/// Runs so many tasks that begin together, and counts the calls that they cause. A task tells whether it succeeded.
pub(crate) fn tasks<F>(runtime: &Runtime, count: usize, meter: &Meter, task: impl Fn() -> F) -> Stampede
where
    F: Future<Output = bool> + Send + 'static,
{
    let ended = runtime.block_on(async {
        let barrier = Arc::new(tokio::sync::Barrier::new(count));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (barrier, task) = (Arc::clone(&barrier), task());
            tasks.spawn(async move {
                barrier.wait().await;
                task.await
            });
        }
        tasks.join_all().await
    });
    Stampede {
        calls: meter.calls(),
        failed: ended.into_iter().filter(|succeeded| !succeeded).count(),
    }
}

/// The same with threads, for libraries whose calls block.
pub(crate) fn threads<T>(
    count: usize,
    meter: &Meter,
    prepare: impl Fn() -> T + Sync,
    call: impl Fn(T) -> bool + Sync,
) -> Stampede {
    let barrier = std::sync::Barrier::new(count);
    let thread = || {
        let prepared = prepare();
        barrier.wait();
        call(prepared)
    };
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(thread)).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends"));
        ended.filter(|succeeded| !succeeded).count()
    });
    Stampede {
        calls: meter.calls(),
        failed,
    }
}
