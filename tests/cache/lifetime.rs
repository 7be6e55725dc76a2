//! How long keys are used and kept, how many are kept, and what is counted.

use encx::{Crypto, Error, Stats};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open, seal, settle, until, with_unknown_key, within,
};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_key_is_unwrapped_again_after_its_ttl_and_not_before() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().refresh_ahead(0.0)).await;
    let context = context("a");
    let sealed = seal(&process, &context).await;
    harness.clock.advance(HOUR - SECOND);
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 0);
    harness.clock.advance(SECOND);
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
    // From then on it lives for another full `ttl`.
    harness.clock.advance(HOUR - SECOND);
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
}

#[tokio::test]
async fn a_key_is_not_used_past_its_ttl_even_if_it_is_still_in_memory() {
    let harness = FaultHarness::new();
    // States never expire here: only the key's own time matters.
    let process = harness.built(harness.builder().state_ttl(100 * HOUR)).await;
    let context = context("a");
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.clock.advance(HOUR - SECOND);
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    harness.clock.advance(SECOND);
    // This test's only thread has not yielded since, so the sweeper cannot have run.
    assert_eq!(process.stats().keys, 1);
    assert!(matches!(
        keyring.try_encrypt("", SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert!(matches!(
        keyring.try_decrypt(&sealed, SSN.row(1)),
        Err(Error::NotReady)
    ));
    harness.kms.set_unavailable(true);
    let failed = open(&process, &context, &sealed).await;
    assert!(matches!(failed, Err(Error::Kms(_))), "{failed:?}");
}

#[tokio::test]
async fn keys_leave_memory_in_an_idle_process() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    for tenant in 0..5 {
        seal(&process, &context(tenant)).await;
    }
    harness.clock.advance(HOUR / 2);
    settle().await;
    seal(&process, &context("later")).await;
    assert_eq!(process.stats().keys, 6);
    harness.clock.advance(HOUR / 2);
    until("the sweep of five keys", || process.stats().keys == 1).await;
    harness.clock.advance(HOUR / 2);
    until("the sweep of the last key", || process.stats().keys == 0).await;
    assert_eq!(harness.kms.calls().total(), 6);
}

#[tokio::test]
async fn a_keyring_that_is_held_across_that_works_again() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.clock.advance(HOUR);
    until("the sweep", || process.stats().keys == 0).await;
    assert!(matches!(
        keyring.try_decrypt(&sealed, SSN.row(1)),
        Err(Error::NotReady)
    ));
    within(keyring.decrypt(&sealed, SSN.row(1))).await.unwrap();
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
}

#[tokio::test]
async fn a_keyring_that_was_just_asked_for_is_ready() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().state_ttl(100 * HOUR)).await;
    let context = context("a");
    seal(&process, &context).await;
    harness.clock.advance(HOUR);
    // The sweeper has not run: an expired key is still in the cache.
    let keyring = within(process.keyring(&context)).await.unwrap();
    keyring.try_encrypt("", SSN.row(1)).unwrap();
}

#[tokio::test]
async fn an_operation_that_is_under_way_when_its_key_expires_still_ends() {
    let harness = FaultHarness::new();
    let context = context("a");
    let sealed = seal(&harness.process().await, &context).await;
    let process = harness.built(harness.builder().ttl(10 * SECOND)).await;
    harness.kms.hold();
    let call = tokio::spawn({
        let (process, context, sealed) = (process.clone(), context.clone(), sealed.clone());
        async move { process.decrypt(&context, &sealed, SSN.row(1)).await }
    });
    within(harness.kms.until_in_flight(1)).await;
    harness.clock.advance(15 * SECOND);
    harness.kms.release();
    within(call).await.unwrap().unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
    // It was valid for that one operation: its `ttl` starts when its unwrapping began.
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 2);
}

#[tokio::test]
async fn no_more_keyrings_than_allowed_are_kept_nor_their_keys() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_keyrings(10)).await;
    for tenant in 0..50 {
        seal(&process, &context(tenant)).await;
    }
    let stats = process.stats();
    assert_eq!((stats.keyrings, stats.keys), (10, 10));
}

/// Forces the cache to update its usage order, which it otherwise does occasionally.
fn take_stock(process: &Crypto) {
    let _ = process.stats();
}

#[tokio::test]
async fn the_least_recently_used_keyring_is_dropped() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_keyrings(3)).await;
    let mut sealed = Vec::new();
    for tenant in ["a", "b", "c", "a", "d"] {
        sealed.push((tenant, seal(&process, &context(tenant)).await));
        take_stock(&process);
    }
    let unwraps = || harness.kms.calls().unwrap;
    for tenant in ["a", "c", "d"] {
        let (_, sealed) = sealed.iter().find(|(of, _)| *of == tenant).unwrap();
        open(&process, &context(tenant), sealed).await.unwrap();
        assert_eq!(unwraps(), 0, "{tenant}");
    }
    open(&process, &context("b"), &sealed[1].1).await.unwrap();
    assert_eq!(unwraps(), 1);
}

