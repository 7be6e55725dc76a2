//! Behavior while the key store does not answer.

use encx::store::StoreError;
use encx::{Ciphertext, Clock, Crypto, CryptoBuilder, Error, Keyring};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, at_once, context, open, seal, settle, until, within,
};
use tokio::task::JoinSet;

/// A process that has used one key, and then noticed that its key store is down.
async fn cut_off(harness: &FaultHarness, builder: CryptoBuilder) -> (Crypto, Keyring, Ciphertext) {
    let process = harness.built(builder).await;
    let sealed = seal(&process, &context("a")).await;
    let keyring = process.keyring(&context("a")).await.unwrap();
    harness.store.set_down(true);
    harness.next_failed_poll(&process).await;
    (process, keyring, sealed)
}

fn assert_unavailable<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.unwrap_err();
    let is_right = matches!(error, Error::Store(StoreError::Unavailable { .. }));
    assert!(is_right && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn cached_states_serve_and_are_counted() {
    let harness = FaultHarness::new();
    let (process, keyring, sealed) = cut_off(&harness, harness.builder()).await;
    // Not stale yet.
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    assert_eq!(process.stats().stale_serves, 0);
    harness.clock.advance(MINUTE);
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    open(&process, &context("a"), &sealed).await.unwrap();
    assert_eq!(process.stats().stale_serves, 3);
    // A context that is not in memory cannot be served, and its failure is not cached.
    assert_unavailable(within(process.encrypt(&context("b"), "", SSN.row(1))).await);
    harness.store.set_down(false);
    seal(&process, &context("b")).await;
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_key_store_that_is_known_to_hang() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    harness.store.polls.hold();
    harness.clock.advance(MINUTE / 2);
    harness.store.polls.until_waiting(1).await;
    harness.clock.advance(MINUTE / 2);
    until("the poll to be given up", || process.stats().failed_polls == 1).await;
    harness.clock.advance(10 * SECOND);
    harness.store.polls.until_waiting(1).await;
    // One poll is in flight again, and no call waits for it.
    let context = context("a");
    at_once(process.decrypt(&context, &sealed, SSN.row(1)))
        .unwrap()
        .unwrap();
    at_once(process.encrypt(&context, "", SSN.row(1)))
        .unwrap()
        .unwrap();
    at_once(process.needs_reencryption(&context, &sealed))
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_key_store_that_is_slower_than_state_ttl_still_serves() {
    let harness = FaultHarness::new();
    let sealed = seal(&harness.process().await, &context("a")).await;
    let builder = harness.builder().state_ttl(10 * SECOND).load_timeout(MINUTE);
    let process = harness.built(builder).await;
    harness.store.slow_down(&harness.clock, 15 * SECOND);
    let call = tokio::spawn({
        let process = process.clone();
        async move {
            process.encrypt(&context("a"), "", SSN.row(1)).await?;
            process.decrypt(&context("a"), &sealed, SSN.row(1)).await
        }
    });
    // Until it has read about twice; what it reads is never recent enough.
    while !call.is_finished() && harness.clock.elapsed() < HOUR {
        harness.clock.advance(SECOND);
        settle().await;
    }
    within(call).await.unwrap().unwrap();
    assert!(
        harness.clock.elapsed() < 2 * MINUTE,
        "{:?}",
        harness.clock.elapsed()
    );
}

#[tokio::test]
async fn cached_states_serve_until_ttl_and_no_longer() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let context = context("a");
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.clock.advance(50 * MINUTE);
    let polls = harness.rows.polls();
    until("a late poll", || harness.rows.polls() > polls || polls > 1).await;
    settle().await;
    harness.store.set_down(true);
    harness.next_failed_poll(&process).await;

    // The key has expired, its state has not: it is unwrapped again according to the cached state.
    harness.clock.advance(20 * MINUTE);
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
    let served = process.stats().stale_serves;
    assert!(served > 0);

    // The key itself has not expired, but its state has been unknown for a `ttl`.
    harness.clock.advance(40 * MINUTE);
    assert!(matches!(
        keyring.try_decrypt(&sealed, SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert!(matches!(
        keyring.try_encrypt("", SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert_unavailable(open(&process, &context, &sealed).await);
    assert_unavailable(within(keyring.encrypt("", SSN.row(1))).await);
    assert_unavailable(within(keyring.needs_reencryption(&sealed)).await);
    assert_eq!(process.stats().stale_serves, served);

    // The next request notices by itself that the key store is back.
    harness.store.set_down(false);
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
}

#[tokio::test]
async fn fail_closed_refuses_stale_states() {
    let harness = FaultHarness::new();
    let builder = harness.builder().fail_closed_on_stale_state();
    let (process, keyring, sealed) = cut_off(&harness, builder).await;
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    harness.clock.advance(MINUTE);
    let is_refused = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::StaleState)), "{outcome:?}");
        assert!(Error::StaleState.is_retryable());
    };
    is_refused(keyring.try_decrypt(&sealed, SSN.row(1)).map(drop));
    is_refused(keyring.try_encrypt("", SSN.row(1)).map(drop));
    is_refused(open(&process, &context("a"), &sealed).await.map(drop));
    is_refused(within(process.keyring(&context("a"))).await.map(drop));
    is_refused(within(keyring.needs_reencryption(&sealed)).await.map(drop));
    for outcome in process.decrypt_many([(&context("a"), &sealed, SSN.row(1))]).await {
        is_refused(outcome.map(drop));
    }
    assert_eq!(process.stats().stale_serves, 0);

    harness.store.set_down(false);
    let polls = harness.rows.polls();
    harness.clock.advance(MINUTE / 10);
    until("the next poll", || harness.rows.polls() > polls).await;
    settle().await;
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
}

#[tokio::test]
async fn a_change_during_an_outage_is_seen_soon_after_it() {
    let harness = FaultHarness::new();
    let (process, keyring, sealed) = cut_off(&harness, harness.builder()).await;
    harness.suspend_elsewhere(&context("a")).await;
    harness.clock.advance(MINUTE);
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    harness.store.set_down(false);
    let polls = harness.rows.polls();
    // While polls fail, they are repeated ten times per `state_ttl`.
    harness.clock.advance(MINUTE / 10);
    until("the next poll", || harness.rows.polls() > polls).await;
    settle().await;
    let refused = open(&process, &context("a"), &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_failed_poll_is_counted_once_however_many_wait_for_it() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    harness.store.polls.hold();
    // The whole process was stopped: every request finds the states too old, and polls or waits for the poll.
    harness.clock.advance(MINUTE + SECOND);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let (process, sealed) = (process.clone(), sealed.clone());
        calls.spawn(async move { open(&process, &context("a"), &sealed).await });
    }
    harness.store.polls.until_waiting(1).await;
    settle().await;
    harness.store.set_down(true);
    harness.store.polls.release();
    for outcome in within(calls.join_all()).await {
        outcome.unwrap();
    }
    let stats = process.stats();
    assert_eq!((stats.failed_polls, stats.stale_serves), (1, 100));
}

#[tokio::test]
async fn keys_leave_memory_during_an_outage_too() {
    let harness = FaultHarness::new();
    let (process, keyring, sealed) = cut_off(&harness, harness.builder()).await;
    harness.clock.advance(HOUR);
    until("the sweep", || process.stats().keys == 0).await;
    assert_unavailable(within(keyring.decrypt(&sealed, SSN.row(1))).await);
    assert_eq!(harness.kms.calls().unwrap, 0);
}
