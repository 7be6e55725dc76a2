//! What tests of [encx](https://docs.rs/encx) need: an in-memory KMS and key store, a clock that tests set, and conformance
//! suites.
//!
//! - A service's tests begin with `Harness` (feature `harness`), a `Crypto` on a KMS and a key store in memory, with a clock
//!   that stands still until the test moves it.
//! - A KMS provider's mount [`kms_conformance!`], a key store's [`store_conformance!`]. They need `encx-core` alone.
//! - [`MemoryKms`] fails, slows down and throttles as a test orders, and counts its calls; so does [`MemoryKeyStore`].
//!   [`ManualClock`] drives both.
//!
//! For tests alone: keys in memory are lost with the process.
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
