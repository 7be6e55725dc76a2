//! Processes register, acknowledge what they have followed, and can be waited for.

use std::time::Duration;

use encx::keys::ProcessReport;
use encx::store::{KeyStore, ProcessId, ProcessInfo, StoreError};
use encx::{Clock, Crypto, Error};
use encx_test_support::{FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open, seal, settle, until};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

use super::{drive, other_process, registry, tool};

const STEP: Duration = Duration::from_millis(25);

fn names(infos: &[ProcessInfo]) -> Vec<&str> {
    let mut names: Vec<_> = infos.iter().map(|info| info.name.as_str()).collect();
    names.sort_unstable();
    names
}

async fn await_processes(harness: &FaultHarness, patience: Duration) -> ProcessReport {
    drive(harness, STEP, tool(harness).await_processes(patience))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_process_registers_says_that_it_is_there_and_signs_off() {
    let harness = FaultHarness::new().with_registry();
    let builder = harness.builder().process_name("billing-7");
    let process = harness.built(builder.stale_decrypt_if_unavailable(HOUR)).await;
    let first = registry(&harness).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].info.name, "billing-7");
    assert_eq!(first[0].info.serves_for, 2 * HOUR);
    assert_eq!(first[0].info.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    harness.pass(MINUTE).await;
    let later = registry(&harness).await;
    assert_eq!((later.len(), later[0].info.id), (1, first[0].info.id));
    assert_eq!(later[0].started_at, first[0].started_at);
    let age = later[0].seen_at.as_micros() - first[0].seen_at.as_micros();
    assert!(age >= 50_000_000, "{age}");
    process.shutdown().await;
    assert_eq!(registry(&harness).await, []);
}

#[tokio::test]
async fn with_the_last_handle_a_process_signs_off_too() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    let keyring = process.keyring(&context("a")).await.unwrap();
    drop(process);
    settle().await;
    assert_eq!(registry(&harness).await.len(), 1);
    drop(keyring);
    settle().await;
    assert_eq!(registry(&harness).await, []);
}

#[tokio::test]
async fn a_short_state_ttl_makes_a_process_speak_more_often() {
    let harness = FaultHarness::new().with_registry();
    let _process = harness.built(harness.builder().state_ttl(2 * SECOND)).await;
    let first = registry(&harness).await[0].seen_at;
    harness.clock.advance(SECOND);
    settle().await;
    assert!(registry(&harness).await[0].seen_at > first);
}

#[tokio::test]
async fn a_wait_ends_when_every_process_has_dropped_the_key() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, other) = (harness.process().await, other_process(&harness).await);
    let sealed = seal(&process, &context("a")).await;
    open(&other, &context("a"), &sealed).await.unwrap();
    let began = harness.clock.elapsed();
    harness.suspend_elsewhere(&context("a")).await;
    let report = await_processes(&harness, MINUTE).await;
    assert!(
        report.is_complete() && report.serves_until().is_none(),
        "{report:?}"
    );
    assert_eq!(report.acknowledged.len(), 2);
    assert!(report.gone.is_empty());
    assert!(
        harness.clock.elapsed() - began < SECOND,
        "hints are followed at once"
    );
    for process in [&process, &other] {
        assert_eq!(process.stats().keys, 0);
    }
}

/// Each is a write, and hints can be forged.
#[tokio::test]
async fn heartbeats_that_are_hinted_at_keep_their_distance() {
    let harness = FaultHarness::with_hints().with_registry();
    let _process = harness.process().await;
    settle().await;
    let raise = async || {
        let raised = harness.rows.processes().unwrap().raise_fence().await.unwrap();
        settle().await;
        raised
    };
    let acknowledged = async || registry(&harness).await[0].acknowledged;
    let first = raise().await;
    assert_eq!(acknowledged().await, first, "the first is at once");
    for _ in 0..20 {
        raise().await;
    }
    harness.clock.advance(Duration::from_millis(249));
    settle().await;
    assert_eq!(acknowledged().await, first);
    let last = raise().await;
    harness.clock.advance(Duration::from_millis(1));
    settle().await;
    assert_eq!(acknowledged().await, last, "no hint is lost");
}

#[tokio::test]
async fn without_hints_it_takes_a_heartbeat() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    let keyring = process.keyring(&context("a")).await.unwrap();
    harness.suspend_elsewhere(&context("a")).await;
    let began = harness.clock.elapsed();
    let report = await_processes(&harness, MINUTE).await;
    assert!(report.is_complete(), "{report:?}");
    let took = harness.clock.elapsed() - began;
    // Less than half of `state_ttl`, when the next poll would be due.
    assert!(took > SECOND && took <= 11 * SECOND, "{took:?}");
    assert!(keyring.try_decrypt(&sealed, SSN.row(1)).is_err());
}

#[tokio::test]
async fn a_crypto_that_waits_acknowledges_by_itself() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    let began = harness.clock.elapsed();
    let waiting = process.key_manager();
    let report = drive(&harness, STEP, waiting.await_processes(MINUTE))
        .await
        .unwrap();
    assert!(
        report.is_complete() && report.acknowledged.len() == 1,
        "{report:?}"
    );
    assert!(harness.clock.elapsed() - began < SECOND);
}

