//! A cold key costs one KMS call for any number of callers, even if some are dropped; errors are shared, not cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use encx::Error;
use encx::kms::{KekChoice, KmsErrorKind};
use encx_test_support::{
    FaultHarness, SECOND, SSN, context, open, seal, settle, until, with_unknown_key, within,
};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_first_uses_cost_one_kms_call() {
    // With hints, which arrive while the key is being created.
    let harness = FaultHarness::with_hints();
    let context = Arc::new(context("a"));
    let writer = harness.builder().build().await.unwrap();
    let mut calls = JoinSet::new();
    for row in 0..10_000_u32 {
        let (writer, context) = (writer.clone(), Arc::clone(&context));
        calls.spawn(async move {
            let sealed = writer.encrypt(&context, row.to_be_bytes(), SSN.row(row)).await;
            (row, sealed.unwrap())
        });
    }
    let sealed = within(calls.join_all()).await;
    assert_eq!(harness.kms.calls().generate, 1);
    assert_eq!(harness.kms.calls().total(), 1);
    assert_eq!(harness.rows.records().len(), 1);

    let reader = harness.builder().build().await.unwrap();
    let mut calls = JoinSet::new();
    for (row, sealed) in sealed {
        let (reader, context) = (reader.clone(), Arc::clone(&context));
        calls.spawn(async move {
            let opened = reader.decrypt(&context, &sealed, SSN.row(row)).await.unwrap();
            assert_eq!(opened.as_bytes(), row.to_be_bytes());
        });
    }
    within(calls.join_all()).await;
    assert_eq!(harness.kms.calls().unwrap, 1);
    assert_eq!(harness.kms.calls().total(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_of_every_kind_share_one_kms_call() {
    // Each round is one race; rounds share only the KMS.
    for round in 0..50 {
        let harness = FaultHarness::with_hints();
        let (cold, other) = (Arc::new(context(round)), Arc::new(context("other")));
        let garbage = seal(&harness.builder().build().await.unwrap(), &other).await;
        harness.kms.reset_calls();
        let writer = harness.builder().build().await.unwrap();
        let mut calls = JoinSet::new();
        for caller in 0..40 {
            let (writer, cold, garbage) = (writer.clone(), Arc::clone(&cold), garbage.clone());
            calls.spawn(async move {
                match caller % 4 {
                    0 => drop(writer.encrypt(&cold, "", SSN.row(1)).await.unwrap()),
                    1 => drop(writer.keyring(&cold).await.unwrap()),
                    2 => {
                        let items = [(&*cold, "", SSN.row(1)), (&*cold, "", SSN.row(2))];
                        for sealed in writer.encrypt_many(items).await {
                            sealed.unwrap();
                        }
                    }
                    _ => {
                        let refused = writer.decrypt(&cold, &garbage, SSN.row(1)).await;
                        assert!(matches!(refused, Err(Error::UnknownKey { .. })), "{refused:?}");
                    }
                }
            });
        }
        within(calls.join_all()).await;
        assert_eq!(harness.kms.calls().total(), 1, "round {round}");

        let sealed = seal(&writer, &cold).await;
        let reader = harness.builder().build().await.unwrap();
        let mut calls = JoinSet::new();
        for caller in 0..40 {
            let (reader, cold, sealed) = (reader.clone(), Arc::clone(&cold), sealed.clone());
            calls.spawn(async move {
                match caller % 4 {
                    0 => drop(reader.encrypt(&cold, "", SSN.row(1)).await.unwrap()),
                    1 => drop(
                        reader
                            .keyring(&cold)
                            .await
                            .unwrap()
                            .try_encrypt("", SSN.row(1))
                            .unwrap(),
                    ),
                    2 => {
                        let items = [(&*cold, &sealed, SSN.row(1)), (&*cold, &sealed, SSN.row(1))];
                        for opened in reader.decrypt_many(items).await {
                            opened.unwrap();
                        }
                    }
                    _ => drop(reader.decrypt(&cold, &sealed, SSN.row(1)).await.unwrap()),
                }
            });
        }
        within(calls.join_all()).await;
        assert_eq!(harness.kms.calls().unwrap, 1, "round {round}");
        assert_eq!(harness.kms.calls().total(), 2, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_together_agree_on_one_key() {
    let harness = FaultHarness::with_hints();
    let context = Arc::new(context("a"));
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let process = harness.builder().build().await.unwrap();
        for _ in 0..50 {
            let (process, context) = (process.clone(), Arc::clone(&context));
            calls.spawn(async move { process.encrypt(&context, "", SSN.row(1)).await.unwrap() });
        }
    }
    let sealed = within(calls.join_all()).await;
    let ids: std::collections::BTreeSet<_> = sealed.iter().map(encx::Ciphertext::key_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(harness.rows.records().len(), 1);
    // Each created at most one, and the losers of the race unwrapped the winner's.
    let calls = harness.kms.calls();
    assert!(calls.generate <= 8 && calls.total() <= 15, "{calls:?}");
}

#[tokio::test]
async fn an_error_of_the_kms_is_shared_and_not_kept() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let fail_together = async |sealed: Option<&encx::Ciphertext>, process: &encx::Crypto| {
        let before = harness.kms.calls().total();
        harness.kms.hold();
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (process, context, sealed) = (process.clone(), context.clone(), sealed.cloned());
            calls.spawn(async move {
                match sealed {
                    Some(sealed) => process.decrypt(&context, &sealed, SSN.row(1)).await.map(drop),
                    None => process.encrypt(&context, "", SSN.row(1)).await.map(drop),
                }
            });
        }
        within(harness.kms.until_in_flight(1)).await;
        settle().await;
        harness.kms.fail_next(1, KmsErrorKind::Throttled);
        harness.kms.release();
        for outcome in within(calls.join_all()).await {
            let Err(Error::Kms(error)) = outcome else {
                panic!("{outcome:?}");
            };
            assert!(error.is_retryable());
        }
        assert_eq!(harness.kms.calls().total(), before + 1);
    };

    fail_together(None, &process).await;
    let sealed = seal(&process, &context).await;
    assert_eq!(harness.kms.calls().generate, 2);

    let reader = harness.process().await;
    fail_together(Some(&sealed), &reader).await;
    open(&reader, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 2);
}

#[tokio::test]
async fn an_error_of_the_key_store_is_not_kept() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    harness.store.set_down(true);
    let failed = within(process.encrypt(&context, "", SSN.row(1)))
        .await
        .unwrap_err();
    assert!(
        matches!(failed, Error::Store(_)) && failed.is_retryable(),
        "{failed:?}"
    );
    harness.store.set_down(false);
    seal(&process, &context).await;
}

#[tokio::test]
async fn a_leader_that_goes_away_strands_no_caller() {
    let harness = FaultHarness::new();
    let context = context("a");
    let sealed = seal(&harness.process().await, &context).await;
    for process in [harness.process().await, harness.process().await] {
        let before = harness.kms.calls().total();
        harness.kms.hold();
        let call = || {
            let (process, context, sealed) = (process.clone(), context.clone(), sealed.clone());
            tokio::spawn(async move { process.decrypt(&context, &sealed, SSN.row(1)).await })
        };
        let leader = call();
        within(harness.kms.until_in_flight(1)).await;
        let followers: Vec<_> = (0..50).map(|_| call()).collect();
        settle().await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        harness.kms.release();
        for follower in followers {
            within(follower).await.unwrap().unwrap();
        }
        assert_eq!(harness.kms.calls().total(), before + 1);
    }
}

#[tokio::test]
async fn a_load_that_everybody_left_still_ends_and_serves_the_next() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    harness.kms.hold();
    let left = tokio::spawn({
        let (process, context) = (process.clone(), context.clone());
        async move { process.encrypt(&context, "", SSN.row(1)).await }
    });
    within(harness.kms.until_in_flight(1)).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    harness.kms.release();
    until("the load's end", || process.stats().keys == 1).await;
    let hits = process.stats().hits;
    seal(&process, &context).await;
    assert_eq!(process.stats().hits, hits + 1);
    assert_eq!(harness.kms.calls().total(), 1);
}

#[tokio::test]
async fn calls_to_the_kms_are_bounded_in_concurrency() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_concurrent_kms_calls(3)).await;
    harness.kms.hold();
    let mut calls = JoinSet::new();
    for tenant in 0..50 {
        let process = process.clone();
        calls.spawn(async move { seal(&process, &context(tenant)).await });
    }
    within(harness.kms.until_in_flight(3)).await;
    settle().await;
    assert_eq!(harness.kms.in_flight(), 3);
    harness.kms.release();
    within(calls.join_all()).await;
    assert_eq!(harness.kms.max_in_flight(), 3);
    assert_eq!(harness.kms.calls().generate, 50);
}

