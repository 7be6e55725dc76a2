//! The life of keys under a key manager, on an in-memory KMS and key store.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::time::Duration;

use encx::keys::{DataKeyId, KeyManager, KeyState, KeyUsage, KeyVersion};
use encx::kms::KmsErrorKind;
use encx::store::StoreError;
use encx::{Crypto, EncryptionContext, Error};
use encx_test_support::{SSN, context};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

async fn process(kms: &MemoryKms, store: &MemoryKeyStore) -> Crypto {
    Crypto::builder(kms.clone(), store.clone()).build().await.unwrap()
}

/// A KMS and a key store in memory, and one process on them.
async fn set_up() -> (MemoryKms, MemoryKeyStore, Crypto) {
    let (kms, store) = (MemoryKms::new(), MemoryKeyStore::new());
    let crypto = process(&kms, &store).await;
    kms.reset_calls();
    (kms, store, crypto)
}

fn states(versions: &[encx::store::KeyRecord]) -> Vec<(u32, KeyState)> {
    versions
        .iter()
        .map(|version| (version.version.get(), version.state))
        .collect()
}

#[tokio::test]
async fn creating_makes_the_first_version_once() {
    let (kms, _, crypto) = set_up().await;
    let manager = crypto.key_manager();
    assert!(matches!(manager.rotate(&context("a")).await, Err(Error::NoKeys)));
    assert!(matches!(manager.revive(&context("a")).await, Err(Error::NoKeys)));
    let made = manager.create(&context("a")).await.unwrap();
    assert_eq!((made.version, made.state), (KeyVersion::FIRST, KeyState::Active));
    assert!(matches!(
        manager.create(&context("a")).await,
        Err(Error::AlreadyExists)
    ));
    assert!(matches!(
        manager.revive(&context("a")).await,
        Err(Error::AlreadyExists)
    ));
    assert_eq!(kms.calls().total(), 1);
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    assert_eq!(sealed.key_id(), made.id);
}

#[tokio::test]
async fn after_a_rotation_old_and_new_rows_both_read() {
    let (kms, store, crypto) = set_up().await;
    let manager = crypto.key_manager();
    let mut rows = Vec::new();
    for round in 0..4_i64 {
        if round > 0 {
            manager.rotate(&context("a")).await.unwrap();
        }
        rows.push(
            crypto
                .encrypt(&context("a"), format!("round {round}"), SSN.row(round))
                .await
                .unwrap(),
        );
    }
    let ids: Vec<DataKeyId> = rows.iter().map(encx::Ciphertext::key_id).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
    use KeyState::{Active, Deactivated};
    assert_eq!(
        states(&manager.list(&context("a")).await.unwrap()),
        [(1, Deactivated), (2, Deactivated), (3, Deactivated), (4, Active)]
    );
    let reader = process(&kms, &store).await;
    for (round, row) in rows.iter().enumerate() {
        let place = SSN.row(i64::try_from(round).unwrap());
        let text = reader
            .decrypt(&context("a"), row, place)
            .await
            .unwrap()
            .into_string()
            .unwrap();
        assert_eq!(text, format!("round {round}"));
    }
    assert_eq!(
        (kms.calls().generate, kms.calls().unwrap),
        (4, 4),
        "a process that rotates has the new key already"
    );
}

#[tokio::test]
async fn sixteen_processes_that_rotate_at_once_agree_on_one_version() {
    let (kms, store, crypto) = set_up().await;
    crypto.key_manager().create(&context("a")).await.unwrap();
    let mut rotations = tokio::task::JoinSet::new();
    // All have seen version 1, and all have called the KMS, before any of them writes.
    kms.hold();
    for _ in 0..16 {
        let manager = KeyManager::new(kms.clone(), store.clone()).unwrap();
        rotations.spawn(async move { manager.rotate(&context("a")).await.unwrap().id });
    }
    kms.until_in_flight(16).await;
    kms.release();
    let mut ids = rotations.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let versions = crypto.key_manager().list(&context("a")).await.unwrap();
    assert_eq!(
        states(&versions),
        [(1, KeyState::Deactivated), (2, KeyState::Active)]
    );
}

