//! Keys over time and across processes: what is destroyed, and when; what the fleet knows; what is done ahead.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod census;
#[allow(dead_code, reason = "shared with the tests of the cache, which use the rest")]
#[path = "../cache/support.rs"]
mod support;
