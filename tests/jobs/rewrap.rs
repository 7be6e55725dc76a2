//! Moving all keys to another KEK.

use std::time::Duration;

use encx::jobs::{JobEnd, JobError};
use encx::keys::{KeyState, KeyUsage};
use encx::kms::{KekRef, KmsErrorKind};
use encx::store::{JobTally, KeyStore};
use encx::{Crypto, CryptoBuilder, EncryptionContext, Error};
use encx_test_support::{HarnessExt, SSN, context, settle};
use encx_testkit::{Harness, MemoryKeyStore, MemoryKms};

use super::support::REFUSED;

fn tenant(number: u32) -> EncryptionContext {
    context(format!("t-{number}"))
}

fn tally(changed: u64, unchanged: u64, failed: u64) -> JobTally {
    JobTally::new(changed, unchanged, failed)
}

fn by(store: &MemoryKeyStore, kek: &str) -> usize {
    let records = store.records();
    let wraps = records.iter().flat_map(|record| &record.wraps);
    wraps.filter(|wrap| wrap.wrapped.kek.as_str() == kek).count()
}

/// A harness whose key store holds `tenants` keys under `memory/old`; every fifth tenant has a second version.
async fn under_the_old_kek(tenants: u32) -> Harness {
    let harness = Harness::new().await;
    harness.kms().create_kek("memory/old");
    harness.kms().create_kek("memory/new");
    let before = process(&harness, |builder| builder.kek("memory/old")).await;
    for number in 0..tenants {
        before.key_manager().create(&tenant(number)).await.unwrap();
        if number % 5 == 0 {
            before.key_manager().rotate(&tenant(number)).await.unwrap();
        }
    }
    harness.kms().reset_calls();
    harness
}

async fn process(harness: &Harness, set_up: impl FnOnce(CryptoBuilder) -> CryptoBuilder) -> Crypto {
    set_up(harness.builder()).build().await.unwrap()
}

/// A process whose KEK rule wraps under the new KEK.
async fn moving(harness: &Harness) -> Crypto {
    process(harness, |builder| {
        builder.kek("memory/new").also_unwrap("memory/old")
    })
    .await
}

#[tokio::test]
async fn all_keys_move_with_one_call_each_and_the_second_time_none() {
    let harness = under_the_old_kek(100).await;
    let before = process(&harness, |builder| builder.kek("memory/old")).await;
    let sealed = before.encrypt(&tenant(0), "text", SSN.row(1)).await.unwrap();
    let peppers = before.key_manager().for_usage(KeyUsage::Pepper);
    peppers.create(&tenant(1)).await.unwrap();
    let gone = before.key_manager().rotate(&tenant(2)).await.unwrap();
    let old = before.key_manager().list(&tenant(2)).await.unwrap().remove(0);
    before
        .key_manager()
        .destroy_with_data(&tenant(2), old.id, "a test")
        .await
        .unwrap();
    assert_ne!(gone.id, old.id);
    harness.kms().reset_calls();

    let crypto = moving(&harness).await;
    let report = crypto.key_manager().rewrap_all().range_size(50).run().await;
    assert!(report.is_complete(), "{report}");
    // A hundred, plus twenty that were rotated, plus the pepper, plus the successor of the destroyed one, which is left
    // out.
    assert_eq!(report.run, tally(121, 0, 0));
    let calls = harness.kms().calls();
    assert_eq!((calls.rewrap, calls.unwrap, calls.wrap), (121, 0, 0));
    // Resolving the two KEKs.
    assert_eq!(calls.describe, 2);
    assert_eq!(
        (
            by(harness.store(), "memory/old"),
            by(harness.store(), "memory/new")
        ),
        (0, 121)
    );
    let read = crypto.decrypt(&tenant(0), &sealed, SSN.row(1)).await.unwrap();
    assert_eq!(read.as_bytes(), b"text");

    harness.kms().reset_calls();
    let writes = harness.store().writes();
    let again = crypto.key_manager().rewrap_all().run().await;
    assert_eq!(again.run, tally(0, 121, 0));
    assert_eq!(
        (harness.kms().calls().total(), harness.kms().calls().describe),
        (1, 1)
    );
    assert_eq!(harness.store().writes(), writes);
}

