//! Rotating the keys of all contexts, each once.

use std::collections::BTreeMap;

use encx::EncryptionContext;
use encx::keys::{KeyState, KeyUsage, Scope};
use encx::kms::KmsErrorKind;
use encx::store::JobTally;
use encx_test_support::{HOUR, HarnessExt, SECOND, context, settle};
use encx_testkit::{Harness, MemoryKms};

fn tenant(number: u32) -> EncryptionContext {
    context(format!("t-{number}"))
}

async fn with_keys(tenants: u32) -> Harness {
    let harness = Harness::new().await;
    for number in 0..tenants {
        harness
            .crypto()
            .key_manager()
            .create(&tenant(number))
            .await
            .unwrap();
    }
    harness.clock().advance(HOUR).await;
    harness
}

/// Counts the versions of each scope of a usage.
fn versions(harness: &Harness, usage: KeyUsage) -> Vec<usize> {
    let mut counts: BTreeMap<Scope, usize> = BTreeMap::new();
    for record in harness.store().records() {
        if record.usage == usage {
            *counts.entry(record.scope).or_default() += 1;
        }
    }
    counts.into_values().collect()
}

#[tokio::test]
async fn every_context_is_rotated_once_and_a_second_run_rotates_none() {
    let harness = with_keys(60).await;
    let manager = harness.crypto().key_manager().because("an operator left");
    for usage in [KeyUsage::Index, KeyUsage::Pepper, KeyUsage::Stream] {
        manager.clone().for_usage(usage).create(&tenant(0)).await.unwrap();
    }
    // One that waits is promoted, and one that is out of use stays so.
    let suspended = manager.list(&tenant(1)).await.unwrap().remove(0);
    manager
        .set_state(&tenant(1), suspended.id, KeyState::Suspended)
        .await
        .unwrap();
    harness.clock().advance(HOUR).await;
    let before = manager.time_of_store().await.unwrap();
    harness.clock().advance(SECOND).await;

    let planned = manager.rotate_all(before).dry_run().run().await;
    assert_eq!(planned.run, JobTally::new(60, 0, 0));
    assert_eq!(versions(&harness, KeyUsage::Data), [1; 60]);

    let report = harness
        .in_time(manager.rotate_all(before).range_size(10).run())
        .await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run, JobTally::new(60, 0, 0));
    let mut counts = versions(&harness, KeyUsage::Data);
    counts.sort_unstable();
    assert_eq!(counts, [vec![1], vec![2; 59]].concat());
    assert_eq!(versions(&harness, KeyUsage::Stream), [2]);
    // Their terms and hashes would still be those of the old versions.
    assert_eq!(versions(&harness, KeyUsage::Index), [1]);
    assert_eq!(versions(&harness, KeyUsage::Pepper), [1]);
    let active = harness
        .store()
        .records()
        .into_iter()
        .filter(|record| record.state == KeyState::Active);
    assert!(
        active
            .filter(|record| record.version.get() == 2)
            .all(|record| record.activated_at >= Some(before))
    );

    let again = harness.in_time(manager.rotate_all(before).run()).await;
    assert_eq!(again.run, JobTally::default());
    assert_eq!(versions(&harness, KeyUsage::Data).iter().sum::<usize>(), 119);
}

#[tokio::test]
async fn a_worker_that_dies_and_another_rotate_each_context_once() {
    let harness = with_keys(100).await;
    let crypto = harness.crypto();
    let before = crypto.key_manager().time_of_store().await.unwrap();
    harness.clock().advance(SECOND).await;
    let mut run = crypto.key_manager().rotate_all(before).range_size(10).start();
    for _ in 0..5 {
        run.next_event().await;
    }
    harness.kms().hold();
    tokio::select! {
        biased;
        _ = async { while run.next_event().await.is_some() {} } => panic!("the KMS is held"),
        () = settle() => {}
    }
    drop(run);
    harness.kms().release();
    let done: usize = versions(&harness, KeyUsage::Data).iter().sum();
    assert!((110..200).contains(&done), "{done}");

    let heir = harness.builder().build().await.unwrap();
    let report = harness
        .in_time(heir.key_manager().rotate_all(before).range_size(10).run())
        .await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(versions(&harness, KeyUsage::Data), [2; 100]);
}

#[tokio::test]
async fn two_at_once_with_one_cut_off_rotate_each_context_once() {
    let harness = with_keys(80).await;
    let (a, b) = (
        harness.builder().build().await.unwrap(),
        harness.builder().build().await.unwrap(),
    );
    let before = a.key_manager().time_of_store().await.unwrap();
    harness.clock().advance(SECOND).await;
    // Under names of their own they share nothing but the keys.
    let job = |crypto: &encx::Crypto, name: &str| {
        crypto
            .key_manager()
            .rotate_all(before)
            .job_name(name)
            .range_size(5)
            .run()
    };
    let (a, b) = harness
        .in_time(async { tokio::join!(job(&a, "a"), job(&b, "b")) })
        .await;
    assert!(a.is_complete() && b.is_complete(), "{a} {b}");
    assert_eq!(versions(&harness, KeyUsage::Data), [2; 80]);
}

#[tokio::test]
async fn a_context_that_fails_is_named_and_the_next_run_rotates_it() {
    let harness = with_keys(5).await;
    let manager = harness.crypto().key_manager();
    let before = manager.time_of_store().await.unwrap();
    harness.clock().advance(SECOND).await;
    harness.store().tamper(|rows| {
        rows[1].context.insert("tenantId".to_owned(), "other".to_owned());
    });
    let edited = harness.store().records()[1].id;
    let report = harness.in_time(manager.rotate_all(before).run()).await;
    assert_eq!(report.run, JobTally::new(4, 0, 1));
    assert_eq!(report.failures[0].what, format!("data key {edited}"));

    let harness = with_keys(5).await;
    let manager = harness.crypto().key_manager();
    let before = manager.time_of_store().await.unwrap();
    harness.clock().advance(SECOND).await;
    harness
        .kms()
        .set_kek_fault(MemoryKms::DEFAULT_KEK, Some(KmsErrorKind::AccessDenied));
    let report = harness.in_time(manager.rotate_all(before).run()).await;
    assert_eq!(report.run, JobTally::new(0, 0, 5));
    harness.kms().set_kek_fault(MemoryKms::DEFAULT_KEK, None);
    harness.clock().advance(HOUR).await;
    let report = harness.in_time(manager.rotate_all(before).run()).await;
    assert_eq!(report.run, JobTally::new(5, 0, 0));
    assert_eq!(versions(&harness, KeyUsage::Data), [2; 5]);
}
