//! Processes register, acknowledge what they have followed, and can be waited for.

use std::time::Duration;

use encx::keys::FleetReport;
use encx::store::{KeyStore, ProcessId, ProcessInfo, StoreError};
use encx::{Clock, Crypto, Error};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

use super::support::{HOUR, MINUTE, SECOND, SSN, World, context, open, seal, settle, until};
use super::{drive, other_process, registry, tool};

const STEP: Duration = Duration::from_millis(25);

fn names(infos: &[ProcessInfo]) -> Vec<&str> {
    let mut names: Vec<_> = infos.iter().map(|info| info.name.as_str()).collect();
    names.sort_unstable();
    names
}

async fn await_fleet(world: &World, patience: Duration) -> FleetReport {
    drive(world, STEP, tool(world).await_fleet(patience))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_process_registers_says_that_it_is_there_and_signs_off() {
    let world = World::new().in_a_fleet();
    let builder = world.builder().process_name("billing-7");
    let process = world.built(builder.stale_decrypt_if_unavailable(HOUR)).await;
    let first = registry(&world).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].info.name, "billing-7");
    assert_eq!(first[0].info.serves_for, 2 * HOUR);
    world.pass(MINUTE).await;
    let later = registry(&world).await;
    assert_eq!((later.len(), later[0].info.id), (1, first[0].info.id));
    assert_eq!(later[0].started_at, first[0].started_at);
    let age = later[0].seen_at.as_micros() - first[0].seen_at.as_micros();
    assert!(age >= 50_000_000, "{age}");
    process.shutdown().await;
    assert_eq!(registry(&world).await, []);
}

#[tokio::test]
async fn with_the_last_handle_a_process_signs_off_too() {
    let world = World::new().in_a_fleet();
    let process = world.process().await;
    let keyring = process.keyring(&context("a")).await.unwrap();
    drop(process);
    settle().await;
    assert_eq!(registry(&world).await.len(), 1);
    drop(keyring);
    settle().await;
    assert_eq!(registry(&world).await, []);
}

#[tokio::test]
async fn a_short_state_ttl_makes_a_process_speak_more_often() {
    let world = World::new().in_a_fleet();
    let _process = world.built(world.builder().state_ttl(2 * SECOND)).await;
    let first = registry(&world).await[0].seen_at;
    world.clock.advance(SECOND);
    settle().await;
    assert!(registry(&world).await[0].seen_at > first);
}

#[tokio::test]
async fn whoever_waits_knows_that_everybody_has_dropped_a_key() {
    let world = World::with_hints().in_a_fleet();
    let (process, other) = (world.process().await, other_process(&world).await);
    let sealed = seal(&process, &context("a")).await;
    open(&other, &context("a"), &sealed).await.unwrap();
    let began = world.clock.elapsed();
    world.suspend_elsewhere(&context("a")).await;
    let report = await_fleet(&world, MINUTE).await;
    assert!(
        report.is_complete() && report.serves_until().is_none(),
        "{report:?}"
    );
    assert_eq!(report.acknowledged.len(), 2);
    assert!(report.gone.is_empty());
    assert!(
        world.clock.elapsed() - began < SECOND,
        "hints are followed at once"
    );
    for process in [&process, &other] {
        assert_eq!(process.stats().keys, 0);
    }
}

/// Each is a write, and hints can be forged.
#[tokio::test]
async fn heartbeats_that_are_hinted_at_keep_their_distance() {
    let world = World::with_hints().in_a_fleet();
    let _process = world.process().await;
    settle().await;
    let raise = async || {
        let raised = world.rows.processes().unwrap().raise_fence().await.unwrap();
        settle().await;
        raised
    };
    let acknowledged = async || registry(&world).await[0].acknowledged;
    let first = raise().await;
    assert_eq!(acknowledged().await, first, "the first is at once");
    for _ in 0..20 {
        raise().await;
    }
    world.clock.advance(Duration::from_millis(249));
    settle().await;
    assert_eq!(acknowledged().await, first);
    let last = raise().await;
    world.clock.advance(Duration::from_millis(1));
    settle().await;
    assert_eq!(acknowledged().await, last, "no hint is lost");
}