#[tokio::test]
async fn workers_share_and_no_key_is_moved_twice() {
    let harness = under_the_old_kek(400).await;
    let (a, b) = (moving(&harness).await, moving(&harness).await);
    let job = |crypto: &Crypto| crypto.key_manager().rewrap_all().range_size(20).run();
    let (a, b) = harness.in_time(async { tokio::join!(job(&a), job(&b)) }).await;
    assert_eq!((a.run, b.run), (tally(480, 0, 0), tally(480, 0, 0)));
    assert_eq!(a.worker.changed + b.worker.changed, 480);
    assert!(a.worker.changed > 50 && b.worker.changed > 50);
    assert_eq!(harness.kms().calls().rewrap, 480);
    assert_eq!(by(harness.store(), "memory/new"), 480);
}

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_loses_nothing_and_another_repeats_nothing() {
    let harness = under_the_old_kek(100).await;
    let crypto = moving(&harness).await;
    let mut run = crypto.key_manager().rewrap_all().range_size(10).start();
    for _ in 0..6 {
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
    let moved = by(harness.store(), "memory/new");
    assert!((30..90).contains(&moved), "{moved}");
    harness.kms().reset_calls();

    let heir = moving(&harness).await;
    let report = harness
        .in_time(heir.key_manager().rewrap_all().range_size(10).run())
        .await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(by(harness.store(), "memory/new"), 120);
    assert_eq!(
        usize::try_from(harness.kms().calls().rewrap).unwrap(),
        120 - moved
    );
    assert_eq!(report.run.changed + report.run.unchanged, 120);
}

#[tokio::test]
async fn keys_whose_kek_refuses_are_named_and_hold_up_no_other() {
    let harness = under_the_old_kek(10).await;
    harness.kms().create_kek("memory/lost");
    let other = process(&harness, |builder| builder.kek("memory/lost")).await;
    let lost = other.key_manager().create(&tenant(500)).await.unwrap();
    harness.kms().set_kek_fault("memory/lost", Some(REFUSED));
    let crypto = process(&harness, |builder| {
        builder
            .kek("memory/new")
            .also_unwrap("memory/old")
            .also_unwrap("memory/lost")
    })
    .await;
    let report = harness.in_time(crypto.key_manager().rewrap_all().run()).await;
    assert!(matches!(report.ended_by, JobEnd::Finished) && !report.is_complete());
    assert_eq!(report.run, tally(12, 0, 1));
    let failure = &report.failures[0];
    assert_eq!(failure.what, format!("data key {}", lost.id));
    assert!(!failure.error.is_retryable());

    // A refusal is cached briefly.
    harness.clock().advance(Duration::from_secs(10)).await;
    // A KEK that is unavailable for a while is tried a few times, and does not delay others either.
    harness
        .kms()
        .set_kek_fault("memory/lost", Some(KmsErrorKind::Unavailable));
    let report = harness.in_time(crypto.key_manager().rewrap_all().run()).await;
    assert_eq!(report.run, tally(0, 12, 1));
    assert!(report.failures[0].error.is_retryable());

    harness.kms().set_kek_fault("memory/lost", None);
    harness.clock().advance(Duration::from_secs(60)).await;
    let report = harness.in_time(crypto.key_manager().rewrap_all().run()).await;
    assert_eq!(report.run, tally(1, 12, 0));
}

#[tokio::test]
async fn a_kek_that_the_rule_does_not_allow_moves_nothing() {
    let harness = under_the_old_kek(3).await;
    let crypto = process(&harness, |builder| builder.kek("memory/new")).await;
    let report = crypto.key_manager().rewrap_all().run().await;
    assert_eq!(report.run, tally(0, 0, 4));
    assert!(matches!(
        report.failures[0].error,
        JobError::Encx(Error::KekNotAllowed { .. })
    ));
    assert_eq!(harness.kms().calls().rewrap, 0);
    // A dry run reports the same.
    let report = crypto.key_manager().rewrap_all().dry_run().run().await;
    assert_eq!(report.run, tally(0, 0, 4));
}

#[tokio::test]
async fn a_tool_moves_keys_to_a_kek_that_services_only_unwrap_with_and_to_no_other() {
    let harness = under_the_old_kek(3).await;
    let service = process(&harness, |builder| {
        builder.kek("memory/old").also_unwrap("memory/new")
    })
    .await;
    let sealed = service.encrypt(&tenant(1), "text", SSN.row(1)).await.unwrap();
    let tool = |kek: &'static str| {
        process(&harness, move |builder| {
            builder.kek("memory/old").also_unwrap("memory/new").wrap_with(kek)
        })
    };
    let moved = tool("memory/new").await.key_manager().rewrap_all().run().await;
    assert!(moved.is_complete(), "{moved}");
    assert_eq!(
        (
            by(harness.store(), "memory/old"),
            by(harness.store(), "memory/new")
        ),
        (0, 4)
    );
    let again = process(&harness, |builder| {
        builder.kek("memory/old").also_unwrap("memory/new")
    })
    .await;
    let read = again.decrypt(&tenant(1), &sealed, SSN.row(1)).await.unwrap();
    assert_eq!(read.as_bytes(), b"text");

    harness.kms().create_kek("memory/other");
    let refused = tool("memory/other").await.key_manager().rewrap_all().run().await;
    assert_eq!(refused.run, tally(0, 0, 4));
    assert!(matches!(
        &refused.failures[0].error,
        JobError::Encx(Error::KekNotInRule { kek, .. }) if kek.as_str() == "memory/other"
    ));
}