#[tokio::test]
async fn a_rotation_that_died_halfway_is_finished_by_the_next() {
    let (kms, store, crypto) = set_up().await;
    crypto.key_manager().create(&context("a")).await.unwrap();
    // Interrupted between its two writes: the version was inserted and not promoted.
    let prepared = crypto.key_manager().rotate(&context("a")).await.unwrap();
    store.tamper(|rows| {
        for row in rows {
            let first = row.version == KeyVersion::FIRST;
            row.state = if first {
                KeyState::Active
            } else {
                KeyState::PreActive
            };
            row.activated_at = row.activated_at.filter(|_| first);
        }
    });
    let finished = process(&kms, &store)
        .await
        .key_manager()
        .rotate(&context("a"))
        .await
        .unwrap();
    assert_eq!((finished.id, finished.state), (prepared.id, KeyState::Active));
    assert_eq!(kms.calls().generate, 2, "no third key was made");
}

#[tokio::test]
async fn a_failing_kms_leaves_a_rotation_undone() {
    let (kms, store, crypto) = set_up().await;
    let manager = crypto.key_manager();
    manager.create(&context("a")).await.unwrap();
    let before = store.records();
    kms.fail_next(1, KmsErrorKind::Throttled);
    assert!(manager.rotate(&context("a")).await.unwrap_err().is_retryable());
    assert_eq!(store.records(), before);
    assert!(manager.rotate(&context("a")).await.is_ok());
}

