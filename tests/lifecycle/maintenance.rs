//! Scheduled rotation: due keys are rotated once across all processes, and no request waits.

use std::time::Duration;

use encx::Error;
use encx::keys::{KeyState, KeyUsage, Maintenance, MaintenanceReport, RotationPeriod};
use encx::store::{KeyStore, ProcessId, StoreError};
use encx_test_support::{FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open, seal, settle, within};

use super::{drive, other_process, tool};

const DAY: Duration = Duration::from_secs(24 * 3600);
const STEP: Duration = Duration::from_millis(250);

async fn run(harness: &FaultHarness, maintenance: &Maintenance) -> MaintenanceReport {
    drive(harness, STEP, maintenance.run_once()).await.unwrap()
}

fn states(harness: &FaultHarness) -> Vec<(u32, KeyState)> {
    let records = harness.rows.records();
    records
        .iter()
        .map(|record| (record.version.get(), record.state))
        .collect()
}

#[tokio::test]
async fn what_is_old_enough_is_rotated_and_nothing_else() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    let of = |tenant: &str, purpose: &str| {
        let builder = encx::EncryptionContext::builder();
        builder
            .pair("tenantId", tenant)
            .pair("purpose", purpose)
            .build()
            .unwrap()
    };
    let old = ["pii", "payments", "archive"].map(|purpose| of("old", purpose));
    for context in &old {
        manager.create(context).await.unwrap();
    }
    manager
        .clone()
        .for_usage(KeyUsage::Pepper)
        .create(&old[0])
        .await
        .unwrap();
    harness.clock.advance(60 * DAY);
    let young = ["pii", "payments"].map(|purpose| of("young", purpose));
    for context in &young {
        manager.create(context).await.unwrap();
    }
    let maintenance = Maintenance::new(manager.clone())
        .rotate_every_for("purpose", "payments", 30 * DAY)
        .never_rotate_for("purpose", "archive");
    let report = run(&harness, &maintenance).await;
    assert_eq!(
        (report.published.len(), report.promoted.len()),
        (1, 1),
        "{report:?}"
    );
    assert_eq!(manager.list(&old[1]).await.unwrap().len(), 2);

    harness.clock.advance(31 * DAY);
    let report = run(&harness, &maintenance).await;
    assert_eq!(report.published, report.promoted);
    let versions = |context: &encx::EncryptionContext| {
        let (manager, context) = (manager.clone(), context.clone());
        async move { manager.list(&context).await.unwrap().len() }
    };
    assert_eq!(versions(&old[0]).await, 2, "91 days old");
    assert_eq!(versions(&old[1]).await, 3, "31 days after its last rotation");
    assert_eq!(versions(&old[2]).await, 1, "never");
    assert_eq!(versions(&young[0]).await, 1, "31 days old");
    assert_eq!(
        versions(&young[1]).await,
        2,
        "31 days old, and that is enough here"
    );
    let peppers = manager.clone().for_usage(KeyUsage::Pepper);
    assert_eq!(
        peppers.list(&old[0]).await.unwrap().len(),
        1,
        "peppers were not requested"
    );
    assert!(report.failed.is_empty() && report.stopped.is_none() && !report.held_elsewhere);

    let report = run(&harness, &maintenance).await;
    assert!(report.published.is_empty() && report.promoted.is_empty() && report.processes.is_none());
    let report = run(&harness, &maintenance.clone().also_rotate(KeyUsage::Pepper)).await;
    assert_eq!(report.promoted.len(), 1);
    assert_eq!(peppers.list(&old[0]).await.unwrap().len(), 2);
    let by_function = maintenance.rotate_by(HOUR, |context, _| match context.get("tenantId") {
        Some("young") => Some(RotationPeriod::Every(HOUR)),
        _ => Some(RotationPeriod::Never),
    });
    harness.clock.advance(2 * HOUR);
    let report = run(&harness, &by_function).await;
    assert_eq!(report.promoted.len(), 2);
    assert_eq!((versions(&young[0]).await, versions(&young[1]).await), (2, 3));
}