#[tokio::test]
async fn a_row_that_was_edited_is_refused_and_holds_up_no_other() {
    let harness = under_the_old_kek(4).await;
    harness.store().tamper(|rows| {
        rows[1].context.insert("tenantId".to_owned(), "other".to_owned());
    });
    let report = moving(&harness).await.key_manager().rewrap_all().run().await;
    assert_eq!(report.run, tally(4, 0, 1));
}

#[tokio::test]
async fn a_dry_run_counts_and_asks_only_what_aliases_stand_for() {
    let harness = under_the_old_kek(10).await;
    let crypto = moving(&harness).await;
    let before = harness.store().records();
    let report = crypto.key_manager().rewrap_all().dry_run().run().await;
    assert_eq!(report.run, tally(12, 0, 0));
    let calls = harness.kms().calls();
    assert_eq!(calls.total(), calls.describe);
    assert_eq!(harness.store().records(), before);
}

#[tokio::test]
async fn only_keys_of_a_kek_or_a_usage_move_if_so_asked() {
    let harness = under_the_old_kek(5).await;
    let other = process(&harness, |builder| builder).await;
    other.key_manager().create(&tenant(500)).await.unwrap();
    other
        .key_manager()
        .for_usage(KeyUsage::Index)
        .create(&tenant(501))
        .await
        .unwrap();
    harness.kms().set_alias("alias/default", MemoryKms::DEFAULT_KEK);
    let crypto = process(&harness, |builder| {
        let builder = builder.kek("memory/new").also_unwrap("memory/old");
        builder.also_unwrap(MemoryKms::DEFAULT_KEK)
    })
    .await;
    let indexes = crypto
        .key_manager()
        .rewrap_all()
        .usage(KeyUsage::Index)
        .run()
        .await;
    assert_eq!(indexes.run, tally(1, 0, 0));
    let from = KekRef::try_from("alias/default").unwrap();
    let moved = crypto.key_manager().rewrap_all().from(from).run().await;
    assert_eq!(moved.run, tally(1, 0, 0));
    assert_eq!(
        (
            by(harness.store(), "memory/old"),
            by(harness.store(), "memory/new")
        ),
        (6, 2)
    );
}