#[tokio::test]
async fn suspending_stops_every_use_and_resuming_brings_it_back() {
    let (_, _, crypto) = set_up().await;
    let manager = crypto.key_manager().because("ticket 42");
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let id = sealed.key_id();
    let suspended = manager
        .set_state(&context("a"), id, KeyState::Suspended)
        .await
        .unwrap();
    assert_eq!(suspended.suspended_from, Some(KeyState::Active));
    assert!(matches!(
        crypto.encrypt(&context("a"), "x", SSN.row(1)).await,
        Err(Error::NoActiveKey)
    ));
    assert!(matches!(
        crypto.decrypt(&context("a"), &sealed, SSN.row(1)).await,
        Err(Error::Suspended { .. })
    ));
    let refused = manager
        .set_state(&context("a"), id, KeyState::Deactivated)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Store(StoreError::IllegalTransition { .. })),
        "{refused}"
    );
    manager
        .set_state(&context("a"), id, KeyState::Active)
        .await
        .unwrap();
    assert!(crypto.encrypt(&context("a"), "x", SSN.row(1)).await.is_ok());
    assert!(crypto.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok());

    // Suspended again, and a new version replaces it: it comes back for decryption only.
    manager
        .set_state(&context("a"), id, KeyState::Suspended)
        .await
        .unwrap();
    manager.rotate(&context("a")).await.unwrap();
    let refused = manager
        .set_state(&context("a"), id, KeyState::Active)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Store(StoreError::IllegalTransition { .. })),
        "{refused}"
    );
    manager
        .set_state(&context("a"), id, KeyState::Deactivated)
        .await
        .unwrap();
    assert!(crypto.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_compromised_key_reads_only_for_who_asks_for_it() {
    let (kms, store, crypto) = set_up().await;
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let manager = crypto.key_manager();
    manager.rotate(&context("a")).await.unwrap();
    manager
        .set_state(&context("a"), sealed.key_id(), KeyState::Compromised)
        .await
        .unwrap();
    assert!(matches!(
        crypto.decrypt(&context("a"), &sealed, SSN.row(1)).await,
        Err(Error::Compromised { .. })
    ));
    assert!(crypto.encrypt(&context("a"), "x", SSN.row(1)).await.is_ok());
    let rescue = Crypto::builder(kms, store)
        .accept_compromised()
        .build()
        .await
        .unwrap();
    assert!(rescue.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok());
    assert!(rescue.needs_reencryption(&context("a"), &sealed).await.unwrap());
}

#[tokio::test]
async fn destroying_every_version_shreds_and_only_revive_allows_new_keys() {
    let (kms, store, crypto) = set_up().await;
    let manager = crypto.key_manager();
    let first = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let active = manager
        .destroy_with_data(&context("a"), first.key_id(), "a test")
        .await
        .unwrap_err();
    assert!(matches!(
        active,
        Error::Store(StoreError::IllegalTransition {
            from: KeyState::Active,
            ..
        })
    ));
    let by_state = manager
        .set_state(&context("a"), first.key_id(), KeyState::Destroyed)
        .await
        .unwrap_err();
    assert!(matches!(by_state, Error::Config { what } if what.contains("`destroy`")));

    manager.rotate(&context("a")).await.unwrap();
    let second = crypto.encrypt(&context("a"), "y", SSN.row(2)).await.unwrap();
    let destroyed = manager
        .destroy_with_data(&context("a"), first.key_id(), "a test")
        .await
        .unwrap();
    assert_eq!((destroyed.state, destroyed.wraps.len()), (KeyState::Destroyed, 0));
    assert!(matches!(
        crypto.decrypt(&context("a"), &first, SSN.row(1)).await,
        Err(Error::Destroyed { .. })
    ));
    assert!(crypto.decrypt(&context("a"), &second, SSN.row(2)).await.is_ok());

    manager
        .set_state(&context("a"), second.key_id(), KeyState::Suspended)
        .await
        .unwrap();
    manager
        .destroy_with_data(&context("a"), second.key_id(), "a test")
        .await
        .unwrap();
    for crypto in [&crypto, &process(&kms, &store).await] {
        assert!(matches!(
            crypto.encrypt(&context("a"), "x", SSN.row(1)).await,
            Err(Error::Shredded)
        ));
        assert!(matches!(
            crypto.decrypt(&context("a"), &second, SSN.row(2)).await,
            Err(Error::Destroyed { .. } | Error::Shredded)
        ));
        assert!(
            matches!(crypto.keyring(&context("a")).await, Err(Error::Shredded)) || crypto.stats().keys == 0
        );
    }
    assert!(matches!(
        manager.rotate(&context("a")).await,
        Err(Error::Shredded)
    ));
    assert!(matches!(
        manager.create(&context("a")).await,
        Err(Error::Shredded)
    ));

    let revived = manager.revive(&context("a")).await.unwrap();
    assert_eq!((revived.version.get(), revived.state), (3, KeyState::Active));
    let third = crypto.encrypt(&context("a"), "z", SSN.row(3)).await.unwrap();
    assert!(crypto.decrypt(&context("a"), &third, SSN.row(3)).await.is_ok());
    assert!(crypto.decrypt(&context("a"), &second, SSN.row(2)).await.is_err());
}

#[tokio::test]
async fn an_unknown_or_foreign_version_is_refused() {
    let (_, _, crypto) = set_up().await;
    let other = EncryptionContext::builder()
        .pair("tenantId", "b")
        .build()
        .unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    crypto.encrypt(&other, "x", SSN.row(1)).await.unwrap();
    let manager = crypto.key_manager();
    let id = sealed.key_id();
    assert!(matches!(
        manager.set_state(&other, id, KeyState::Suspended).await,
        Err(Error::UnknownKey { .. })
    ));
    assert!(matches!(
        manager.destroy(&other, id).await,
        Err(Error::UnknownKey { .. })
    ));
    let index = manager.for_usage(KeyUsage::Index);
    assert_eq!(index.list(&context("a")).await.unwrap(), []);
    let made = index.create(&context("a")).await.unwrap();
    assert_eq!((made.usage, made.version), (KeyUsage::Index, KeyVersion::FIRST));
    let refused = crypto
        .key_manager()
        .set_state(&context("a"), made.id, KeyState::Suspended)
        .await;
    assert!(
        matches!(refused, Err(Error::UnknownKey { .. })),
        "a usage is a scope of its own"
    );
}

#[tokio::test]
async fn rewrapping_moves_every_version_and_changes_no_ciphertext() {
    let kms = MemoryKms::new().with_kek("memory/new");
    let (elsewhere, store) = (MemoryKms::new().with_kek("memory/far"), MemoryKeyStore::new());
    let crypto = process(&kms, &store).await;
    let first = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    crypto.key_manager().rotate(&context("a")).await.unwrap();
    let second = crypto.encrypt(&context("a"), "y", SSN.row(2)).await.unwrap();

    let before = kms.calls().unwrap;
    let moving = Crypto::builder(kms.clone(), store.clone())
        .kek("memory/new")
        .also_unwrap(MemoryKms::DEFAULT_KEK)
        .build()
        .await
        .unwrap();
    let moved = moving.key_manager().rewrap(&context("a")).await.unwrap();
    assert_eq!(moved.len(), 2);
    assert_eq!(
        (kms.calls().rewrap, kms.calls().unwrap),
        (2, before),
        "within one KMS no key passes through here"
    );
    assert!(
        moving
            .key_manager()
            .rewrap(&context("a"))
            .await
            .unwrap()
            .is_empty(),
        "there already"
    );

    let across = Crypto::builder(kms.clone(), store.clone())
        .kms_named("far", elsewhere.clone())
        .kek(("far", "memory/far"))
        .also_unwrap("memory/new")
        .build()
        .await
        .unwrap();
    assert_eq!(across.key_manager().rewrap(&context("a")).await.unwrap().len(), 2);
    assert!(
        store.records().iter().all(|record| {
            record.wraps.len() == 1 && record.wraps[0].wrapped.kek.as_str() == "memory/far"
        })
    );
    kms.set_unavailable(true);
    let reader = Crypto::builder(MemoryKms::new(), store)
        .kms_named("far", elsewhere)
        .kek(("far", "memory/far"))
        .build()
        .await
        .unwrap();
    assert_eq!(
        reader
            .decrypt(&context("a"), &first, SSN.row(1))
            .await
            .unwrap()
            .as_bytes(),
        b"x"
    );
    assert_eq!(
        reader
            .decrypt(&context("a"), &second, SSN.row(2))
            .await
            .unwrap()
            .as_bytes(),
        b"y"
    );
}

#[tokio::test]
async fn a_process_never_goes_back_to_an_earlier_version() {
    let (store, clock) = (MemoryKeyStore::new(), ManualClock::new());
    let crypto = Crypto::builder(MemoryKms::new(), store.clone())
        .clock(clock.clone())
        .build()
        .await
        .unwrap();
    crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let backup = store.records();
    crypto.key_manager().rotate(&context("a")).await.unwrap();
    let newer = crypto
        .encrypt(&context("a"), "x", SSN.row(1))
        .await
        .unwrap()
        .key_id();
    // The database is restored from a backup under the running process.
    store.tamper(|rows| *rows = backup.clone());
    let sealed_before = crypto.key_manager().list(&context("a")).await.unwrap();
    assert_eq!(sealed_before.len(), 1);
    crypto
        .key_manager()
        .set_state(&context("a"), backup[0].id, KeyState::Suspended)
        .await
        .unwrap();
    crypto
        .key_manager()
        .set_state(&context("a"), backup[0].id, KeyState::Active)
        .await
        .unwrap();
    let refused = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap_err();
    assert!(
        matches!(refused, Error::RolledBack { found, used } if found == Some(backup[0].id) && used == newer),
        "{refused}"
    );
    // Ids increase with the clock, so keys created after the restore have greater ids than those before it.
    clock.advance(Duration::from_millis(10));
    crypto.key_manager().rotate(&context("a")).await.unwrap();
    assert!(
        crypto.encrypt(&context("a"), "x", SSN.row(1)).await.is_ok(),
        "a new version is the way out"
    );
}

#[tokio::test]
async fn edited_rows_are_refused_in_jobs_too() {
    let (_, store, crypto) = set_up().await;
    let manager = crypto.key_manager();
    let made = manager.create(&context("a")).await.unwrap();
    assert_eq!(store.records()[0].verified_context().unwrap(), context("a"));
    store.tamper(|rows| {
        rows[0].context.insert("tenantId".into(), "b".into());
    });
    assert!(matches!(
        store.records()[0].verified_context(),
        Err(StoreError::Corrupt { .. })
    ));
    let corrupt = |error: Error| matches!(error, Error::Store(StoreError::Corrupt { .. }));
    assert!(corrupt(manager.list(&context("a")).await.unwrap_err()));
    assert!(corrupt(manager.rotate(&context("a")).await.unwrap_err()));
    assert!(corrupt(manager.rewrap(&context("a")).await.unwrap_err()));
    assert!(corrupt(
        manager.destroy(&context("a"), made.id).await.unwrap_err()
    ));
    assert!(corrupt(
        manager
            .set_state(&context("a"), made.id, KeyState::Suspended)
            .await
            .unwrap_err()
    ));
}
