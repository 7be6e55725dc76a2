//! Support for tests of [encx](https://docs.rs/encx): an in-memory KMS and key store, a clock that tests
//! control, and conformance suites.
//!
//! - A service's tests start with `Harness` (feature `harness`), a `Crypto` on an in-memory KMS and key store, with a
//!   clock that stands still until the test moves it.
//! - A KMS provider's tests mount [`kms_conformance!`], a key store's [`store_conformance!`]. They need only `encx-core`.
//! - [`MemoryKms`] fails, slows down and throttles on a test's request, and counts its calls; so does [`MemoryKeyStore`].
//!   [`ManualClock`] drives both.
//!
//! For tests only: in-memory keys are lost with the process.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
#[cfg(feature = "harness")]
mod harness;
#[doc(hidden)]
pub mod kms_suite;
mod memory_kms;
mod memory_store;
mod runtime;
mod store_suite;

pub use clock::ManualClock;
#[cfg(feature = "harness")]
pub use harness::{Harness, HarnessClock};
pub use kms_suite::KmsFixture;
pub use memory_kms::{KmsCall, KmsCalls, MemoryKms};
pub use memory_store::MemoryKeyStore;
pub use runtime::block_on;
#[doc(hidden)]
pub use store_suite::store_case;
pub use store_suite::{AuditedChange, StoreCase, StoreFixture, StoreOffer, store_cases};
