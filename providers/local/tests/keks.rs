//! KEKs, their ids, aliases, materials and states, across processes.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use encx::kms::{GeneratedDataKey, KekId, KekState, KeyManagementService, KmsErrorKind};
use encx::{Crypto, CryptoBuilder, EncryptionContext, Error, Field};
use encx_local::{LocalKms, LocalKmsError};
use encx_testkit::{MemoryKeyStore, block_on};
use tempfile::TempDir;

mod common;
use common::{context, insecure};

const SSN: Field = Field::new("users", "ssn");

fn name(name: &str) -> KekId {
    KekId::new(name).unwrap()
}

/// Two handles on one file that share nothing in memory, like two processes.
async fn two_handles() -> (TempDir, LocalKms, LocalKms) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks");
    let first = LocalKms::create(&path, insecure()).await.unwrap();
    let second = LocalKms::open(&path, insecure()).await.unwrap();
    (folder, first, second)
}

async fn generate(kms: &LocalKms, kek: &KekId) -> Result<GeneratedDataKey, KmsErrorKind> {
    kms.generate_data_key(kek, &context())
        .await
        .map_err(|error| error.kind())
}

#[test]
fn several_keks_have_lasting_ids_and_aliases() {
    block_on(async {
        let (_folder, kms, other) = two_handles().await;
        let default = kms.default_kek().unwrap().clone();
        let logs = kms.create_kek().await.unwrap();
        assert!(logs.as_str().starts_with("local/") && logs != default);
        kms.create_alias("alias/logs", &logs).await.unwrap();
        kms.create_alias("alias/logs", &logs).await.unwrap();
        kms.create_alias("alias/app", &logs).await.unwrap();
        let listed = other.list_keks().await.unwrap();
        assert_eq!(listed, kms.list_keks().await.unwrap());
        assert_eq!(
            listed.iter().map(|kek| &kek.kek).collect::<Vec<_>>(),
            [&default, &logs]
        );
        assert_eq!(listed[1].aliases, [name("alias/app"), name("alias/logs")]);
        assert_eq!((listed[0].is_default, listed[1].is_default), (true, false));
        let made = generate(&other, &name("alias/logs")).await.unwrap();
        assert_eq!(made.wrapped.kek, logs);
        assert_eq!(made.wrapped.kek_material.as_ref(), listed[1].materials.last());
    });
}

#[test]
fn an_alias_is_taken_until_it_is_moved() {
    block_on(async {
        let (_folder, kms, _) = two_handles().await;
        let (default, logs) = (kms.default_kek().unwrap(), kms.create_kek().await.unwrap());
        kms.create_alias("alias/app", default).await.unwrap();
        let taken = kms.create_alias("alias/app", &logs).await.unwrap_err();
        assert!(matches!(taken, LocalKmsError::AliasExists { kek, .. } if kek == *default));
        kms.move_alias("alias/app", &logs).await.unwrap();
        assert_eq!(kms.describe_kek(&name("alias/app")).await.unwrap().kek, logs);
        let unknown = kms
            .create_alias("alias/x", &name("local/none"))
            .await
            .unwrap_err();
        assert!(matches!(unknown, LocalKmsError::UnknownKek { .. }));
        let long = format!("alias/{}", "x".repeat(251));
        for wrong in ["app", "alias/", "local/app", &long] {
            let error = kms.create_alias(wrong, default).await.unwrap_err();
            assert!(matches!(error, LocalKmsError::AliasForm { .. }), "{wrong}");
        }
        assert!(matches!(
            kms.create_alias("", default).await,
            Err(LocalKmsError::Name(_))
        ));
    });
}

