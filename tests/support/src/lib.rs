//! Shared code of this workspace's tests. It is not published.
//!
//! - Most tests use `encx_testkit::Harness`, like those of a service. [`HarnessExt`] adds what only our own tests need.
//! - A test of faults uses a [`FaultHarness`]: the process under test has a [`Connection`] that the test can hold and
//!   break.
//! - [`SSN`], [`NAME`] and [`context`] are the default fields and context of tests.
//! - [`settle`], [`until`], [`within`] and [`at_once`] wait without a fixed sleep.
//! - [`error_types`] finds the public errors of a package.
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    clippy::return_self_not_must_use,
    clippy::unwrap_used,
    reason = "test code: a panic is a failed test, and documentation is for who writes tests"
)]

mod connection;
pub mod error_types;
mod fault_harness;
mod gate;
mod harness_ext;
mod registry;
mod standard;
mod waiting;

pub use connection::Connection;
pub use fault_harness::FaultHarness;
pub use gate::Gate;
pub use harness_ext::HarnessExt;
pub use registry::Registry;
pub use standard::{
    HOUR, MINUTE, NAME, SECOND, SSN, context, open, open_at_once, seal, seal_at_once, with_unknown_key,
};
pub use waiting::{at_once, settle, until, within};