#[tokio::test]
async fn two_that_move_different_keys_at_once_do_not_replace_each_other() {
    let harness = under_the_old_kek(20).await;
    let crypto = moving(&harness).await;
    let job = || crypto.key_manager().rewrap_all().range_size(2);
    let jobs = async {
        tokio::join!(
            job().run(),
            job().usage(KeyUsage::Index).run(),
            job().from(KekRef::try_from("memory/old").unwrap()).run(),
            job().job_name("mine").usage(KeyUsage::Pepper).run(),
        )
    };
    let (all, index, old, named) = harness.in_time(jobs).await;
    for report in [all, index, old, named] {
        assert!(report.is_complete(), "{report}");
    }
    let named = harness.store().jobs().unwrap().job("mine").await.unwrap();
    assert!(named.unwrap().finished, "a name of the caller's own is kept");
}

#[tokio::test]
async fn an_alias_that_was_moved_a_moment_ago_moves_the_keys() {
    let harness = under_the_old_kek(5).await;
    harness.kms().set_alias("alias/app", "memory/old");
    let crypto = process(&harness, |builder| {
        builder.kek("alias/app").also_unwrap("memory/old")
    })
    .await;
    assert_eq!(crypto.key_manager().rewrap_all().run().await.run, tally(0, 6, 0));
    harness.kms().set_alias("alias/app", "memory/new");
    assert_eq!(crypto.key_manager().rewrap_all().run().await.run, tally(6, 0, 0));
}

#[tokio::test]
async fn a_key_that_changes_while_it_is_moved_keeps_the_change_and_moves_all_the_same() {
    let harness = under_the_old_kek(3).await;
    let crypto = moving(&harness).await;
    let other = process(&harness, |builder| builder.kek("memory/old")).await;
    crypto.key_manager().rewrap(&tenant(1)).await.unwrap();
    harness.kms().reset_calls();
    harness.kms().hold();
    let run = tokio::spawn(crypto.key_manager().rewrap_all().run());
    // It has resolved its KEK; the keys come next.
    harness.kms().until_in_flight(1).await;
    let suspended = other.key_manager().list(&tenant(0)).await.unwrap().remove(0);
    other
        .key_manager()
        .set_state(&tenant(0), suspended.id, KeyState::Suspended)
        .await
        .unwrap();
    let old = other.key_manager().list(&tenant(2)).await.unwrap().remove(0);
    let compromised = KeyState::Compromised;
    other
        .key_manager()
        .set_state(&tenant(2), old.id, compromised)
        .await
        .unwrap();
    other
        .key_manager()
        .destroy_with_data(&tenant(2), old.id, "a test")
        .await
        .unwrap();
    harness.kms().release();
    let report = run.await.unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run, tally(2, 2, 0));
    assert_eq!(report.overtaken, 1);
    let now = other.key_manager().list(&tenant(0)).await.unwrap().remove(0);
    assert_eq!(now.state, KeyState::Suspended);
    assert_eq!(
        (
            by(harness.store(), "memory/old"),
            by(harness.store(), "memory/new")
        ),
        (0, 3)
    );
}

#[tokio::test]
async fn the_managers_reason_goes_to_the_audit_log() {
    let harness = under_the_old_kek(3).await;
    let manager = moving(&harness).await.key_manager();
    // The memory store keeps none, but refuses an invalid one.
    let unfit = manager.clone().because("two\nlines");
    assert_eq!(unfit.rewrap_all().run().await.run, tally(0, 0, 4));
    assert!(unfit.rewrap(&tenant(1)).await.is_err());
    assert!(manager.because("ticket 7").rewrap_all().run().await.is_complete());
}