#[test]
fn rotated_out_material_still_unwraps_and_wraps_no_more() {
    block_on(async {
        let (_folder, kms, other) = two_handles().await;
        let (kek, context) = (kms.default_kek().unwrap(), context());
        let before = other.generate_data_key(kek, &context).await.unwrap();
        let material = kms.rotate_kek(kek).await.unwrap();
        let after = kms.wrap_key(kek, &before.key, &context).await.unwrap();
        assert_eq!(after.kek_material.as_ref(), Some(&material));
        assert_ne!(before.wrapped.kek_material, after.kek_material);
        // The other handle sees the new material at its next call.
        for wrapped in [&before.wrapped, &after] {
            let key = other.unwrap_key(wrapped, &context).await.unwrap();
            assert_eq!(key.expose(), before.key.expose());
        }
        let moved = other.rewrap_key(&before.wrapped, &context, kek).await.unwrap();
        assert_eq!(moved.kek_material, Some(material.clone()));
        let described = other.describe_kek(kek).await.unwrap();
        assert_eq!(described.current_material, Some(material));
        // The file stores no times.
        let moments = [
            described.last_rotation,
            described.next_rotation,
            described.deletion,
        ];
        assert_eq!(moments, [None; 3]);
        assert_eq!(other.list_keks().await.unwrap()[0].materials.len(), 2);
    });
}

/// The material's id in a wrap is authenticated, even if both materials are known.
#[test]
fn a_wrap_that_names_another_material_of_its_kek_fails() {
    block_on(async {
        let (_folder, kms, _) = two_handles().await;
        let (kek, context) = (kms.default_kek().unwrap(), context());
        let mut old = kms.generate_data_key(kek, &context).await.unwrap().wrapped;
        kms.rotate_kek(kek).await.unwrap();
        let new = kms.generate_data_key(kek, &context).await.unwrap().wrapped;
        old.ciphertext[1..17].copy_from_slice(&new.ciphertext[1..17]);
        let error = kms.unwrap_key(&old, &context).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Integrity);
    });
}

#[test]
fn a_wrap_that_names_an_alias_finds_no_kek() {
    block_on(async {
        let (_folder, kms, _) = two_handles().await;
        let (kek, context) = (kms.default_kek().unwrap(), context());
        kms.create_alias("alias/app", kek).await.unwrap();
        let mut wrapped = kms.generate_data_key(kek, &context).await.unwrap().wrapped;
        wrapped.kek = name("alias/app");
        let error = kms.unwrap_key(&wrapped, &context).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::NotFound);
    });
}

#[test]
fn a_kek_is_disabled_and_enabled_for_every_handle() {
    block_on(async {
        let (_folder, kms, other) = two_handles().await;
        let (kek, context) = (kms.default_kek().unwrap(), context());
        let made = other.generate_data_key(kek, &context).await.unwrap();
        kms.disable_kek(kek).await.unwrap();
        assert_eq!(generate(&other, kek).await.unwrap_err(), KmsErrorKind::KeyState);
        let unwrapped = other.unwrap_key(&made.wrapped, &context).await.unwrap_err();
        assert_eq!(unwrapped.kind(), KmsErrorKind::KeyState);
        assert_eq!(other.list_keks().await.unwrap()[0].state, KekState::Disabled);
        other.enable_kek(kek).await.unwrap();
        generate(&kms, kek).await.unwrap();
        for result in [
            kms.disable_kek(&name("local/none")).await,
            kms.rotate_kek(&name("alias/none")).await.map(drop),
            kms.set_default_kek(&name("local/none")).await,
        ] {
            assert!(matches!(result, Err(LocalKmsError::UnknownKek { .. })));
        }
    });
}

#[test]
fn the_default_kek_is_the_first_until_another_is_chosen() {
    block_on(async {
        let (_folder, kms, other) = two_handles().await;
        let logs = kms.create_kek().await.unwrap();
        kms.set_default_kek(&logs).await.unwrap();
        assert_ne!(
            kms.default_kek(),
            Some(&logs),
            "the default changed under a running service"
        );
        assert_eq!(other.default_kek(), kms.default_kek());
        let reopened = LocalKms::open(kms.path(), insecure()).await.unwrap();
        assert_eq!(reopened.default_kek(), Some(&logs));
    });
}