#[tokio::test]
async fn no_request_waits_for_a_rotation() {
    let harness = FaultHarness::with_hints().with_registry();
    let process = harness.process().await;
    let other = harness.built(harness.builder()).await;
    let tenants: Vec<_> = (0..20).map(context).collect();
    let mut keyrings = Vec::new();
    for context in &tenants {
        let sealed = seal(&process, context).await;
        open(&other, context, &sealed).await.unwrap();
        for process in [&process, &other] {
            seal(process, context).await;
            keyrings.push((process.keyring(context).await.unwrap(), sealed.clone()));
        }
    }
    let misses = process.stats().misses + other.stats().misses;
    let maintenance = Maintenance::new(process.key_manager())
        .rotate_every(HOUR)
        .batch(7);
    let request = || {
        for (keyring, sealed) in &keyrings {
            keyring.try_encrypt("x", SSN.row(1)).unwrap();
            keyring.try_decrypt(sealed, SSN.row(1)).unwrap();
        }
    };
    harness.pass_with(HOUR + MINUTE, request).await;
    let running = tokio::spawn(async move { maintenance.run_once().await });
    while !running.is_finished() {
        harness.clock.advance(STEP / 10);
        settle().await;
        request();
    }
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.promoted.len(), 20, "{report:?}");
    assert!(report.processes.as_ref().unwrap().is_complete());
    settle().await;
    request();
    for (keyring, sealed) in &keyrings {
        let now = keyring.try_encrypt("x", SSN.row(1)).unwrap().key_id();
        assert!(now > sealed.key_id());
    }
    assert_eq!(process.stats().misses + other.stats().misses, misses);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_many_run_it_each_version_is_made_once() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    for tenant in 0..30 {
        manager.create(&context(tenant)).await.unwrap();
    }
    harness.clock.advance(91 * DAY);
    harness.kms.reset_calls();
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let maintenance = Maintenance::new(tool(&harness));
        runs.spawn(async move { maintenance.run_once().await.unwrap() });
    }
    let reports = within(runs.join_all()).await;
    let promoted: usize = reports.iter().map(|report| report.promoted.len()).sum();
    assert_eq!(promoted, 30);
    assert_eq!(harness.kms.calls().generate, 30);
    let mut expected = vec![(1, KeyState::Deactivated); 30];
    expected.extend([(2, KeyState::Active); 30]);
    assert_eq!(states(&harness), expected);
}

#[tokio::test]
async fn a_process_that_dies_delays_the_others_by_no_more_than_the_lease() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    for tenant in ["a", "b"] {
        manager.create(&context(tenant)).await.unwrap();
    }
    harness.clock.advance(91 * DAY);
    // It dies when the first version is stored and the KMS is creating the second.
    let _slow = harness.kms.clone().with_latency(harness.clock.clone(), SECOND);
    let doomed = Maintenance::new(tool(&harness));
    let dying = tokio::spawn(async move { doomed.run_once().await });
    within(harness.kms.until_in_flight(1)).await;
    harness.clock.advance(SECOND);
    settle().await;
    assert_eq!((harness.rows.records().len(), harness.kms.in_flight()), (3, 1));
    dying.abort();
    let _ = dying.await;

    let maintenance = Maintenance::new(tool(&harness));
    let report = run(&harness, &maintenance).await;
    assert!(report.held_elsewhere && report.promoted.is_empty(), "{report:?}");
    harness.clock.advance(61 * SECOND);
    let report = run(&harness, &maintenance).await;
    assert!(!report.held_elsewhere);
    // The published version is promoted, and no second one is created for it.
    assert_eq!(
        (report.published.len(), report.promoted.len()),
        (1, 2),
        "{report:?}"
    );
    assert_eq!(harness.rows.records().len(), 4);
}

/// Like an index key whose second column is being filled; see `blind_index_under`.
#[tokio::test]
async fn a_prepared_version_waits_until_the_active_one_is_due() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness).for_usage(KeyUsage::Index);
    manager.create(&context("a")).await.unwrap();
    let prepared = manager.prepare(&context("a")).await.unwrap();
    let maintenance = Maintenance::new(tool(&harness))
        .also_rotate(KeyUsage::Index)
        .publish_deadline(10 * MINUTE);
    harness.clock.advance(89 * DAY);
    let report = run(&harness, &maintenance).await;
    assert!(
        report.promoted.is_empty() && report.failed.is_empty(),
        "{report:?}"
    );
    assert_eq!(
        states(&harness),
        [(1, KeyState::Active), (2, KeyState::PreActive)]
    );
    harness.clock.advance(2 * DAY);
    let report = run(&harness, &maintenance).await;
    assert_eq!(report.promoted, [prepared.id]);
    assert!(report.published.is_empty(), "no second one is made for it");
}

