//! What tests need: an in-memory KMS and key store, a clock that tests set, and conformance suites.
//!
//! Behind feature `testkit`, for the tests of services and of providers. A service's tests begin with [`Harness`],
//! which puts the parts together. A provider's mount the suites: `kms_conformance!` and `store_conformance!`.

mod clock;
mod harness;
#[doc(hidden)]
pub mod kms_suite;
mod memory_kms;
mod memory_store;
mod store_suite;

pub use clock::ManualClock;
pub use harness::{Harness, HarnessClock};
pub use kms_suite::KmsFixture;
pub use memory_kms::{KmsCall, KmsCalls, MemoryKms};
pub use memory_store::MemoryKeyStore;
#[doc(hidden)]
pub use store_suite::store_case;
pub use store_suite::{AuditedChange, StoreCase, StoreFixture, store_cases};

/// Runs a future to its end on a new multi-threaded runtime, for suites that are mounted in other crates.
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