#[tokio::test]
async fn a_poll_that_fails_acknowledges_nothing() {
    let harness = FaultHarness::with_hints().with_registry();
    let process = harness.built(harness.builder().process_name("cut off")).await;
    let _other = other_process(&harness).await;
    seal(&process, &context("a")).await;
    // Its heartbeats arrive, but it cannot read.
    harness.store.set_down(true);
    harness.suspend_elsewhere(&context("a")).await;
    let report = await_processes(&harness, 20 * SECOND).await;
    assert_eq!(names(&report.acknowledged), ["other"]);
    assert_eq!(report.silent.len(), 1);
    assert_eq!(report.silent[0].process.name, "cut off");
    assert!(!report.is_complete());
    // The default `ttl`: it cannot serve for longer.
    assert_eq!(report.silent[0].serves_until, report.at.plus(HOUR));
    assert_eq!(report.serves_until(), Some(report.at.plus(HOUR)));
    harness.store.set_down(false);
    let report = await_processes(&harness, MINUTE).await;
    assert!(report.is_complete(), "{report:?}");
}

#[tokio::test]
async fn a_poll_that_began_before_the_fence_is_not_enough() {
    let harness = FaultHarness::with_hints().with_registry();
    let _process = harness.process().await;
    harness.store.polls.hold();
    harness.clock.advance(30 * SECOND);
    harness.store.polls.until_waiting(1).await;
    let fence = harness.rows.processes().unwrap().raise_fence().await.unwrap();
    // It learns of the fence with its next heartbeat, while that poll is in flight.
    harness.clock.advance(11 * SECOND);
    settle().await;
    let polls = harness.rows.polls();
    harness.store.polls.release();
    until("another poll", || harness.rows.polls() == polls + 2).await;
    settle().await;
    assert_eq!(registry(&harness).await[0].acknowledged, fence);
}

#[tokio::test]
async fn a_silent_process_is_not_waited_for_and_not_forgotten() {
    let harness = FaultHarness::with_hints().with_registry();
    let process = harness.process().await;
    let registry = harness.rows.processes().unwrap();
    let (short, long) = (ProcessId::random(), ProcessId::random());
    registry
        .heartbeat(&ProcessInfo::new(short, "short", MINUTE))
        .await
        .unwrap();
    registry
        .heartbeat(&ProcessInfo::new(long, "long", HOUR))
        .await
        .unwrap();
    harness.pass(5 * MINUTE).await;
    let began = harness.clock.elapsed();
    let report = await_processes(&harness, MINUTE).await;
    assert!(
        harness.clock.elapsed() - began < 14 * SECOND,
        "a dead process is not waited for after its time for a heartbeat"
    );
    assert_eq!(report.acknowledged.len(), 1);
    assert_eq!(names(&report.gone), ["short"]);
    assert_eq!(report.silent.len(), 1);
    assert_eq!(report.silent[0].process.name, "long");
    drop(process);
}

#[tokio::test]
async fn a_jump_of_the_databases_clock_makes_no_process_gone() {
    let harness = FaultHarness::new();
    let registry = harness.rows.processes().unwrap();
    let info = ProcessInfo::new(ProcessId::random(), "alive", MINUTE);
    registry.heartbeat(&info).await.unwrap();
    // Longer than it serves, but not so long that the registry forgets it.
    harness.clock.advance(HOUR);
    // The clock of the process that waits does not jump.
    let own = ManualClock::new();
    let manager = Crypto::builder(harness.kms.clone(), harness.rows.clone())
        .clock(own.clone())
        .build_key_manager()
        .unwrap();
    let mut waiting = std::pin::pin!(manager.await_processes(MINUTE));
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
    // Without time for a heartbeat, it is not known to be gone.
    harness.clock.advance(HOUR);
    let report = tool(&harness).await_processes(Duration::ZERO).await.unwrap();
    assert_eq!((report.gone.len(), report.silent.len()), (0, 1), "{report:?}");
}

#[tokio::test]
async fn a_process_that_signs_off_is_not_waited_for() {
    let harness = FaultHarness::new().with_registry();
    let registry = harness.rows.processes().unwrap();
    let id = ProcessId::random();
    registry
        .heartbeat(&ProcessInfo::new(id, "leaves", HOUR))
        .await
        .unwrap();
    let manager = tool(&harness);
    let leaving = async {
        harness.clock.sleep(SECOND).await;
        registry.deregister(id).await.unwrap();
        std::future::pending::<()>().await;
    };
    let report = drive(&harness, STEP, async {
        tokio::select! {
            report = manager.await_processes(MINUTE) => report.unwrap(),
            () = leaving => unreachable!(),
        }
    })
    .await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(names(&report.gone), ["leaves"]);
}

#[tokio::test]
async fn a_registry_that_is_down_stops_no_encryption() {
    let harness = FaultHarness::new().with_registry();
    harness.rows.set_unavailable(true);
    let process = harness.builder().build().await.unwrap();
    settle().await;
    harness.rows.set_unavailable(false);
    seal(&process, &context("a")).await;
    harness.rows.set_unavailable(true);
    harness.pass(5 * MINUTE).await;
    seal(&process, &context("a")).await;
    let waited = tool(&harness).await_processes(Duration::ZERO).await;
    assert!(
        matches!(waited, Err(Error::Store(StoreError::Unavailable { .. }))),
        "{waited:?}"
    );
    harness.rows.set_unavailable(false);
    harness.pass(20 * SECOND).await;
    assert_eq!(registry(&harness).await.len(), 1);
    process.shutdown().await;
}

#[tokio::test]
async fn without_a_registry_no_process_can_be_waited_for() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let waited = process.key_manager().await_processes(MINUTE).await;
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