#[test]
fn concurrent_changes_through_two_handles_are_all_kept() {
    block_on(async {
        let (_folder, kms, other) = two_handles().await;
        let create = |n: usize| {
            let kms = if n.is_multiple_of(2) {
                kms.clone()
            } else {
                other.clone()
            };
            tokio::spawn(async move { kms.create_kek().await.unwrap() })
        };
        let tasks: Vec<_> = (0..16).map(create).collect();
        let mut created = vec![kms.default_kek().unwrap().clone()];
        for task in tasks {
            created.push(task.await.unwrap());
        }
        let mut listed: Vec<_> = kms
            .list_keks()
            .await
            .unwrap()
            .into_iter()
            .map(|kek| kek.kek)
            .collect();
        listed.sort();
        created.sort();
        assert_eq!(listed, created);
    });
}

#[test]
fn a_cancelled_change_happens_wholly_or_not_at_all() {
    block_on(async {
        let (_folder, kms, other) = two_handles().await;
        for _ in 0..8 {
            let change = kms.clone();
            let task = tokio::spawn(async move { change.create_kek().await });
            tokio::task::yield_now().await;
            task.abort();
            let _ = task.await;
        }
        kms.create_alias("alias/app", kms.default_kek().unwrap())
            .await
            .unwrap();
        let listed = other.list_keks().await.unwrap();
        assert!((1..=9).contains(&listed.len()));
        for kek in listed {
            generate(&other, &kek.kek).await.unwrap();
        }
    });
}

/// A service that opens a KEK file other than the one that wrapped its keys.
#[test]
fn another_file_than_that_of_the_keys_is_named_as_the_likely_cause() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = async |name: &str| {
            LocalKms::create(folder.path().join(name), insecure())
                .await
                .unwrap()
        };
        let (right, wrong) = (file("right").await, file("wrong").await);
        let kek = right.default_kek().unwrap().clone();
        let tenant = EncryptionContext::builder()
            .pair("tenantId", "a")
            .build()
            .unwrap();
        let store = MemoryKeyStore::new();
        let crypto = Crypto::builder(right, store.clone()).build().await.unwrap();
        let sealed = crypto.encrypt(&tenant, "x", SSN.row(1)).await.unwrap();
        crypto.shutdown().await;
        // A test of encx checks that `build` detects it too.
        let fails = async |builder: CryptoBuilder| match builder.connect_lazily().build().await {
            Err(error) => error,
            Ok(crypto) => crypto.decrypt(&tenant, &sealed, SSN.row(1)).await.unwrap_err(),
        };
        let error = fails(Crypto::builder(wrong.clone(), store.clone())).await;
        assert!(matches!(error, Error::KekNotAllowed { .. }), "{error:?}");
        let text = error.to_string();
        for part in [
            kek.as_str(),
            "another KEK file",
            "put the right one back",
            "`also_unwrap`",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        // If the KEK rule allows that KEK, the error is that the file does not have it.
        let error = fails(Crypto::builder(wrong, store).also_unwrap(kek.as_str())).await;
        let Error::Kms(error) = error else {
            panic!("{error:?}");
        };
        assert_eq!(error.kind(), KmsErrorKind::NotFound);
        let text = error.to_string();
        for part in [
            kek.as_str(),
            "not the file that keys were wrapped under",
            "open that one",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        assert!(!text.contains("create"), "a new KEK would open nothing: {text}");
    });
}

#[test]
fn an_alias_that_the_file_does_not_have_is_to_be_created() {
    block_on(async {
        let (_folder, kms, _) = two_handles().await;
        let error = kms
            .generate_data_key(&name("alias/app"), &context())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::NotFound);
        assert!(error.to_string().contains("create_alias"), "{error}");
    });
}
