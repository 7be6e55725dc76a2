//! The KEK rule, and invalid settings.

use std::time::Duration;

use encx::kms::{KekChoice, KekRef, KmsErrorKind};
use encx::store::KeyRecord;
use encx::{Crypto, CryptoBuilder, EncryptionContext, Error};
use encx_test_support::{HarnessExt, SSN, context};
use encx_testkit::{Harness, MemoryKeyStore, MemoryKms};

#[tokio::test]
async fn the_kek_rule_goes_from_closure_to_pair_to_default() {
    let harness = Harness::new().await;
    harness.kms().create_kek("memory/logs");
    harness.kms().create_kek("memory/vip");
    let crypto = harness
        .builder()
        .kek("memory/default")
        .kek_for("purpose", "logs", "memory/logs")
        .kek_rule(|context| {
            let vip = context.get("tenantId") == Some("vip");
            vip.then(|| KekChoice::new(KekRef::try_from("memory/vip").unwrap()))
        })
        .build()
        .await
        .unwrap();
    let pairs = |tenant: &str, purpose: &str| {
        EncryptionContext::from_pairs([("tenantId", tenant), ("purpose", purpose)]).unwrap()
    };
    for (context, kek) in [
        (pairs("a", "pii"), "memory/default"),
        (pairs("a", "logs"), "memory/logs"),
        (pairs("vip", "logs"), "memory/vip"),
    ] {
        let sealed = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
        let record = harness
            .store()
            .records()
            .into_iter()
            .find(|record| record.id == sealed.key_id())
            .unwrap();
        assert_eq!(record.wraps[0].wrapped.kek.as_str(), kek);
        assert_eq!(crypto.key_manager().list(&context).await.unwrap(), [record]);
    }
}

#[tokio::test]
async fn a_choice_by_pair_and_by_default_has_several_keks() {
    let harness = Harness::new().await;
    let kek = |name: &str| KekRef::try_from(format!("memory/{name}")).unwrap();
    for name in ["a", "b", "old"] {
        harness.kms().create_kek(&format!("memory/{name}"));
    }
    let old = harness.builder().kek("memory/old").build().await.unwrap();
    let of = |purpose: &str| EncryptionContext::from_pairs([("purpose", purpose)]).unwrap();
    let mut sealed = Vec::new();
    for purpose in ["logs", "pii"] {
        sealed.push(old.encrypt(&of(purpose), "x", SSN.row(1)).await.unwrap());
    }
    let crypto = harness
        .builder()
        .kek_choice(KekChoice::new(kek("a")).also_wrap(kek("b")))
        .kek_choice_for(
            "purpose",
            "logs",
            KekChoice::new(kek("b")).also_unwrap(kek("old")),
        )
        .kek_choice_for("purpose", "logs", KekChoice::new(kek("a")))
        .build()
        .await
        .unwrap();
    // The KEK of the pair allows it, the default does not.
    crypto.decrypt(&of("logs"), &sealed[0], SSN.row(1)).await.unwrap();
    let refused = crypto
        .decrypt(&of("pii"), &sealed[1], SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::KekNotAllowed { .. }), "{refused}");
    let made = crypto.encrypt(&of("other"), "x", SSN.row(1)).await.unwrap();
    crypto.key_manager().rotate(&of("logs")).await.unwrap();
    let wraps = |of: &dyn Fn(&KeyRecord) -> bool| -> Vec<String> {
        let records = harness.store().records();
        let record = records.iter().rfind(|record| of(record)).unwrap();
        let keks = record.wraps.iter().map(|wrap| wrap.wrapped.kek.to_string());
        keks.collect()
    };
    assert_eq!(
        wraps(&|record| record.id == made.key_id()),
        ["memory/a", "memory/b"]
    );
    assert_eq!(
        wraps(&|record| record
            .context
            .get("purpose")
            .is_some_and(|purpose| purpose == "logs")
            && record.id != sealed[0].key_id()),
        ["memory/b"]
    );
}