#[tokio::test]
async fn a_process_that_lost_the_lease_writes_nothing_more() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    for tenant in 0..3 {
        manager.create(&context(tenant)).await.unwrap();
    }
    harness.clock.advance(91 * DAY);
    harness.kms.hold();
    let maintenance = Maintenance::new(tool(&harness)).lease_term(6 * SECOND);
    let running = tokio::spawn(async move { maintenance.run_once().await.unwrap() });
    within(harness.kms.until_in_flight(1)).await;
    // It is stopped for so long that another process takes over.
    harness.clock.advance(10 * SECOND);
    let leases = harness.rows.leases().unwrap();
    let taken = leases
        .acquire_lease("maintenance/rotation", ProcessId::random(), HOUR)
        .await;
    assert!(taken.unwrap().is_some());
    harness.kms.release();
    let report = within(running).await.unwrap();
    assert!(report.held_elsewhere, "{report:?}");
    assert_eq!((report.published.len(), report.promoted.len()), (1, 0));
    assert_eq!(harness.kms.calls().generate, 4);
}

/// It waits for the processes for longer than the lease's term.
#[tokio::test]
async fn a_process_that_waits_keeps_the_lease() {
    let harness = FaultHarness::with_hints().with_registry();
    let process = harness.process().await;
    seal(&process, &context("a")).await;
    harness.clock.advance(91 * DAY);
    settle().await;
    harness.store.set_down(true);
    let maintenance = Maintenance::new(tool(&harness))
        .lease_term(6 * SECOND)
        .publish_deadline(MINUTE);
    let (first, second) = (maintenance.clone(), Maintenance::new(tool(&harness)));
    let running = tokio::spawn(async move { first.run_once().await.unwrap() });
    for _ in 0..50 {
        settle().await;
        assert!(second.run_once().await.unwrap().held_elsewhere);
        harness.clock.advance(SECOND);
    }
    let report = drive(&harness, STEP, running).await.unwrap();
    assert_eq!(report.promoted.len(), 1, "promoted all the same: {report:?}");
    assert_eq!(report.processes.unwrap().silent.len(), 1);
}

#[tokio::test]
async fn a_key_that_does_not_open_holds_up_no_other() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    for tenant in ["a", "b", "c", "d"] {
        manager.create(&context(tenant)).await.unwrap();
    }
    let waiting = manager.prepare(&context("a")).await.unwrap();
    harness.rows.tamper(|rows| {
        for row in rows {
            if row.id == waiting.id {
                row.wraps[0].wrapped.kek = "memory/planted".parse().unwrap();
            }
            if row.context["tenantId"] == "b" {
                row.context.insert("tenantId".into(), "c".into());
            }
        }
    });
    let suspended = manager.list(&context("d")).await.unwrap()[0].id;
    manager.prepare(&context("d")).await.unwrap();
    manager
        .set_state(&context("d"), suspended, KeyState::Suspended)
        .await
        .unwrap();
    harness.clock.advance(91 * DAY);
    let report = run(&harness, &Maintenance::new(tool(&harness))).await;
    let mut failed: Vec<_> = report
        .failed
        .iter()
        .map(|failed| (failed.id, &failed.error))
        .collect();
    // They are in the order of their ids, which are random while the clock stands still.
    failed.sort_by_key(|(_, error)| matches!(error, Error::Store(_)));
    assert!(
        matches!(failed[..], [(id, Error::KekNotAllowed { .. }), (_, Error::Store(StoreError::Corrupt { .. }))] if id == waiting.id),
        "{failed:?}"
    );
    // Another version replaced the one that does not open, and the suspended one was not started.
    assert_eq!(
        (report.published.len(), report.promoted.len()),
        (2, 2),
        "{report:?}"
    );
    let of_a = manager.list(&context("a")).await.unwrap();
    assert_eq!(of_a.len(), 3);
    assert_eq!(of_a[2].state, KeyState::Active);
    let of_d = manager.list(&context("d")).await.unwrap();
    assert_eq!(
        (of_d[0].state, of_d[1].state),
        (KeyState::Suspended, KeyState::PreActive)
    );
}

#[tokio::test]
async fn a_kms_that_is_down_leaves_it_for_the_next_run() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    for tenant in 0..3 {
        manager.create(&context(tenant)).await.unwrap();
    }
    harness.clock.advance(91 * DAY);
    harness.kms.set_unavailable(true);
    let maintenance = Maintenance::new(manager);
    let report = run(&harness, &maintenance).await;
    assert_eq!((report.failed.len(), report.promoted.len()), (3, 0));
    assert!(report.failed.iter().all(|failed| failed.error.is_retryable()));
    harness.kms.set_unavailable(false);
    harness.clock.advance(HOUR);
    assert_eq!(run(&harness, &maintenance).await.promoted.len(), 3);
}