#[tokio::test]
async fn without_hints_it_takes_a_heartbeat() {
    let world = World::new().in_a_fleet();
    let process = world.process().await;
    let sealed = seal(&process, &context("a")).await;
    let keyring = process.keyring(&context("a")).await.unwrap();
    world.suspend_elsewhere(&context("a")).await;
    let began = world.clock.elapsed();
    let report = await_fleet(&world, MINUTE).await;
    assert!(report.is_complete(), "{report:?}");
    let took = world.clock.elapsed() - began;
    // Not half of `state_ttl`, which is when the next poll would have come.
    assert!(took > SECOND && took <= 11 * SECOND, "{took:?}");
    assert!(keyring.try_decrypt(&sealed, SSN.row(1)).is_err());
}

#[tokio::test]
async fn a_crypto_that_waits_acknowledges_by_itself() {
    let world = World::new().in_a_fleet();
    let process = world.process().await;
    let began = world.clock.elapsed();
    let waiting = process.key_manager();
    let report = drive(&world, STEP, waiting.await_fleet(MINUTE)).await.unwrap();
    assert!(
        report.is_complete() && report.acknowledged.len() == 1,
        "{report:?}"
    );
    assert!(world.clock.elapsed() - began < SECOND);
}

#[tokio::test]
async fn a_poll_that_fails_acknowledges_nothing() {
    let world = World::with_hints().in_a_fleet();
    let process = world.built(world.builder().process_name("cut off")).await;
    let _other = other_process(&world).await;
    seal(&process, &context("a")).await;
    // Its heartbeats arrive, and it cannot read.
    world.store.set_down(true);
    world.suspend_elsewhere(&context("a")).await;
    let report = await_fleet(&world, 20 * SECOND).await;
    assert_eq!(names(&report.acknowledged), ["other"]);
    assert_eq!(report.silent.len(), 1);
    assert_eq!(report.silent[0].process.name, "cut off");
    assert!(!report.is_complete());
    // The default `ttl`: it has no other way to serve for longer.
    assert_eq!(report.silent[0].serves_until, report.at.plus(HOUR));
    assert_eq!(report.serves_until(), Some(report.at.plus(HOUR)));
    world.store.set_down(false);
    let report = await_fleet(&world, MINUTE).await;
    assert!(report.is_complete(), "{report:?}");
}

#[tokio::test]
async fn a_poll_that_began_before_the_fence_is_not_enough() {
    let world = World::with_hints().in_a_fleet();
    let _process = world.process().await;
    world.store.polls.hold();
    world.clock.advance(30 * SECOND);
    world.store.polls.until_waiting(1).await;
    let fence = world.rows.processes().unwrap().raise_fence().await.unwrap();
    // It learns of the fence with its next heartbeat, while that poll is still under way.
    world.clock.advance(11 * SECOND);
    settle().await;
    let polls = world.rows.polls();
    world.store.polls.release();
    until("another poll", || world.rows.polls() == polls + 2).await;
    settle().await;
    assert_eq!(registry(&world).await[0].acknowledged, fence);
}

#[tokio::test]
async fn whoever_is_not_heard_of_is_not_waited_for_and_not_forgotten() {
    let world = World::with_hints().in_a_fleet();
    let process = world.process().await;
    let registry = world.rows.processes().unwrap();
    let (short, long) = (ProcessId::random(), ProcessId::random());
    registry
        .heartbeat(&ProcessInfo::new(short, "short", MINUTE))
        .await
        .unwrap();
    registry
        .heartbeat(&ProcessInfo::new(long, "long", HOUR))
        .await
        .unwrap();
    world.pass(5 * MINUTE).await;
    let began = world.clock.elapsed();
    let report = await_fleet(&world, MINUTE).await;
    assert!(
        world.clock.elapsed() - began < 14 * SECOND,
        "nobody waits for the dead, once they have had time to speak"
    );
    assert_eq!(report.acknowledged.len(), 1);
    assert_eq!(names(&report.gone), ["short"]);
    assert_eq!(report.silent.len(), 1);
    assert_eq!(report.silent[0].process.name, "long");
    drop(process);
}