#[tokio::test]
async fn every_kek_of_a_choice_is_looked_at_by_build() {
    // The harness's builder connects lazily.
    let builder = || Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
    let kek = |name: &str| KekRef::try_from(name).unwrap();
    let choice = || KekChoice::new(kek("memory/default"));
    for settings in [
        builder().kek_choice(choice().also_wrap(kek("memory/none"))),
        builder().kek_choice_for("purpose", "logs", choice().also_wrap(kek("memory/none"))),
    ] {
        let error = settings.build().await.unwrap_err();
        assert!(
            matches!(&error, Error::Kms(error) if error.kind() == KmsErrorKind::NotFound),
            "{error}"
        );
    }
    // A KEK that only unwraps causes just a warning.
    builder()
        .kek_choice(choice().also_unwrap(kek("memory/none")))
        .build()
        .await
        .unwrap();
    let nowhere = KekRef::try_from(("nowhere", "memory/default")).unwrap();
    for choice in [choice().also_wrap(nowhere.clone()), choice().also_unwrap(nowhere)] {
        let error = builder()
            .kek_choice_for("purpose", "logs", choice)
            .build()
            .await
            .unwrap_err();
        assert!(matches!(error, Error::UnknownKms { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_alias_in_the_rule_finds_the_rows_it_wrapped() {
    let harness = Harness::new().await;
    harness.kms().create_kek("memory/1");
    harness.kms().set_alias("alias/app", "memory/1");
    harness.kms().create_kek("memory/2");
    let context = context("a");
    let crypto = harness.builder().kek("alias/app").build().await.unwrap();
    let sealed = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert_eq!(
        harness.store().records()[0].wraps[0].wrapped.kek.as_str(),
        "memory/1"
    );
    let reader = harness.builder().kek("alias/app").build().await.unwrap();
    assert!(reader.decrypt(&context, &sealed, SSN.row(1)).await.is_ok());

    // The alias moves: what it wrapped earlier is allowed only by name.
    harness.kms().set_alias("alias/app", "memory/2");
    let reader = harness.builder().kek("alias/app").build().await.unwrap();
    let refused = reader.decrypt(&context, &sealed, SSN.row(1)).await.unwrap_err();
    assert!(matches!(refused, Error::KekNotAllowed { .. }), "{refused}");
    let reader = harness
        .builder()
        .kek("alias/app")
        .also_unwrap("memory/1")
        .build()
        .await
        .unwrap();
    assert!(reader.decrypt(&context, &sealed, SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn several_kmss_wrap_one_key_and_any_of_them_is_enough() {
    let (eu, us) = (
        MemoryKms::new().with_kek("memory/eu"),
        MemoryKms::new().with_kek("memory/us"),
    );
    let store = MemoryKeyStore::new();
    let build = || {
        let rule = |_: &EncryptionContext| {
            let kek = |kms, kek| KekRef::try_from((kms, kek)).unwrap();
            Some(KekChoice::new(kek("eu", "memory/eu")).also_wrap(kek("us", "memory/us")))
        };
        Crypto::builder(MemoryKms::new(), store.clone())
            .kms_named("eu", eu.clone())
            .kms_named("us", us.clone())
            .kek_rule(rule)
            .build()
    };
    let context = context("a");
    let sealed = build()
        .await
        .unwrap()
        .encrypt(&context, "x", SSN.row(1))
        .await
        .unwrap();
    assert_eq!(store.records()[0].wraps.len(), 2);
    assert_eq!((eu.calls().generate, us.calls().wrap), (1, 1));

    eu.set_unavailable(true);
    let reader = build().await.unwrap();
    assert!(
        reader.decrypt(&context, &sealed, SSN.row(1)).await.is_ok(),
        "the other region is enough"
    );
    us.set_kek_fault("memory/us", Some(KmsErrorKind::AccessDenied));
    let failed = build()
        .await
        .unwrap()
        .decrypt(&context, &sealed, SSN.row(1))
        .await
        .unwrap_err();
    assert!(
        failed.is_retryable(),
        "the one that may come back decides: {failed}"
    );
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_build() {
    let harness = Harness::new().await;
    let refused = |builder: CryptoBuilder| async move { builder.build().await.unwrap_err() };
    for (wrong, says) in [
        (harness.builder().kek(""), "is not empty"),
        (
            harness.builder().kek(("eu", "k")),
            "no KMS is registered under the name `eu`",
        ),
        (harness.builder().also_unwrap(("eu", "k")), "`eu`"),
        (harness.builder().kek_for("a", "b", ("eu", "k")), "`eu`"),
        (
            harness
                .builder()
                .kms_named("eu", MemoryKms::new())
                .kms_named("eu", MemoryKms::new()),
            "two KMSs",
        ),
        (
            harness.builder().kms_named("default", MemoryKms::new()),
            "two KMSs",
        ),
        (harness.builder().ttl(Duration::ZERO), "`ttl`"),
        (harness.builder().state_ttl(Duration::ZERO), "`state_ttl`"),
        (harness.builder().max_keyrings(0), "`max_keyrings`"),
        (
            harness.builder().max_concurrent_kms_calls(0),
            "`max_concurrent_kms_calls`",
        ),
    ] {
        let error = refused(wrong).await;
        assert!(error.to_string().contains(says), "{error}");
    }
    let none = Crypto::builder(MemoryKms::new().without_default_kek(), MemoryKeyStore::new());
    let refused = none
        .build()
        .await
        .unwrap()
        .encrypt(&context("a"), "x", SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NoKek), "{refused}");
}
