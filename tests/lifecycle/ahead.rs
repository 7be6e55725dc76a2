//! A version that is published is in memory before it becomes active, wherever its context is in use.

use std::time::Duration;

use encx::keys::KeyState;
use encx::store::KeyRecord;
use encx::{Crypto, EncryptionContext};

use super::support::{HOUR, MINUTE, SECOND, SSN, World, at_once, context, open, seal, settle, until, within};
use super::{drive, other_process, registry, tool};

/// Encrypts often enough for the context to be in use.
async fn use_it(process: &Crypto, context: &EncryptionContext) {
    seal(process, context).await;
    seal(process, context).await;
    settle().await;
}

async fn publish(world: &World, context: &EncryptionContext) -> KeyRecord {
    let published = tool(world).prepare(context).await.unwrap();
    assert_eq!(published.state, KeyState::PreActive);
    published
}

/// Promotes without asking a KMS, in a process of its own.
async fn promote(world: &World, context: &EncryptionContext, version: &KeyRecord) {
    let promoted = tool(world).set_state(context, version.id, KeyState::Active).await;
    assert_eq!(promoted.unwrap().state, KeyState::Active);
    settle().await;
}

#[tokio::test]
async fn at_the_switch_nobody_waits_for_the_kms() {
    for hints in [true, false] {
        let world = if hints { World::with_hints() } else { World::new() }.in_a_fleet();
        let (process, context) = (world.process().await, context("a"));
        let old = seal(&process, &context).await;
        use_it(&process, &context).await;
        let published = publish(&world, &context).await;
        let calls = world.kms.calls();
        let manager = tool(&world);
        let waiting = manager.await_fleet(MINUTE);
        let report = drive(&world, Duration::from_millis(25), waiting).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(world.kms.calls().unwrap, calls.unwrap + 1);
        assert_eq!(process.stats().keys, 2);

        let calls = world.kms.calls();
        promote(&world, &context, &published).await;
        world.next_poll().await;
        let keyring = process.keyring(&context).await.unwrap();
        let sealed = keyring.try_encrypt("x", SSN.row(1)).unwrap();
        assert_eq!(sealed.key_id(), published.id);
        let sealed = at_once(process.encrypt(&context, "x", SSN.row(1)))
            .unwrap()
            .unwrap();
        assert_eq!(sealed.key_id(), published.id);
        open(&process, &context, &old).await.unwrap();
        assert_eq!(world.kms.calls(), calls);
    }
}

#[tokio::test]
async fn without_a_fleet_the_polls_see_to_it() {
    let world = World::new();
    let (process, context) = (world.process().await, context("a"));
    use_it(&process, &context).await;
    let published = publish(&world, &context).await;
    world.next_poll().await;
    until("the version to be loaded", || process.stats().keys == 2).await;
    let calls = world.kms.calls();
    promote(&world, &context, &published).await;
    world.next_poll().await;
    let keyring = process.keyring(&context).await.unwrap();
    assert_eq!(
        keyring.try_encrypt("x", SSN.row(1)).unwrap().key_id(),
        published.id
    );
    assert_eq!(world.kms.calls(), calls);
}

#[tokio::test]
async fn what_nobody_uses_costs_no_call() {
    let world = World::with_hints().in_a_fleet();
    let (process, context) = (world.process().await, context("a"));
    // Made here, and not used since.
    seal(&process, &context).await;
    let other = other_process(&world).await;
    publish(&world, &context).await;
    let calls = world.kms.calls();
    world.pass(5 * MINUTE).await;
    assert_eq!(world.kms.calls(), calls);
    // Once it is, it is loaded.
    seal(&process, &context).await;
    world.next_poll().await;
    assert_eq!(world.kms.calls().unwrap, calls.unwrap + 1);
    assert_eq!(other.stats().keys, 0);
}

#[tokio::test]
async fn it_is_kept_for_as_long_as_it_takes() {
    let world = World::with_hints();
    let (process, context) = (world.process().await, context("a"));
    use_it(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    let published = publish(&world, &context).await;
    settle().await;
    let misses = process.stats().misses;
    let request = || drop(keyring.try_encrypt("x", SSN.row(1)).unwrap());
    world.pass_with(5 * HOUR, request).await;
    assert_eq!(process.stats().keys, 2);
    // Each is unwrapped once an hour, or a little more often.
    let refreshes = process.stats().refreshes;
    assert!((9..=12).contains(&refreshes), "{refreshes}");
    let calls = world.kms.calls();
    promote(&world, &context, &published).await;
    assert_eq!(
        keyring.try_encrypt("x", SSN.row(1)).unwrap().key_id(),
        published.id
    );
    assert_eq!(world.kms.calls(), calls);
    assert_eq!(process.stats().misses, misses);
}

#[tokio::test]
async fn a_kms_that_is_down_is_asked_again_and_not_in_a_loop() {
    let world = World::with_hints().in_a_fleet();
    let (process, context) = (world.process().await, context("a"));
    use_it(&process, &context).await;
    publish(&world, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    world.kms.set_unavailable(true);
    let before = world.kms.calls().unwrap;
    world
        .pass_with(10 * MINUTE, || {
            drop(keyring.try_encrypt("x", SSN.row(1)).unwrap());
        })
        .await;
    let tries = world.kms.calls().unwrap - before;
    assert!((3..=25).contains(&tries), "{tries}");
    // Nobody is kept from learning that something else was withdrawn.
    let manager = tool(&world);
    let report = drive(&world, SECOND / 40, manager.await_fleet(MINUTE))
        .await
        .unwrap();
    assert!(report.is_complete(), "{report:?}");
    world.kms.set_unavailable(false);
    world
        .pass_with(2 * MINUTE, || drop(keyring.try_encrypt("x", SSN.row(1)).unwrap()))
        .await;
    assert_eq!(process.stats().keys, 2);
}

#[tokio::test]
async fn an_acknowledgement_waits_for_what_is_being_loaded_and_not_for_ever() {
    for kms_hangs in [false, true] {
        let world = World::with_hints().in_a_fleet();
        let (process, context) = (world.process().await, context("a"));
        use_it(&process, &context).await;
        // It learns of the version when the KMS has begun to take its time.
        world.store.loads.hold();
        publish(&world, &context).await;
        world.store.loads.until_waiting(1).await;
        world.kms.hold();
        world.store.loads.release();
        within(world.kms.until_in_flight(1)).await;
        let report = tool(&world).await_fleet(Duration::ZERO).await.unwrap();
        settle().await;
        assert!(!report.is_complete());
        assert!(
            registry(&world).await[0].acknowledged < report.fence,
            "it is being loaded"
        );
        if kms_hangs {
            world.pass(12 * SECOND).await;
        } else {
            world.kms.release();
            settle().await;
            assert_eq!(process.stats().keys, 2);
        }
        assert_eq!(registry(&world).await[0].acknowledged, report.fence);
    }
}