#[tokio::test]
async fn a_jump_of_the_databases_clock_makes_nobody_gone() {
    let world = World::new();
    let registry = world.rows.processes().unwrap();
    let info = ProcessInfo::new(ProcessId::random(), "alive", MINUTE);
    registry.heartbeat(&info).await.unwrap();
    // Longer than it serves, and not so long that the registry forgets it.
    world.clock.advance(HOUR);
    // The clock of the process that waits does not jump.
    let own = ManualClock::new();
    let manager = Crypto::builder(world.kms.clone(), world.rows.clone())
        .clock(own.clone())
        .build_key_manager()
        .unwrap();
    let mut waiting = std::pin::pin!(manager.await_fleet(MINUTE));
    let mut seconds = 0;
    let report = loop {
        tokio::select! {
            biased;
            report = &mut waiting => break report.unwrap(),
            () = settle() => {}
        }
        own.advance(SECOND);
        seconds += 1;
        match seconds {
            10 => drop(registry.heartbeat(&info).await.unwrap()),
            20 => {
                let fence = registry.heartbeat(&info).await.unwrap();
                registry.acknowledge(info.id, fence).await.unwrap();
            }
            _ => {}
        }
    };
    assert!(seconds >= 20, "{seconds}: {report:?}");
    assert!(report.gone.is_empty() && report.is_complete(), "{report:?}");
    assert_eq!(names(&report.acknowledged), ["alive"]);
    // Without time to speak it is not known to be gone either.
    world.clock.advance(HOUR);
    let report = tool(&world).await_fleet(Duration::ZERO).await.unwrap();
    assert_eq!((report.gone.len(), report.silent.len()), (0, 1), "{report:?}");
}

#[tokio::test]
async fn whoever_signs_off_meanwhile_is_gone() {
    let world = World::new().in_a_fleet();
    let registry = world.rows.processes().unwrap();
    let id = ProcessId::random();
    registry
        .heartbeat(&ProcessInfo::new(id, "leaves", HOUR))
        .await
        .unwrap();
    let manager = tool(&world);
    let leaving = async {
        world.clock.sleep(SECOND).await;
        registry.deregister(id).await.unwrap();
        std::future::pending::<()>().await;
    };
    let report = drive(&world, STEP, async {
        tokio::select! {
            report = manager.await_fleet(MINUTE) => report.unwrap(),
            () = leaving => unreachable!(),
        }
    })
    .await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(names(&report.gone), ["leaves"]);
}

#[tokio::test]
async fn a_registry_that_is_down_stops_no_encryption() {
    let world = World::new().in_a_fleet();
    world.rows.set_unavailable(true);
    let process = world.builder().build().await.unwrap();
    settle().await;
    world.rows.set_unavailable(false);
    seal(&process, &context("a")).await;
    world.rows.set_unavailable(true);
    world.pass(5 * MINUTE).await;
    seal(&process, &context("a")).await;
    let waited = tool(&world).await_fleet(Duration::ZERO).await;
    assert!(
        matches!(waited, Err(Error::Store(StoreError::Unavailable { .. }))),
        "{waited:?}"
    );
    world.rows.set_unavailable(false);
    world.pass(20 * SECOND).await;
    assert_eq!(registry(&world).await.len(), 1);
    process.shutdown().await;
}

#[tokio::test]
async fn where_nobody_registers_nobody_can_be_waited_for() {
    let world = World::new();
    let process = world.process().await;
    let waited = process.key_manager().await_fleet(MINUTE).await;
    assert!(
        matches!(waited, Err(Error::Store(StoreError::Unsupported { .. }))),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_name_that_the_registry_would_refuse_is_refused_at_once() {
    for name in ["", "a\nb", &"x".repeat(201)] {
        let built = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
            .process_name(name)
            .build()
            .await;
        assert!(matches!(built, Err(Error::Config { .. })), "{name:?}");
    }
}
