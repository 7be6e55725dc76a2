//! The calls of `build` to the KMS and the key store, and its reaction to the answers.

use std::time::Duration;

use encx::kms::{KekChoice, KekRef, KmsErrorKind, KmsOperation};
use encx::store::StoreError;
use encx::{Clock, Crypto, CryptoBuilder, Error};
use encx_local::{LocalKms, Protection};
use encx_sqlx::SqliteKeyStore;
use encx_test_support::{FaultHarness, SECOND, SSN, context, seal};
use encx_testkit::{MemoryKeyStore, MemoryKms};

use super::drive;
use super::traces::{Log, traced};

/// A builder that connects, unlike that of the other tests.
fn builder(harness: &FaultHarness) -> CryptoBuilder {
    Crypto::builder(harness.kms.clone(), harness.rows.clone()).clock(harness.clock.clone())
}

fn kind(error: &Error) -> Option<KmsErrorKind> {
    match error {
        Error::Kms(error) => Some(error.kind()),
        _ => None,
    }
}

#[tokio::test]
async fn a_kms_that_refuses_fails_the_build() {
    for refusal in [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::Configuration,
        KmsErrorKind::KeyState,
        KmsErrorKind::NotFound,
    ] {
        let harness = FaultHarness::new();
        harness.kms.fail_until_cleared(refusal);
        let error = builder(&harness).build().await.unwrap_err();
        assert_eq!(kind(&error), Some(refusal), "{error}");
        // A process that must start anyway says so.
        builder(&harness).connect_lazily().build().await.unwrap();
    }
    // A KEK that no KMS has, and one that is described as unusable.
    let harness = FaultHarness::new();
    let error = builder(&harness).kek("memory/none").build().await.unwrap_err();
    assert_eq!(kind(&error), Some(KmsErrorKind::NotFound), "{error}");
    harness.kms.create_kek("memory/off");
    harness.kms.disable_kek("memory/off");
    for settings in [
        builder(&harness).kek("memory/off"),
        builder(&harness).kek_for("purpose", "logs", "memory/off"),
    ] {
        let error = settings.build().await.unwrap_err();
        assert_eq!(kind(&error), Some(KmsErrorKind::KeyState), "{error}");
        assert!(error.to_string().contains("`memory/off`"), "{error}");
        assert!(error.to_string().contains("enable it"), "{error}");
    }
    harness.kms.enable_kek("memory/off");
    builder(&harness).kek("memory/off").build().await.unwrap();
}