#[tokio::test]
async fn a_keyring_that_is_used_through_its_handle_counts_as_used() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_keyrings(2)).await;
    seal(&process, &context("handle")).await;
    let keyring = process.keyring(&context("handle")).await.unwrap();
    seal(&process, &context("b")).await;
    take_stock(&process);
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    harness.next_poll().await;
    take_stock(&process);
    seal(&process, &context("c")).await;
    assert_eq!(process.stats().keyrings, 2);
    keyring.try_encrypt("", SSN.row(1)).unwrap();
}

#[tokio::test]
async fn a_keyring_that_was_dropped_while_it_is_held_comes_back() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_keyrings(1)).await;
    seal(&process, &context("a")).await;
    let keyring = process.keyring(&context("a")).await.unwrap();
    let clone = keyring.clone();
    seal(&process, &context("b")).await;
    assert_eq!(process.stats().keys, 1);
    assert!(matches!(
        keyring.try_encrypt("", SSN.row(1)),
        Err(Error::NotReady)
    ));
    within(keyring.encrypt("", SSN.row(1))).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    clone.try_encrypt("", SSN.row(1)).unwrap();
    assert_eq!(process.stats().keyrings, 1);
}

#[tokio::test]
async fn a_key_that_arrives_for_a_dropped_keyring_serves_its_caller_and_is_not_kept() {
    let harness = FaultHarness::new();
    let other = harness.process().await;
    let sealed = seal(&other, &context("a")).await;
    let newer = seal(&other, &context("b")).await;
    let process = harness.built(harness.builder().max_keyrings(1)).await;
    harness.kms.hold();
    let call = tokio::spawn({
        let (process, sealed) = (process.clone(), sealed.clone());
        async move { process.decrypt(&context("a"), &sealed, SSN.row(1)).await }
    });
    within(harness.kms.until_in_flight(1)).await;
    // Needs only the key store.
    assert!(!process.needs_reencryption(&context("b"), &newer).await.unwrap());
    assert_eq!(process.stats().keyrings, 1);
    harness.kms.release();
    within(call).await.unwrap().unwrap();
    until("the key to leave memory", || process.stats().keys == 0).await;
    open(&process, &context("a"), &sealed).await.unwrap();
}

#[tokio::test]
async fn the_counts_are_right() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let (a, b) = (context("a"), context("b"));
    let mut before = process.stats();
    // Each registered KMS is listed from the start.
    assert!(before.kms.iter().all(|kms| kms.operations.is_empty()));
    before.kms.clear();
    assert_eq!(before, Stats::default());

    let sealed = seal(&process, &a).await;
    seal(&process, &b).await;
    open(&process, &a, &sealed).await.unwrap();
    let keyring = process.keyring(&a).await.unwrap();
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    let items = [(&a, "", SSN.row(1)), (&b, "", SSN.row(2)), (&b, "", SSN.row(3))];
    assert!(process.encrypt_many(items).await.iter().all(Result::is_ok));
    let refused = open(&process, &a, &with_unknown_key(&sealed)).await;
    assert!(refused.is_err());

    let stats = process.stats();
    assert_eq!((stats.encrypts, stats.decrypts), (2 + 3, 2));
    assert_eq!(stats.hits, 2 + 3);
    assert_eq!(stats.misses, 3);
    assert_eq!(stats.kms_calls, 2);
    assert_eq!(stats.store_loads, 3);
    assert_eq!((stats.stale_serves, stats.failed_polls), (0, 0));
    assert_eq!((stats.keyrings, stats.keys), (2, 2));

    harness.store.set_down(true);
    harness.next_failed_poll(&process).await;
    harness.clock.advance(MINUTE);
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    let stats = process.stats();
    assert_eq!((stats.stale_serves, stats.hits), (1, 6));
    assert_eq!(process.clone().stats(), stats);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn expiry_eviction_and_rotation_at_once_fail_no_call() {
    let harness = FaultHarness::with_hints();
    let builder = harness
        .builder()
        .max_keyrings(3)
        .ttl(MINUTE)
        .state_ttl(10 * SECOND);
    let process = builder.build().await.unwrap();
    for tenant in 0..6 {
        seal(&process, &context(tenant)).await;
    }
    let mut calls = JoinSet::new();
    for caller in 0..8 {
        let process = process.clone();
        calls.spawn(async move {
            let mut written = Vec::new();
            for round in 0..150 {
                let tenant = context((caller + round) % 6);
                let sealed = seal(&process, &tenant).await;
                open(&process, &tenant, &sealed).await.unwrap();
                written.push((tenant, sealed));
            }
            written
        });
    }
    for round in 0..60 {
        harness.elsewhere().rotate(&context(round % 6)).await.unwrap();
        harness.clock.advance(3 * SECOND);
        tokio::task::yield_now().await;
    }
    let written = within(calls.join_all()).await.concat();
    // Nothing was encrypted under a key that was not stored.
    let reader = harness.builder().build().await.unwrap();
    for (tenant, sealed) in written {
        open(&reader, &tenant, &sealed).await.unwrap();
    }
    within(process.shutdown()).await;
    assert_eq!(process.stats().keys, 0);
}
