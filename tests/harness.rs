//! The harness for tests of services: its clock, its faults, its counts.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use encx::keys::KeyState;
use encx::kms::KmsErrorKind;
use encx::store::StoreError;
use encx::{Ciphertext, Clock, Crypto, Error, Plaintext};
use encx_test_support::{HOUR, MINUTE, SECOND, SSN, context};
use encx_testkit::{Harness, block_on};

async fn seal(crypto: &Crypto, tenant: &str) -> Result<Ciphertext, Error> {
    crypto.encrypt(&context(tenant), "123-45-6789", SSN.row(1)).await
}

async fn open(crypto: &Crypto, tenant: &str, sealed: &Ciphertext) -> Result<Plaintext, Error> {
    crypto.decrypt(&context(tenant), sealed, SSN.row(1)).await
}

fn message_of(panic: impl FnOnce()) -> String {
    let panicked = catch_unwind(AssertUnwindSafe(panic)).unwrap_err();
    panicked.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_wrong_number_of_calls_lists_them() {
    let harness = Harness::new().await;
    harness.assert_kms_calls(0);
    let sealed = seal(harness.crypto(), "t-1").await.unwrap();
    open(harness.crypto(), "t-1", &sealed).await.unwrap();
    harness.assert_kms_calls(1);
    harness.kms().fail_next(1, KmsErrorKind::AccessDenied);
    open(&harness.process().await, "t-1", &sealed).await.unwrap_err();
    let message = message_of(|| harness.assert_kms_calls(0));
    assert!(
        message.starts_with("expected 0 KMS calls and found 2:\n"),
        "{message}"
    );
    for part in [
        "generate a data key under KEK `memory/default` for encx:key=",
        "encx:usage=data, encx:v=1, purpose=pii, tenantId=t-1: done",
        "unwrap a data key with KEK `memory/default` for",
        "tenantId=t-1: access is denied",
    ] {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
    harness.kms().reset_calls();
    harness.assert_kms_calls(0);
    let message = message_of(|| harness.assert_kms_calls(1));
    assert_eq!(message, "expected 1 KMS calls and found 0");
}

#[tokio::test]
async fn more_calls_than_are_kept_are_counted_all_the_same() {
    let harness = Harness::new().await;
    for tenant in 0..120 {
        seal(harness.crypto(), &tenant.to_string()).await.unwrap();
    }
    harness.assert_kms_calls(120);
    let last = harness.kms().last_calls();
    assert_eq!(last.len(), 100);
    assert!(last[0].pairs.contains(&("tenantId".to_owned(), "20".to_owned())));
    let message = message_of(|| harness.assert_kms_calls(1));
    let first = "expected 1 KMS calls and found 120, of which these are the last 100:\n  generate a data key";
    assert!(message.starts_with(first), "{message}");
}

#[tokio::test]
async fn a_key_in_use_is_unwrapped_again_while_time_goes_by_and_another_leaves_memory() {
    let harness = Harness::new().await;
    let (a, b) = (harness.crypto(), harness.process().await);
    let sealed = seal(a, "t-1").await.unwrap();
    open(&b, "t-1", &sealed).await.unwrap();
    harness.clock().advance(50 * MINUTE).await;
    open(&b, "t-1", &sealed).await.unwrap();
    harness.kms().reset_calls();
    harness.clock().advance(11 * MINUTE).await;
    // One of them was not used after it was created.
    assert_eq!((a.stats().keys, a.stats().refreshes), (0, 0));
    assert_eq!((b.stats().keys, b.stats().refreshes), (1, 1));
    harness.assert_kms_calls(1);
    let misses = b.stats().misses;
    open(&b, "t-1", &sealed).await.unwrap();
    assert_eq!(b.stats().misses, misses);
    assert_eq!(harness.clock().elapsed(), HOUR + MINUTE);
}

#[tokio::test]
async fn what_another_process_changes_is_seen_within_a_minute_and_not_before() {
    let harness = Harness::new().await;
    let sealed = seal(harness.crypto(), "t-1").await.unwrap();
    let elsewhere = harness.process().await.key_manager();
    let context = context("t-1");
    let id = elsewhere.list(&context).await.unwrap()[0].id;
    elsewhere
        .set_state(&context, id, KeyState::Suspended)
        .await
        .unwrap();
    harness.clock().advance(SECOND).await;
    open(harness.crypto(), "t-1", &sealed).await.unwrap();
    let (polls, keys) = (harness.store().polls(), harness.crypto().stats().keys);
    harness.clock().advance(59 * SECOND).await;
    // The poll has seen it: the key is dropped without a request.
    assert!(harness.store().polls() > polls);
    assert_eq!((keys, harness.crypto().stats().keys), (1, 0));
    let refused = open(harness.crypto(), "t-1", &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
}

#[tokio::test]
async fn settings_are_those_of_every_process() {
    let harness = Harness::with(|builder| builder.ttl(MINUTE).create_on_first_use(false)).await;
    for crypto in [harness.crypto(), &harness.process().await] {
        let refused = seal(crypto, "t-1").await;
        assert!(matches!(refused, Err(Error::NoKeys)), "{refused:?}");
    }
    harness
        .crypto()
        .key_manager()
        .create(&context("t-1"))
        .await
        .unwrap();
    seal(harness.crypto(), "t-1").await.unwrap();
    assert_eq!(harness.crypto().stats().keys, 1);
    harness.kms().fail_until_cleared(KmsErrorKind::Unavailable);
    harness.clock().advance(MINUTE + SECOND).await;
    assert_eq!(harness.crypto().stats().keys, 0);
}

#[tokio::test]
async fn faults_last_as_long_as_ordered() {
    let harness = Harness::new().await;
    let crypto = harness.crypto();
    harness.kms().fail_next(2, KmsErrorKind::Throttled);
    for _ in 0..2 {
        let error = seal(crypto, "t-1").await.unwrap_err();
        let kind = KmsErrorKind::Throttled;
        assert!(
            matches!(&error, Error::Kms(error) if error.kind() == kind),
            "{error:?}"
        );
    }
    harness.kms().fail_until_cleared(KmsErrorKind::AccessDenied);
    assert!(!seal(crypto, "t-1").await.unwrap_err().is_retryable());
    harness.kms().clear_faults();
    seal(crypto, "t-1").await.unwrap();

    harness.store().fail_next(1, StoreError::Conflict);
    harness
        .store()
        .fail_next(1, StoreError::unavailable(std::io::Error::other("gone")));
    let lists = crypto.key_manager();
    assert!(matches!(
        lists.list(&context("t-1")).await,
        Err(Error::Store(StoreError::Conflict))
    ));
    let error = lists.list(&context("t-1")).await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Unavailable { .. })));
    let gone = StoreError::unavailable(std::io::Error::other("gone"));
    harness.store().fail_until_cleared(gone);
    seal(crypto, "t-2").await.unwrap_err();
    // Keys in memory serve.
    seal(crypto, "t-1").await.unwrap();
    harness.clock().advance(5 * MINUTE).await;
    assert!(crypto.stats().failed_polls > 0);
    harness.store().clear_faults();
    harness.clock().advance(MINUTE).await;
    seal(crypto, "t-2").await.unwrap();
}