/// A restart during an outage succeeds, and reports the cause.
#[tokio::test]
async fn a_kms_that_is_unavailable_is_told_and_fails_no_build() {
    for outage in [
        KmsErrorKind::LimitExceeded,
        KmsErrorKind::Throttled,
        KmsErrorKind::Unavailable,
        KmsErrorKind::Unsupported,
    ] {
        let harness = FaultHarness::new();
        let sealed = seal(&harness.process().await, &context("a")).await;
        harness.kms.fail_until_cleared(outage);
        let log = Log::default();
        let guard = traced(&log);
        let process = builder(&harness).build().await.unwrap();
        drop(guard);
        let told = log.lines();
        let told: Vec<_> = told
            .iter()
            .filter(|line| line.starts_with("WARN encx::kms"))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("while this process starts"), "{told:?}");
        let meaning = match outage {
            KmsErrorKind::Unsupported => "its provider describes no KEKs",
            KmsErrorKind::LimitExceeded => "a quota of its KMS is used up",
            KmsErrorKind::Throttled => "its KMS gets too many requests",
            _ => "its KMS does not answer",
        };
        assert!(told[0].contains(meaning), "{told:?}");
        assert!(told[0].contains("kek=memory/default"), "{told:?}");
        harness.kms.clear_faults();
        process.decrypt(&context("a"), &sealed, SSN.row(1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_kms_that_is_required_and_does_not_answer_fails_a_build() {
    for (outage, starts) in [
        (KmsErrorKind::Throttled, false),
        (KmsErrorKind::Unavailable, false),
        (KmsErrorKind::Unsupported, true),
    ] {
        let harness = FaultHarness::new();
        harness.kms.fail_until_cleared(outage);
        let built = builder(&harness).require_kms(true).build().await;
        assert_eq!(built.is_ok(), starts, "{built:?}");
        if let Err(error) = built {
            assert_eq!(kind(&error), Some(outage), "{error}");
            assert!(error.to_string().contains("memory/default"), "{error}");
        }
        let lazily = builder(&harness).require_kms(true).connect_lazily();
        lazily.build().await.unwrap();
        harness.kms.clear_faults();
        builder(&harness).require_kms(true).build().await.unwrap();
    }
}

/// A KMS that does not answer delays a build by 5 seconds, not by the load timeout.
#[tokio::test]
async fn a_kms_that_hangs_holds_a_build_up_for_seconds() {
    let harness = FaultHarness::new();
    harness.kms.hold();
    let process = drive(&harness, SECOND, builder(&harness).build()).await;
    process.unwrap();
    let took = harness.clock.elapsed();
    assert!((5 * SECOND..=7 * SECOND).contains(&took), "{took:?}");
}

/// It no longer wraps anything, and other keys can be read.
#[tokio::test]
async fn a_retired_kek_that_is_refused_is_told_and_fails_no_build() {
    let harness = FaultHarness::new();
    let log = Log::default();
    let guard = traced(&log);
    let process = builder(&harness)
        .also_unwrap("memory/gone")
        .build()
        .await
        .unwrap();
    drop(guard);
    let told = log.lines();
    let told = told
        .iter()
        .find(|line| line.starts_with("WARN encx::kms"))
        .unwrap();
    assert!(told.contains("a retired KEK is refused"), "{told}");
    assert!(told.contains("kek=memory/gone"), "{told}");
    assert!(told.contains("only it wraps cannot be read"), "{told}");
    seal(&process, &context("a")).await;
    // It may be used but not described: these are separate permissions.
    harness.kms.create_kek("memory/shy");
    let fault = Some(KmsErrorKind::AccessDenied);
    harness.kms.set_kek_fault("memory/shy", fault);
    let log = Log::default();
    let guard = traced(&log);
    builder(&harness).also_unwrap("memory/shy").build().await.unwrap();
    drop(guard);
    let told = log.lines().join("\n");
    assert!(told.contains("this process may not describe it"), "{told}");
}

#[tokio::test]
async fn a_build_describes_each_kek_of_the_rule_once_and_does_nothing_else() {
    let harness = FaultHarness::new();
    for kek in ["memory/logs", "memory/old"] {
        harness.kms.create_kek(kek);
    }
    let settings = builder(&harness)
        .kek_for("purpose", "logs", "memory/logs")
        .kek_for("purpose", "traces", "memory/logs")
        .also_unwrap("memory/old");
    let process = settings.build().await.unwrap();
    let calls = harness.kms.last_calls();
    assert!(
        calls
            .iter()
            .all(|call| call.operation == KmsOperation::DescribeKek),
        "{calls:?}"
    );
    let mut keks: Vec<_> = calls.iter().map(|call| call.kek.as_str()).collect();
    keks.sort_unstable();
    assert_eq!(keks, ["memory/default", "memory/logs", "memory/old"]);
    assert_eq!((harness.rows.writes(), process.stats().kms_calls), (0, 0));

    harness.kms.reset_calls();
    builder(&harness).connect_lazily().build().await.unwrap();
    harness.kms.assert_calls(0);
}

#[tokio::test]
async fn a_key_store_that_fails_fails_the_build() {
    let missing = StoreError::NotMigrated {
        found: "no tables".to_owned(),
    };
    let down = StoreError::unavailable(std::io::Error::other("down"));
    for fault in [missing, down] {
        let harness = FaultHarness::new();
        let says = fault.to_string();
        harness.rows.fail_until_cleared(fault);
        let error = builder(&harness).build().await.unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{error}");
        assert_eq!(error.to_string(), says);
        harness.kms.assert_calls(0);
        builder(&harness).connect_lazily().build().await.unwrap();
    }
}

/// The KMS has its own KEK, and the key store's keys are all under another's.
#[tokio::test]
async fn keys_that_are_all_of_other_keks_fail_the_build() {
    let store = MemoryKeyStore::new();
    let kms = MemoryKms::new().with_kek("memory/new");
    let first = Crypto::builder(kms.clone(), store.clone()).build().await.unwrap();
    seal(&first, &context("a")).await;
    let other = || Crypto::builder(kms.clone(), store.clone()).kek("memory/new");

    let error = other().build().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Config { .. }), "{text}");
    assert!(
        text.contains("`memory/default`") && text.contains("KEK file"),
        "{text}"
    );
    other().connect_lazily().build().await.unwrap();

    // The rule also names it, in each possible way.
    other().also_unwrap("memory/default").build().await.unwrap();
    let pair = other().kek_for("tenantId", "a", "memory/default");
    pair.build().await.unwrap();
    let closure = other().kek_rule(|context| {
        let kek = KekRef::try_from("memory/default").ok()?;
        (context.get("tenantId") == Some("a")).then(|| KekChoice::new(kek))
    });
    closure.build().await.unwrap();
    // Nor does one service block the others, once it has a key.
    let lazily = other().connect_lazily().build().await.unwrap();
    seal(&lazily, &context("b")).await;
    other().build().await.unwrap();
}

/// The smallest mistake: a new KEK file with the database of an old one.
#[tokio::test]
async fn another_kek_file_fails_the_build_and_so_do_missing_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let kms = async |name: &str| {
        let protection = Protection::insecure_file_permissions_only();
        LocalKms::open_or_create(path(name), protection).await.unwrap()
    };
    let database = path("keys.db").to_str().unwrap().to_owned();
    let store = SqliteKeyStore::connect(&database).await.unwrap();
    let error = Crypto::builder(kms("keks").await, store.clone()).build().await;
    assert!(
        matches!(error, Err(Error::Store(StoreError::NotMigrated { .. }))),
        "{error:?}"
    );
    store.migrate().await.unwrap();
    let crypto = Crypto::builder(kms("keks").await, store.clone())
        .build()
        .await
        .unwrap();
    seal(&crypto, &context("a")).await;

    let error = Crypto::builder(kms("others").await, store.clone()).build().await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("Is this the right KEK file"), "{text}");
    let right = Crypto::builder(kms("keks").await, store).build();
    tokio::time::timeout(Duration::from_secs(60), right)
        .await
        .unwrap()
        .unwrap();
}

#[test]
fn a_build_needs_a_runtime() {
    let builder = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
    let built = encx_test_support::at_once(builder.build()).expect("at once");
    assert!(matches!(built, Err(Error::NoRuntime)));
}
