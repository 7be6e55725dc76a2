//! A runtime for tests without one.

/// Runs a future to completion on a new multi-threaded runtime, for suites that are mounted in other crates.
///
/// # Panics
///
/// If no runtime can be started.
#[allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
