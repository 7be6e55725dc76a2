//! How processes that share one PostgreSQL database learn of each other's changes.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod listen;
mod pooler;
mod wraps;

use std::time::Duration;

use tokio::time::Instant;

/// Waits until a condition holds.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} within 30 seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
