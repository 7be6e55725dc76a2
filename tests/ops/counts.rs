//! Processes add their counts to the key store with their heartbeats.

use encx::kms::KmsOperation;
use encx::ops::HealthStatus;
use encx::store::{Counted, KeyStore, ProcessCounts, Timestamp};
use encx_test_support::{FaultHarness, SECOND, SSN, context, open, seal, settle, until, within};

/// The key store's counts for all days.
async fn stored(harness: &FaultHarness) -> ProcessCounts {
    let registry = harness.rows.processes().unwrap();
    let days = registry.daily_counts(Timestamp::from_micros(0)).await.unwrap();
    let mut all = ProcessCounts::new();
    for (what, count) in days.iter().flat_map(|day| day.counts.iter()) {
        all.add(what, count);
    }
    all
}

#[tokio::test]
async fn heartbeats_add_what_was_counted_since_the_last_one() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    let mine = context("a");
    let sealed = seal(&process, &mine).await;
    open(&process, &mine, &sealed).await.unwrap();
    within(process.decrypt(&mine, &sealed, SSN.row(2)))
        .await
        .unwrap_err();
    harness.pass(11 * SECOND).await;
    let counts = stored(&harness).await;
    let made = Counted::KmsCalls(KmsOperation::GenerateDataKey);
    let of = |counts: &ProcessCounts| {
        [Counted::Encrypts, Counted::Decrypts, Counted::Refusals, made].map(|what| counts.get(what))
    };
    assert_eq!(of(&counts), [1, 2, 1, 1]);
    // Nothing is written without changes, and nothing twice.
    let tries = harness.store.registry.tries();
    harness.pass(60 * SECOND).await;
    assert_eq!(stored(&harness).await, counts);
    assert_eq!(harness.store.registry.tries(), tries);
    // Another process adds to the same day.
    let other = harness.process().await;
    open(&other, &mine, &sealed).await.unwrap();
    seal(&process, &mine).await;
    harness.pass(11 * SECOND).await;
    assert_eq!(of(&stored(&harness).await), [2, 3, 1, 1]);
}

#[tokio::test]
async fn what_could_not_be_added_is_added_later_and_once() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    let mine = context("a");
    let sealed = seal(&process, &mine).await;
    harness.store.registry.fail_counts(true);
    for _ in 0..3 {
        let before = harness.store.registry.tries();
        open(&process, &mine, &sealed).await.unwrap();
        harness.pass(11 * SECOND).await;
        assert!(harness.store.registry.tries() > before);
        // Keys are still loaded.
        assert_eq!(process.health().status, HealthStatus::Up);
    }
    assert!(stored(&harness).await.is_empty());
    harness.store.registry.fail_counts(false);
    harness.pass(11 * SECOND).await;
    let counts = stored(&harness).await;
    assert_eq!(
        (counts.get(Counted::Encrypts), counts.get(Counted::Decrypts)),
        (1, 3)
    );
    harness.pass(60 * SECOND).await;
    assert_eq!(stored(&harness).await, counts);
}

#[tokio::test]
async fn counts_that_cannot_be_added_now_keep_no_fence_waiting() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    harness.store.registry.counts.hold();
    seal(&process, &context("a")).await;
    harness.pass(11 * SECOND).await;
    assert_eq!(harness.store.registry.counts.waiting(), 1);
    let registry = harness.rows.processes().unwrap();
    let fence = registry.raise_fence().await.unwrap();
    harness.pass(3 * SECOND).await;
    assert_eq!(harness.store.registry.counts.waiting(), 0);
    harness.pass(10 * SECOND).await;
    let processes = registry.list_processes().await.unwrap().processes;
    let acknowledged: Vec<_> = processes.iter().map(|process| process.acknowledged).collect();
    assert_eq!(acknowledged, [fence]);
    assert_eq!(process.health().status, HealthStatus::Up);
}

#[tokio::test]
async fn a_process_that_ends_adds_what_is_left() {
    for dropped in [false, true] {
        let harness = FaultHarness::new().with_registry();
        let process = harness.process().await;
        seal(&process, &context("a")).await;
        if dropped {
            drop(process);
            settle().await;
        } else {
            within(process.shutdown()).await;
        }
        until("it has signed off", || harness.store.registry.tries() > 0).await;
        settle().await;
        assert_eq!(stored(&harness).await.get(Counted::Encrypts), 1, "{dropped}");
    }
}
