//! Keys over time and across processes: destruction, what processes know, and work done ahead of time.

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

/// Advances time in steps until a future is done.
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

/// A process with its own, unaffected connection.
async fn other_process(harness: &FaultHarness) -> Crypto {
    let builder = Crypto::builder(harness.kms.clone(), harness.rows.clone());
    let builder = builder.clock(harness.clock.clone()).process_name("other");
    // The KMS may be held.
    let process = builder.connect_lazily().build().await.unwrap();
    settle().await;
    process
}

/// A tool's manager: it does not register and holds no key.
fn tool(harness: &FaultHarness) -> KeyManager {
    harness.elsewhere()
}

/// The processes in the key store's registry.
async fn registry(harness: &FaultHarness) -> Vec<ProcessRecord> {
    let list = harness.rows.processes().unwrap().list_processes().await;
    list.unwrap().processes
}
