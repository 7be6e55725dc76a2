//! Which KEKs may wrap and unwrap over time: aliases that move, several wraps, rewrapping.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::time::Duration;

use encx::keys::{DataKeyId, KeyState, KeyUsage, KeyVersion};
use encx::kms::{KekChoice, KekRef, KeyManagementService, KmsContext, KmsErrorKind};
use encx::{Crypto, CryptoBuilder, EncryptionContext, Error};
use encx_test_support::{MINUTE, SSN, context};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

/// A KMS with the KEKs `memory/a`, `memory/b` and `memory/c`, and the alias `alias/app` for the first.
fn kms() -> MemoryKms {
    let kms = MemoryKms::new()
        .with_kek("memory/a")
        .with_kek("memory/b")
        .with_kek("memory/c");
    kms.with_alias("alias/app", "memory/a")
}

fn builder(kms: &MemoryKms, store: &MemoryKeyStore) -> CryptoBuilder {
    Crypto::builder(kms.clone(), store.clone())
}

/// A record that two KEKs wrap, and a ciphertext under it.
async fn wrapped_by_a_and_b(kms: &MemoryKms, store: &MemoryKeyStore) -> encx::Ciphertext {
    let both = |_: &EncryptionContext| {
        let kek = |name| KekRef::try_from(name).unwrap();
        Some(KekChoice::new(kek("memory/a")).also_wrap(kek("memory/b")))
    };
    let crypto = builder(kms, store).kek_rule(both).build().await.unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    assert_eq!(keks(store), ["memory/a", "memory/b"]);
    sealed
}

fn keks(store: &MemoryKeyStore) -> Vec<String> {
    let records = store.records();
    records[0]
        .wraps
        .iter()
        .map(|wrap| wrap.wrapped.kek.to_string())
        .collect()
}

#[tokio::test]
async fn rewrapping_never_drops_the_last_wrap_that_opens() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let sealed = wrapped_by_a_and_b(&kms, &store).await;
    // The wrap that would stay is damaged; this is unnoticed so far, because the other one opens.
    store.tamper(|rows| rows[0].wraps[1].wrapped.ciphertext[30] ^= 1);
    let crypto = builder(&kms, &store)
        .kek("memory/b")
        .also_unwrap("memory/a")
        .build()
        .await
        .unwrap();
    assert_eq!(crypto.key_manager().rewrap(&context("a")).await.unwrap().len(), 1);
    assert_eq!(keks(&store), ["memory/b"]);
    let reader = builder(&kms, &store).kek("memory/b").build().await.unwrap();
    assert!(
        reader.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok(),
        "a good wrap took its place"
    );
}

