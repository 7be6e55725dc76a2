//! A published version is in memory before it becomes active, in every process that uses its context.

use std::time::Duration;

use encx::keys::KeyState;
use encx::store::KeyRecord;
use encx::{Crypto, EncryptionContext};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, at_once, context, open, seal, settle, until, within,
};

use super::{drive, other_process, registry, tool};

/// Encrypts often enough for the context to be in use.
async fn use_it(process: &Crypto, context: &EncryptionContext) {
    seal(process, context).await;
    seal(process, context).await;
    settle().await;
}

async fn publish(harness: &FaultHarness, context: &EncryptionContext) -> KeyRecord {
    let published = tool(harness).prepare(context).await.unwrap();
    assert_eq!(published.state, KeyState::PreActive);
    published
}

/// Promotes without calling a KMS, in another process.
async fn promote(harness: &FaultHarness, context: &EncryptionContext, version: &KeyRecord) {
    let promoted = tool(harness)
        .set_state(context, version.id, KeyState::Active)
        .await;
    assert_eq!(promoted.unwrap().state, KeyState::Active);
    settle().await;
}

#[tokio::test]
async fn at_the_switch_no_caller_waits_for_the_kms() {
    for hints in [true, false] {
        let harness = if hints {
            FaultHarness::with_hints()
        } else {
            FaultHarness::new()
        }
        .with_registry();
        let (process, context) = (harness.process().await, context("a"));
        let old = seal(&process, &context).await;
        use_it(&process, &context).await;
        let published = publish(&harness, &context).await;
        let calls = harness.kms.calls();
        let manager = tool(&harness);
        let waiting = manager.await_processes(MINUTE);
        let report = drive(&harness, Duration::from_millis(25), waiting).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(harness.kms.calls().unwrap, calls.unwrap + 1);
        assert_eq!(process.stats().keys, 2);

        let calls = harness.kms.calls();
        promote(&harness, &context, &published).await;
        harness.next_poll().await;
        let keyring = process.keyring(&context).await.unwrap();
        let sealed = keyring.try_encrypt("x", SSN.row(1)).unwrap();
        assert_eq!(sealed.key_id(), published.id);
        let sealed = at_once(process.encrypt(&context, "x", SSN.row(1)))
            .unwrap()
            .unwrap();
        assert_eq!(sealed.key_id(), published.id);
        open(&process, &context, &old).await.unwrap();
        assert_eq!(harness.kms.calls(), calls);
    }
}

#[tokio::test]
async fn without_a_registry_the_polls_see_to_it() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    use_it(&process, &context).await;
    let published = publish(&harness, &context).await;
    harness.next_poll().await;
    until("the version to be loaded", || process.stats().keys == 2).await;
    let calls = harness.kms.calls();
    promote(&harness, &context, &published).await;
    harness.next_poll().await;
    let keyring = process.keyring(&context).await.unwrap();
    assert_eq!(
        keyring.try_encrypt("x", SSN.row(1)).unwrap().key_id(),
        published.id
    );
    assert_eq!(harness.kms.calls(), calls);
}

#[tokio::test]
async fn an_unused_context_costs_no_call() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    // Created here, and not used since.
    seal(&process, &context).await;
    let other = other_process(&harness).await;
    publish(&harness, &context).await;
    let calls = harness.kms.calls();
    harness.pass(5 * MINUTE).await;
    assert_eq!(harness.kms.calls(), calls);
    // Once it is, it is loaded.
    seal(&process, &context).await;
    harness.next_poll().await;
    assert_eq!(harness.kms.calls().unwrap, calls.unwrap + 1);
    assert_eq!(other.stats().keys, 0);
}

#[tokio::test]
async fn it_is_kept_for_as_long_as_it_takes() {
    let harness = FaultHarness::with_hints();
    let (process, context) = (harness.process().await, context("a"));
    use_it(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    let published = publish(&harness, &context).await;
    settle().await;
    let misses = process.stats().misses;
    let request = || drop(keyring.try_encrypt("x", SSN.row(1)).unwrap());
    harness.pass_with(5 * HOUR, request).await;
    assert_eq!(process.stats().keys, 2);
    // Each is unwrapped about once an hour.
    let refreshes = process.stats().refreshes;
    assert!((9..=12).contains(&refreshes), "{refreshes}");
    let calls = harness.kms.calls();
    promote(&harness, &context, &published).await;
    assert_eq!(
        keyring.try_encrypt("x", SSN.row(1)).unwrap().key_id(),
        published.id
    );
    assert_eq!(harness.kms.calls(), calls);
    assert_eq!(process.stats().misses, misses);
}

#[tokio::test]
async fn a_kms_that_is_down_is_asked_again_and_not_in_a_loop() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    use_it(&process, &context).await;
    publish(&harness, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.kms.set_unavailable(true);
    let before = harness.kms.calls().unwrap;
    harness
        .pass_with(10 * MINUTE, || {
            drop(keyring.try_encrypt("x", SSN.row(1)).unwrap());
        })
        .await;
    let tries = harness.kms.calls().unwrap - before;
    assert!((3..=25).contains(&tries), "{tries}");
    // Other withdrawals are still noticed.
    let manager = tool(&harness);
    let report = drive(&harness, SECOND / 40, manager.await_processes(MINUTE))
        .await
        .unwrap();
    assert!(report.is_complete(), "{report:?}");
    harness.kms.set_unavailable(false);
    harness
        .pass_with(2 * MINUTE, || drop(keyring.try_encrypt("x", SSN.row(1)).unwrap()))
        .await;
    assert_eq!(process.stats().keys, 2);
}

#[tokio::test]
async fn an_acknowledgement_waits_for_what_is_being_loaded_and_not_for_ever() {
    for kms_hangs in [false, true] {
        let harness = FaultHarness::with_hints().with_registry();
        let (process, context) = (harness.process().await, context("a"));
        use_it(&process, &context).await;
        // It learns of the version while the KMS is slow.
        harness.store.loads.hold();
        publish(&harness, &context).await;
        harness.store.loads.until_waiting(1).await;
        harness.kms.hold();
        harness.store.loads.release();
        within(harness.kms.until_in_flight(1)).await;
        let report = tool(&harness).await_processes(Duration::ZERO).await.unwrap();
        settle().await;
        assert!(!report.is_complete());
        assert!(
            registry(&harness).await[0].acknowledged < report.fence,
            "it is being loaded"
        );
        if kms_hangs {
            harness.pass(12 * SECOND).await;
        } else {
            harness.kms.release();
            settle().await;
            assert_eq!(process.stats().keys, 2);
        }
        assert_eq!(registry(&harness).await[0].acknowledged, report.fence);
    }
}
