//! Unknown ids do not flood the database, and ids that another process just created are found.

use encx::{Ciphertext, Error};
use encx_test_support::{FaultHarness, SECOND, SSN, context, open, seal, settle, with_unknown_key, within};
use tokio::task::JoinSet;

fn assert_unknown<T: std::fmt::Debug>(outcome: Result<T, Error>, of: &Ciphertext) {
    let Err(Error::UnknownKey { id, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(id, of.key_id());
}

#[tokio::test]
async fn the_same_unknown_id_is_asked_once_in_a_while() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let garbage = with_unknown_key(&seal(&process, &context).await);
    let keyring = process.keyring(&context).await.unwrap();
    let before = harness.rows.loads();
    for _ in 0..20 {
        assert_unknown(open(&process, &context, &garbage).await, &garbage);
        assert_unknown(within(keyring.decrypt(&garbage, SSN.row(1))).await, &garbage);
        assert_unknown(within(keyring.needs_reencryption(&garbage)).await, &garbage);
        for outcome in process.decrypt_many([(&context, &garbage, SSN.row(1))]).await {
            assert_unknown(outcome, &garbage);
        }
    }
    assert_eq!(harness.rows.loads(), before + 1);
    harness.clock.advance(5 * SECOND);
    for _ in 0..20 {
        assert_unknown(open(&process, &context, &garbage).await, &garbage);
    }
    assert_eq!(harness.rows.loads(), before + 2);
    assert_eq!(harness.kms.calls().unwrap, 0);
}

#[tokio::test]
async fn the_memory_of_unknown_ids_is_bounded() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let garbage: Vec<_> = (0..12_000).map(|_| with_unknown_key(&sealed)).collect();
    for garbage in &garbage {
        assert_unknown(open(&process, &context, garbage).await, garbage);
    }
    let before = harness.rows.loads();
    assert_unknown(open(&process, &context, &garbage[11_999]).await, &garbage[11_999]);
    assert_eq!(harness.rows.loads(), before);
    assert_unknown(open(&process, &context, &garbage[0]).await, &garbage[0]);
    assert_eq!(harness.rows.loads(), before + 1);
}

#[tokio::test]
async fn unknown_ids_of_one_scope_share_one_query_at_a_time() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let before = harness.rows.loads();
    harness.store.loads.hold();
    let mut calls = JoinSet::new();
    for caller in 0..100 {
        let (process, context, garbage) = (process.clone(), context.clone(), with_unknown_key(&sealed));
        calls.spawn(async move { assert_unknown(open(&process, &context, &garbage).await, &garbage) });
        if caller == 0 {
            harness.store.loads.until_waiting(1).await;
        }
    }
    settle().await;
    assert_eq!(harness.store.loads.waiting(), 1);
    harness.store.loads.release();
    within(calls.join_all()).await;
    // The first read began before the other callers arrived, so they cannot rely on it; they share the second.
    assert_eq!(harness.rows.loads(), before + 2);
}

#[tokio::test]
async fn an_id_that_another_process_just_made_is_found_at_once() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let old = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.elsewhere().rotate(&context).await.unwrap();
    let new = seal(&harness.process().await, &context).await;
    assert_ne!(old.key_id(), new.key_id());
    within(keyring.decrypt(&new, SSN.row(1))).await.unwrap();
    // The result also counts for encryption.
    assert_eq!(seal(&process, &context).await.key_id(), new.key_id());
    open(&process, &context, &old).await.unwrap();
}