#[tokio::test]
async fn a_slow_kms_takes_the_clocks_time() {
    let harness = Harness::new().await;
    harness.kms().set_latency(5 * SECOND);
    let began = harness.clock().elapsed();
    let request = async {
        seal(harness.crypto(), "t-1").await.unwrap();
        harness.clock().elapsed()
    };
    // Each event at its time, however far the clock is moved at once.
    let (answered, ()) = tokio::join!(request, harness.clock().advance(MINUTE));
    assert_eq!(answered - began, 5 * SECOND);
    assert_eq!(harness.clock().elapsed() - began, MINUTE);
}

#[tokio::test]
async fn a_throttled_kms_lets_so_many_calls_through_in_a_period() {
    let harness = Harness::new().await;
    harness.kms().throttle(2, 10 * SECOND);
    let crypto = harness.crypto();
    let is_throttled = async |tenant: &str| {
        let outcome = seal(crypto, tenant).await;
        let kind = KmsErrorKind::Throttled;
        let is_throttled = matches!(&outcome, Err(Error::Kms(error)) if error.kind() == kind);
        assert!(is_throttled || outcome.is_ok(), "{outcome:?}");
        is_throttled
    };
    assert!(!is_throttled("t-1").await);
    harness.clock().advance(4 * SECOND).await;
    assert!(!is_throttled("t-2").await);
    harness.clock().advance(4 * SECOND).await;
    assert!(is_throttled("t-3").await);
    // The first call is long enough ago, and refusals do not count.
    harness.clock().advance(2 * SECOND).await;
    assert!(!is_throttled("t-3").await);
    assert!(is_throttled("t-4").await);
    harness.kms().clear_faults();
    assert!(!is_throttled("t-4").await);
}

#[tokio::test]
async fn a_lost_race_leaves_one_active_key_which_everybody_uses() {
    let harness = Harness::new().await;
    harness.lose_next_race();
    let sealed = seal(harness.crypto(), "t-1").await.unwrap();
    assert_eq!(harness.store().records().len(), 1);
    // Two keys were created. The loser's is discarded, and the loser unwraps the winner's.
    let calls = harness.kms().calls();
    assert_eq!((calls.generate, calls.unwrap), (2, 1));
    open(&harness.process().await, "t-1", &sealed).await.unwrap();

    harness.lose_next_race();
    let rotated = harness
        .crypto()
        .key_manager()
        .rotate(&context("t-1"))
        .await
        .unwrap();
    let records = harness.store().records();
    let active: Vec<_> = records
        .iter()
        .filter(|record| record.state == KeyState::Active)
        .collect();
    assert_eq!((active.len(), active[0].id), (1, rotated.id));
    assert_eq!(records.len(), 2, "both get the version that won");
}

#[test]
fn a_runtime_of_several_threads_is_refused() {
    block_on(async {
        let harness = Harness::new().await;
        seal(harness.crypto(), "t-1").await.unwrap();
        let clock = harness.clock().clone();
        let refused = tokio::spawn(async move { clock.advance(SECOND).await }).await;
        let panicked = refused.unwrap_err().into_panic();
        let message = panicked.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(message.contains("a runtime of one thread"), "{message}");
    });
}
