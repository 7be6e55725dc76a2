//! Counts the KMS calls of many concurrent first uses of a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The number of tasks, or threads, that use one key for the first time at once.
pub(crate) const CROWDS: [usize; 2] = [64, 1000];
/// The number of keys that are used once each, in sequence.
pub(crate) const KEYS: usize = 1000;

/// The latency of a call, during which others may arrive: about that of a cloud's KMS in the same region.
pub(crate) const LATENCY: Duration = Duration::from_millis(10);

/// The number of KMS calls of a library.
#[derive(Clone, Copy)]
pub(crate) struct KmsCalls {
    /// For concurrent encryptions under a key that does not exist yet, by [`CROWDS`].
    pub(crate) encrypt: [Stampede; 2],
    /// For concurrent decryptions in a process that has just started, by [`CROWDS`].
    pub(crate) decrypt: [Stampede; 2],
    /// For one encryption under each of [`KEYS`] new keys, in sequence.
    pub(crate) keys: u64,
}

/// The cost of a crowd.
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

    /// Counts without waiting, for calls in sequence.
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

/// Starts a runtime like that of a service.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
}

/// Runs this many tasks that start together, and counts the calls they cause. A task returns whether it succeeded.
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

/// The same with threads, for libraries with blocking calls.
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
