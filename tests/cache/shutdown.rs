//! Everything stops on `shutdown` and when the last handle is dropped.

use std::sync::Arc;

use encx::{Crypto, Error, Keyring};
use encx_test_support::{Connection, FaultHarness, SSN, context, open, seal, until, within};
use tokio::task::JoinSet;

/// Builds a process that holds its key store in an `Arc`, so that a test sees when the last reference is gone.
async fn traced(harness: &FaultHarness) -> (Crypto, Arc<Connection>) {
    let store = Arc::new(harness.store.clone());
    let builder = Crypto::builder(harness.kms.clone(), Arc::clone(&store)).clock(harness.clock.clone());
    (harness.built(builder).await, store)
}

async fn until_unused(store: &Arc<Connection>) {
    until("the last task to end", || Arc::strong_count(store) == 1).await;
}

fn assert_shut_down<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    assert!(matches!(outcome, Err(Error::ShutDown)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shutdown_stops_everything() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, store) = traced(&harness).await;
    let (clone, context) = (process.clone(), context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    within(process.shutdown()).await;
    assert_eq!(process.stats().keys, 0);
    assert_eq!(process.stats().keyrings, 0);

    for process in [&process, &clone] {
        assert_shut_down(within(process.encrypt(&context, "", SSN.row(1))).await);
        assert_shut_down(open(process, &context, &sealed).await);
        assert_shut_down(within(process.keyring(&context)).await);
        assert_shut_down(within(process.needs_reencryption(&context, &sealed)).await);
        for outcome in within(process.encrypt_many([(&context, "", SSN.row(1))])).await {
            assert_shut_down(outcome);
        }
        for outcome in within(process.decrypt_many([(&context, &sealed, SSN.row(1))])).await {
            assert_shut_down(outcome);
        }
    }
    assert_shut_down(within(keyring.encrypt("", SSN.row(1))).await);
    assert_shut_down(within(keyring.decrypt(&sealed, SSN.row(1))).await);
    assert_shut_down(within(keyring.needs_reencryption(&sealed)).await);
    assert_shut_down(keyring.try_encrypt("", SSN.row(1)));
    assert_shut_down(keyring.try_decrypt(&sealed, SSN.row(1)));
    within(clone.shutdown()).await;
    assert_eq!(process.stats().keys, 0);

    drop((process, clone, keyring));
    assert_eq!(Arc::strong_count(&store), 1);
}

#[tokio::test]
async fn a_caller_that_waits_at_the_shutdown_gets_an_error() {
    let harness = FaultHarness::new();
    let (process, store) = traced(&harness).await;
    harness.kms.hold();
    let mut calls = JoinSet::new();
    for caller in 0..20 {
        let process = process.clone();
        calls.spawn(async move { process.encrypt(&context(caller % 2), "", SSN.row(1)).await });
    }
    within(harness.kms.until_in_flight(2)).await;
    within(process.shutdown()).await;
    // The calls to the KMS were dropped before `shutdown` returned.
    assert_eq!(harness.kms.in_flight(), 0);
    for outcome in within(calls.join_all()).await {
        assert_shut_down(outcome);
    }
    drop(process);
    until_unused(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_amid_many_first_uses_leaves_no_key_behind() {
    for round in 0..20 {
        let harness = FaultHarness::with_hints();
        let (process, store) = traced(&harness).await;
        let mut calls = JoinSet::new();
        for tenant in 0..100 {
            let process = process.clone();
            calls.spawn(async move { process.encrypt(&context(tenant), "", SSN.row(1)).await });
        }
        until("some calls to be done", || process.stats().kms_calls > round).await;
        within(process.shutdown()).await;
        for outcome in within(calls.join_all()).await {
            assert!(matches!(outcome, Ok(_) | Err(Error::ShutDown)), "{outcome:?}");
        }
        assert_eq!(process.stats().keys, 0);
        drop(process);
        until_unused(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_stops_with_the_last_handle() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, store) = traced(&harness).await;
    seal(&process, &context("a")).await;
    let keyring: Keyring = process.keyring(&context("a")).await.unwrap();
    let manager = process.key_manager();
    drop(process);
    // A keyring and a manager are handles too.
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    drop(keyring);
    manager.rotate(&context("a")).await.unwrap();
    drop(manager);
    until_unused(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_load_that_everybody_left_stops_with_the_last_handle() {
    let harness = FaultHarness::new();
    let (process, store) = traced(&harness).await;
    harness.kms.hold();
    let left = tokio::spawn(async move { process.encrypt(&context("a"), "", SSN.row(1)).await });
    within(harness.kms.until_in_flight(1)).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    until_unused(&store).await;
    assert_eq!(harness.kms.in_flight(), 0);
}
