//! The counters of processes.

use std::time::Duration;

use encx::kms::{KmsErrorKind, KmsOperation, KmsOutcome, LatencyStats};
use encx::{Aad, Crypto};
use encx_test_support::{FaultHarness, SSN, context, open, seal, settle, within};
use encx_testkit::MemoryKms;

#[tokio::test]
async fn calls_are_counted_by_operation_and_outcome() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    let again = harness.process().await;
    open(&again, &context("a"), &sealed).await.unwrap();
    for kind in [KmsErrorKind::AccessDenied, KmsErrorKind::Unavailable] {
        harness.kms.fail_next(1, kind);
        within(again.encrypt(&context("b"), "", SSN.row(1)))
            .await
            .unwrap_err();
    }
    let stats = again.stats();
    let kms = &stats.kms[0];
    let made = kms.of(KmsOperation::GenerateDataKey);
    assert_eq!(made.count(KmsOutcome::Failed(KmsErrorKind::AccessDenied)), 1);
    assert_eq!(made.count(KmsOutcome::Failed(KmsErrorKind::Unavailable)), 1);
    assert_eq!((made.calls(), made.failures()), (2, 2));
    let unwrapped = kms.of(KmsOperation::UnwrapKey);
    assert_eq!(unwrapped.outcomes, [(KmsOutcome::Ok, 1)]);
    assert_eq!(kms.calls(), stats.kms_calls);
    // Each process has its own counters.
    assert_eq!(process.stats().kms[0].of(KmsOperation::UnwrapKey).calls(), 0);
    assert_eq!(process.stats().kms[0].calls(), 1);
}

#[tokio::test]
async fn latencies_are_measured_by_the_clock_that_was_given() {
    let harness = FaultHarness::new();
    let kms = MemoryKms::new().with_latency(harness.clock.clone(), Duration::from_millis(30));
    let builder = Crypto::builder(kms.clone(), harness.store.clone());
    let builder = builder.clock(harness.clock.clone()).connect_lazily();
    let process = harness.built(builder).await;
    let (context, crypto) = (context("a"), process.clone());
    let call = tokio::spawn(async move { crypto.encrypt(&context, "x", Aad::unbound()).await });
    within(kms.until_in_flight(1)).await;
    harness.clock.advance(Duration::from_millis(30));
    within(call).await.unwrap().unwrap();
    let latency = process.stats().kms[0].of(KmsOperation::GenerateDataKey).latency;
    let bucket = LatencyStats::BOUNDS
        .iter()
        .position(|bound| *bound == Duration::from_millis(50))
        .unwrap();
    assert_eq!((latency.count(), latency.buckets[bucket]), (1, 1));
    assert_eq!(latency.sum, Duration::from_millis(30));
}

#[tokio::test]
async fn a_call_that_took_too_long_is_counted_as_such_and_one_that_was_given_up_too() {
    let harness = FaultHarness::new();
    let process = harness
        .built(harness.builder().load_timeout(Duration::from_secs(3)))
        .await;
    harness.kms.hold();
    let (context, crypto) = (context("a"), process.clone());
    let call = tokio::spawn(async move { crypto.encrypt(&context, "x", Aad::unbound()).await });
    within(harness.kms.until_in_flight(1)).await;
    harness.clock.advance(Duration::from_secs(3));
    within(call).await.unwrap().unwrap_err();
    settle().await;
    let stats = process.stats();
    let made = stats.kms[0].of(KmsOperation::GenerateDataKey);
    let given_up = made.count(KmsOutcome::TimedOut) + made.count(KmsOutcome::Cancelled);
    assert_eq!((made.calls(), given_up), (1, 1), "{made:?}");
    assert_eq!(process.health().checks[0].status, encx::ops::HealthStatus::Down);
    harness.kms.release();
}

#[tokio::test]
async fn encryptions_and_decryptions_are_counted_apart_whether_they_waited_or_not() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let (a, b) = (context("a"), context("b"));
    let sealed = seal(&process, &a).await;
    for _ in 0..3 {
        seal(&process, &a).await;
    }
    open(&process, &a, &sealed).await.unwrap();
    let stats = process.stats();
    assert_eq!((stats.encrypts, stats.decrypts), (4, 1));
    assert_eq!((stats.hits, stats.misses), (4, 1));
    // Batches wait once per key, and process all their values.
    let items = (0..10).map(|row| (if row % 2 == 0 { &a } else { &b }, "x", SSN.row(row)));
    let done = within(process.encrypt_many(items)).await;
    assert!(done.iter().all(Result::is_ok));
    let stats = process.stats();
    assert_eq!((stats.encrypts, stats.decrypts), (14, 1));
    let other = harness.process().await;
    let sealed: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    let items = sealed
        .iter()
        .zip(0..)
        .map(|(sealed, row)| (if row % 2 == 0 { &a } else { &b }, sealed, SSN.row(row)));
    let opened = within(other.decrypt_many(items)).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!((other.stats().encrypts, other.stats().decrypts), (0, 10));
    // What cannot be served is not counted as served.
    harness.kms.set_unavailable(true);
    within(other.encrypt(&context("c"), "", SSN.row(1)))
        .await
        .unwrap_err();
    assert_eq!((other.stats().encrypts, other.stats().decrypts), (0, 10));
}