fn assert_timed_out<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.unwrap_err();
    let is_right = matches!(error, Error::TimedOut { after } if after == 30 * SECOND);
    assert!(is_right && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_kms_that_hangs_is_given_up_and_asked_again() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.kms.hold();
    let call = tokio::spawn({
        let process = process.clone();
        async move { process.encrypt(&context("a"), "", SSN.row(1)).await }
    });
    within(harness.kms.until_in_flight(1)).await;
    harness.clock.advance(30 * SECOND);
    assert_timed_out(within(call).await.unwrap());
    // The call itself was dropped, so it occupies no slot.
    within(harness.kms.until_in_flight(0)).await;
    harness.kms.release();
    seal(&process, &context("a")).await;
}

#[tokio::test]
async fn a_key_store_that_hangs_is_given_up_and_asked_again() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.store.loads.hold();
    let call = tokio::spawn({
        let process = process.clone();
        async move { process.encrypt(&context("a"), "", SSN.row(1)).await }
    });
    harness.store.loads.until_waiting(1).await;
    harness.clock.advance(30 * SECOND);
    assert_timed_out(within(call).await.unwrap());
    harness.store.loads.release();
    seal(&process, &context("a")).await;
}

#[tokio::test]
async fn a_key_store_that_hangs_does_not_hold_a_batch_for_ever() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.store.wide_loads.hold();
    harness.store.loads.hold();
    let call = tokio::spawn({
        let process = process.clone();
        async move {
            let (a, b) = (context("a"), context("b"));
            process
                .encrypt_many([(&a, "", SSN.row(1)), (&b, "", SSN.row(2))])
                .await
        }
    });
    harness.store.wide_loads.until_waiting(1).await;
    harness.clock.advance(30 * SECOND);
    // The contexts of the failed batch read are now tried one by one.
    harness.store.loads.until_waiting(2).await;
    harness.clock.advance(30 * SECOND);
    for outcome in within(call).await.unwrap() {
        assert_timed_out(outcome);
    }
    harness.store.wide_loads.release();
    harness.store.loads.release();
    seal(&process, &context("a")).await;
}

#[tokio::test]
async fn a_provider_that_panics_interrupts_the_call_and_not_the_next() {
    let harness = FaultHarness::new();
    let panics = Arc::new(AtomicBool::new(true));
    let rule = {
        let panics = Arc::clone(&panics);
        move |_: &_| {
            assert!(
                !panics.swap(false, Ordering::SeqCst),
                "the test wants a panic here"
            );
            None::<KekChoice>
        }
    };
    let process = harness.built(harness.builder().kek_rule(rule)).await;
    harness.store.panic_in_next_load();
    for what in ["the key store", "the KEK rule"] {
        let outcome = within(process.encrypt(&context("a"), "", SSN.row(1))).await;
        let error = outcome.expect_err(what);
        assert!(
            matches!(error, Error::Interrupted) && error.is_retryable(),
            "{what}: {error:?}"
        );
    }
    let sealed = seal(&process, &context("a")).await;
    let refused = open(&process, &context("a"), &with_unknown_key(&sealed)).await;
    assert!(matches!(refused, Err(Error::UnknownKey { .. })), "{refused:?}");
}
