//! Keys over time and across processes: what is destroyed, and when; what processes know; what is done ahead.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod ahead;
mod building;
mod census;
mod maintenance;
mod model;
mod processes;

mod shred;
mod table;
mod traces;
mod warm_up;

use std::pin::pin;
use std::time::Duration;

use encx::Crypto;
use encx::keys::KeyManager;
use encx::store::{KeyStore, ProcessRecord};
use encx_test_support::{FaultHarness, settle, within};

/// Lets time go by in steps until something is done.
async fn drive<F: Future>(harness: &FaultHarness, step: Duration, work: F) -> F::Output {
    let mut work = pin!(work);
    within(async {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = settle() => harness.clock.advance(step),
            }
        }
    })
    .await
}

/// A process with a connection of its own, which nothing happens to.
async fn other_process(harness: &FaultHarness) -> Crypto {
    let builder = Crypto::builder(harness.kms.clone(), harness.rows.clone());
    let builder = builder.clock(harness.clock.clone()).process_name("other");
    // The KMS may be held.
    let process = builder.connect_lazily().build().await.unwrap();
    settle().await;
    process
}

/// A manager of a tool: it registers nowhere and holds no key.
fn tool(harness: &FaultHarness) -> KeyManager {
    harness.elsewhere()
}

/// What the key store knows of the processes.
async fn registry(harness: &FaultHarness) -> Vec<ProcessRecord> {
    let list = harness.rows.processes().unwrap().list_processes().await;
    list.unwrap().processes
}