#[tokio::test]
async fn rewrapping_moves_no_wrap_that_holds_another_key() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let sealed = wrapped_by_a_and_b(&kms, &store).await;
    // An attacker with rights on the first KEK planted their own key beside the good one.
    let pairs = KmsContext::new(&context("a"), KeyUsage::Data, sealed.key_id());
    let planted = kms
        .generate_data_key(&"memory/a".parse().unwrap(), &pairs)
        .await
        .unwrap()
        .wrapped;
    store.tamper(|rows| rows[0].wraps[0].wrapped = planted);
    let moving = builder(&kms, &store)
        .kek("memory/c")
        .also_unwrap("memory/a")
        .also_unwrap("memory/b");
    let moving = moving.build().await.unwrap();
    assert_eq!(moving.key_manager().rewrap(&context("a")).await.unwrap().len(), 1);
    assert_eq!(keks(&store), ["memory/c"]);
    let reader = builder(&kms, &store).kek("memory/c").build().await.unwrap();
    assert!(reader.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn rewrapping_goes_on_with_another_source_when_one_is_disabled() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let sealed = wrapped_by_a_and_b(&kms, &store).await;
    kms.disable_kek("memory/a");
    let moving = builder(&kms, &store)
        .kek("memory/c")
        .also_unwrap("memory/a")
        .also_unwrap("memory/b");
    let moving = moving.build().await.unwrap();
    assert_eq!(moving.key_manager().rewrap(&context("a")).await.unwrap().len(), 1);
    let reader = builder(&kms, &store).kek("memory/c").build().await.unwrap();
    assert!(reader.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_rewrap_that_cannot_tell_leaves_every_wrap_where_it_is() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    wrapped_by_a_and_b(&kms, &store).await;
    let before = store.records();
    let crypto = builder(&kms, &store)
        .kek("memory/b")
        .also_unwrap("memory/a")
        .build()
        .await
        .unwrap();
    kms.set_kek_fault("memory/b", Some(KmsErrorKind::Throttled));
    assert!(
        crypto
            .key_manager()
            .rewrap(&context("a"))
            .await
            .unwrap_err()
            .is_retryable()
    );
    assert_eq!(store.records(), before);
}

#[tokio::test]
async fn rewrapping_follows_an_alias_that_was_moved_a_moment_ago() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let crypto = builder(&kms, &store)
        .kek("alias/app")
        .also_unwrap("memory/a")
        .build()
        .await
        .unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    kms.set_alias("alias/app", "memory/b");
    assert_eq!(crypto.key_manager().rewrap(&context("a")).await.unwrap().len(), 1);
    assert_eq!(keks(&store), ["memory/b"]);
    kms.delete_kek("memory/a");
    let reader = builder(&kms, &store).kek("alias/app").build().await.unwrap();
    assert!(reader.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_running_process_sees_within_a_minute_that_an_alias_moved() {
    let (kms, store, clock) = (kms(), MemoryKeyStore::new(), ManualClock::new());
    let running = builder(&kms, &store)
        .kek("alias/app")
        .clock(clock.clone())
        .ttl(10 * MINUTE);
    let running = running.build().await.unwrap();
    let sealed = running.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    kms.set_alias("alias/app", "memory/b");
    clock.advance(11 * MINUTE);
    // The alias's earlier target is no longer allowed, as in a process that starts now.
    let refused = running
        .decrypt(&context("a"), &sealed, SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::KekNotAllowed { .. }), "{refused}");
}

#[tokio::test]
async fn while_the_kms_cannot_tell_an_alias_keeps_its_meaning() {
    let (kms, store, clock) = (kms(), MemoryKeyStore::new(), ManualClock::new());
    let (near, far) = (kms.clone(), MemoryKms::new().with_kek("memory/far"));
    let build = || {
        let rule = |_: &EncryptionContext| {
            let kek = |kms, kek| KekRef::try_from((kms, kek)).unwrap();
            Some(KekChoice::new(kek("default", "alias/app")).also_wrap(kek("far", "memory/far")))
        };
        let builder = builder(&near, &store)
            .kms_named("far", far.clone())
            .kek_rule(rule);
        builder.clock(clock.clone()).ttl(10 * MINUTE).build()
    };
    let crypto = build().await.unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    clock.advance(11 * MINUTE);
    near.set_unavailable(true);
    assert!(
        crypto.decrypt(&context("a"), &sealed, SSN.row(1)).await.is_ok(),
        "the far one opens"
    );
    clock.advance(11 * MINUTE);
    far.set_unavailable(true);
    assert!(
        crypto
            .decrypt(&context("a"), &sealed, SSN.row(1))
            .await
            .unwrap_err()
            .is_retryable()
    );
}

#[tokio::test]
async fn an_alias_and_a_name_of_one_kek_make_one_wrap() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let rule = |_: &EncryptionContext| {
        let kek = |name| KekRef::try_from(name).unwrap();
        Some(KekChoice::new(kek("alias/app")).also_wrap(kek("memory/a")))
    };
    let crypto = builder(&kms, &store).kek_rule(rule).build().await.unwrap();
    crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    assert_eq!(keks(&store), ["memory/a"]);
    assert!(
        crypto
            .key_manager()
            .rewrap(&context("a"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_row_of_a_foreign_kek_cannot_hammer_the_kms() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let crypto = builder(&kms, &store).kek("memory/a").build().await.unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    for (rule, is_known) in [("memory/b", true), ("alias/unknown", false)] {
        let reader = builder(&kms, &store).kek(rule).connect_lazily();
        let reader = reader.build().await.unwrap();
        let calls = kms.calls().total();
        for _ in 0..100 {
            let refused = reader
                .decrypt(&context("a"), &sealed, SSN.row(1))
                .await
                .unwrap_err();
            let as_expected = match &refused {
                Error::KekNotAllowed { .. } => is_known,
                // The error is about the alias, not about the row.
                Error::Kms(error) => !is_known && error.kek().as_str() == rule,
                _ => false,
            };
            assert!(as_expected, "{refused}");
        }
        assert_eq!(
            kms.calls().total() - calls,
            1,
            "{rule}: asked what its own KEK is, once"
        );
    }
}

#[tokio::test]
async fn whose_own_alias_may_not_be_looked_up_learns_just_that() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let crypto = builder(&kms, &store).kek("alias/app").build().await.unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    kms.set_kek_fault("memory/a", Some(KmsErrorKind::AccessDenied));
    let reader = builder(&kms, &store).kek("alias/app").connect_lazily();
    let reader = reader.build().await.unwrap();
    let refused = reader
        .decrypt(&context("a"), &sealed, SSN.row(1))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Kms(error) if error.kind() == KmsErrorKind::AccessDenied),
        "{refused}"
    );
}