#[tokio::test]
async fn in_the_background_it_runs_at_its_interval_and_ends_with_its_crypto() {
    let harness = FaultHarness::with_hints().with_registry();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    let task = Maintenance::new(process.key_manager())
        .rotate_every(2 * HOUR)
        .spawn()
        .unwrap();
    let newest = || harness.rows.records().pop().unwrap();
    harness.pass(HOUR).await;
    assert_eq!(newest().id, sealed.key_id());
    harness.pass(3 * HOUR).await;
    assert_eq!((newest().version.get(), newest().state), (2, KeyState::Active));
    // It does not keep the process alive.
    drop(process);
    settle().await;
    assert_eq!(super::registry(&harness).await, []);
    harness.pass(4 * HOUR).await;
    assert_eq!(newest().version.get(), 2);
    within(task.stop()).await;

    // Dropping its handle ends it too.
    let process = other_process(&harness).await;
    let task = Maintenance::new(process.key_manager())
        .rotate_every(HOUR)
        .spawn()
        .unwrap();
    drop(task);
    harness.pass(2 * HOUR).await;
    assert_eq!(newest().version.get(), 2);
    let spawned = Maintenance::new(process.key_manager())
        .interval(Duration::ZERO)
        .spawn();
    assert!(matches!(spawned, Err(Error::Config { .. })), "{spawned:?}");
}

#[tokio::test]
async fn in_the_background_it_follows_a_process_that_died_with_the_lease() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    manager.create(&context("a")).await.unwrap();
    harness.pass(2 * HOUR).await;
    let leases = harness.rows.leases().unwrap();
    let taken = leases
        .acquire_lease("maintenance/rotation", ProcessId::random(), 600 * SECOND)
        .await;
    assert!(taken.unwrap().is_some());
    let maintenance = Maintenance::new(manager).rotate_every(HOUR);
    let task = maintenance.interval(HOUR).spawn().unwrap();
    harness.pass(540 * SECOND).await;
    assert_eq!(harness.rows.records().len(), 1, "the lease is held");
    // Well before the next interval.
    harness.pass(360 * SECOND).await;
    assert_eq!(harness.rows.records().len(), 2);
    within(task.stop()).await;
}

#[tokio::test]
async fn stopped_in_the_midst_it_gives_the_lease_back() {
    let harness = FaultHarness::with_hints().with_registry();
    let manager = tool(&harness);
    manager.create(&context("a")).await.unwrap();
    harness.clock.advance(91 * DAY);
    harness.kms.hold();
    let task = Maintenance::new(manager.clone()).spawn().unwrap();
    within(async {
        while harness.kms.in_flight() == 0 {
            harness.clock.advance(10 * SECOND);
            settle().await;
        }
    })
    .await;
    within(task.stop()).await;
    assert_eq!(harness.kms.in_flight(), 0);
    harness.kms.release();
    let report = run(&harness, &Maintenance::new(manager)).await;
    assert_eq!(report.promoted.len(), 1, "{report:?}");
}

/// With leases, one process rotates. Without a registry, it waits for as long as the others need to see the new
/// version.
#[tokio::test]
async fn without_a_registry_the_deadline_stands_in_for_the_processes() {
    let harness = FaultHarness::new().without_registry();
    let process = harness.process().await;
    let context = context("a");
    seal(&process, &context).await;
    harness.pass(HOUR / 2).await;
    let maintenance = Maintenance::new(process.key_manager())
        .rotate_every(MINUTE)
        .publish_deadline(10 * MINUTE);
    let report = run(&harness, &maintenance).await;
    assert_eq!(
        (report.published.len(), report.promoted.len()),
        (1, 1),
        "{report:?}"
    );
    assert!(
        report.processes.is_none() && report.stopped.is_none(),
        "{report:?}"
    );
    assert_eq!(seal(&process, &context).await.key_id(), report.promoted[0]);
}

#[tokio::test]
async fn without_leases_it_works_alone() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let context = context("a");
    seal(&process, &context).await;
    seal(&process, &context).await;
    harness.pass(HOUR / 2).await;
    let maintenance = Maintenance::new(process.key_manager()).rotate_every(MINUTE);
    let report = run(&harness, &maintenance).await;
    assert_eq!(
        (report.published.len(), report.promoted.len()),
        (1, 1),
        "{report:?}"
    );
    assert!(report.processes.is_none());
    assert_eq!(seal(&process, &context).await.key_id(), report.promoted[0]);
}