#[tokio::test]
async fn a_first_kms_that_hangs_leaves_time_for_the_next() {
    let (near, far) = (
        MemoryKms::new().with_kek("memory/near"),
        MemoryKms::new().with_kek("memory/far"),
    );
    let (store, clock) = (MemoryKeyStore::new(), ManualClock::new());
    let build = || {
        let rule = |_: &EncryptionContext| {
            let kek = |kms, kek| KekRef::try_from((kms, kek)).unwrap();
            Some(KekChoice::new(kek("near", "memory/near")).also_wrap(kek("far", "memory/far")))
        };
        let builder = builder(&kms(), &store)
            .kms_named("near", near.clone())
            .kms_named("far", far.clone());
        builder
            .kek_rule(rule)
            .clock(clock.clone())
            .load_timeout(Duration::from_secs(30))
            .build()
    };
    let sealed = build()
        .await
        .unwrap()
        .encrypt(&context("a"), "x", SSN.row(1))
        .await
        .unwrap();
    near.hold();
    let reader = build().await.unwrap();
    let reading = tokio::spawn(async move { reader.decrypt(&context("a"), &sealed, SSN.row(1)).await });
    near.until_in_flight(1).await;
    clock.advance(Duration::from_secs(10));
    assert!(reading.await.unwrap().is_ok());
}

#[tokio::test]
async fn rotation_does_not_promote_a_waiting_version_that_does_not_open() {
    let (kms, store) = (kms(), MemoryKeyStore::new());
    let crypto = builder(&kms, &store).kek("memory/a").build().await.unwrap();
    let manager = crypto.key_manager();
    manager.create(&context("a")).await.unwrap();
    let broken: DataKeyId = manager.rotate(&context("a")).await.unwrap().id;
    store.tamper(|rows| {
        for row in rows {
            let first = row.version == KeyVersion::FIRST;
            row.state = if first {
                KeyState::Active
            } else {
                KeyState::PreActive
            };
            row.activated_at = row.activated_at.filter(|_| first);
            if !first {
                row.wraps[0].wrapped.ciphertext[30] ^= 1;
            }
        }
    });
    let fresh = builder(&kms, &store).kek("memory/a").build().await.unwrap();
    let promoted = fresh.key_manager().rotate(&context("a")).await.unwrap();
    assert!(promoted.id > broken);
    assert!(fresh.encrypt(&context("a"), "x", SSN.row(1)).await.is_ok());
}
