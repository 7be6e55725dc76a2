//! End to end through `Crypto` and PostgreSQL to the KMS server, with the number of calls.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::time::Duration;

use encx::kms::{KekChoice, KekRef, KeyManagementService, KmsErrorKind};
use encx::{Ciphertext, Crypto, CryptoBuilder, Error, Field};
use encx_aws::{AwsKms, AwsKmsBuilder};
use sqlx::{query, query_scalar};

use crate::common::postgres::Database;
use crate::common::proxy::Proxy;
use crate::common::{AWAY, HOME, builder_at, client, config, context, create_key, create_multi_region_key};

const SSN: Field = Field::new("users", "ssn");
const TENANTS: usize = 7;

/// Makes no call while it builds, because tests count calls.
async fn crypto(
    kms: &AwsKms,
    database: &Database,
    set: impl FnOnce(CryptoBuilder) -> CryptoBuilder,
) -> Crypto {
    let builder = Crypto::builder(kms.clone(), database.store().await);
    set(builder).connect_lazily().build().await.unwrap()
}

/// Two regions, each behind its own proxy.
struct Regions {
    home: Proxy,
    away: Proxy,
}

impl Regions {
    async fn start() -> Self {
        Self {
            home: Proxy::start().await,
            away: Proxy::start().await,
        }
    }

    fn builder(&self) -> AwsKmsBuilder {
        AwsKms::builder()
            .sdk_config(&config())
            .endpoint_url_for(HOME, self.home.url())
            .endpoint_url_for(AWAY, self.away.url())
            .max_attempts(1)
            .attempt_timeout(Duration::from_secs(2))
    }
}

#[tokio::test]
async fn a_value_goes_through_kms_and_database_and_back() {
    let (database, url) = (Database::create().await, common::server_url());
    let kek = create_key(HOME).await;
    let kms = builder_at(&url).default_kek(kek.as_str()).build().await.unwrap();
    let service = crypto(&kms, &database, |builder| builder).await;
    let pool = database.pool().await;
    query("CREATE TABLE users (id bigint PRIMARY KEY, ssn bytea)")
        .execute(&pool)
        .await
        .unwrap();
    let sealed = service
        .encrypt(&context("a"), "123-45-6789", SSN.row(7))
        .await
        .unwrap();
    query("INSERT INTO users VALUES (7, $1)")
        .bind(sealed)
        .execute(&pool)
        .await
        .unwrap();

    // Another process, with only the database and the KMS.
    let other = crypto(&kms, &database, |builder| builder).await;
    let select = query_scalar("SELECT ssn FROM users WHERE id = 7");
    let sealed: Ciphertext = select.fetch_one(&pool).await.unwrap();
    let opened = other.decrypt(&context("a"), &sealed, SSN.row(7)).await.unwrap();
    assert_eq!(opened.as_bytes(), b"123-45-6789");
    let elsewhere = other.decrypt(&context("a"), &sealed, SSN.row(8)).await;
    assert!(matches!(elsewhere, Err(Error::Decrypt { .. })));
    let stranger = other.decrypt(&context("b"), &sealed, SSN.row(7)).await;
    assert!(matches!(stranger, Err(Error::UnknownKey { .. })));

    let record = &service.key_manager().list(&context("a")).await.unwrap()[0];
    assert_eq!(record.wraps[0].wrapped.kek, kek);
    let material = kms.describe_kek(&kek).await.unwrap().current_material;
    assert!(material.is_some());
    assert_eq!(
        record.wraps[0].wrapped.kek_material, material,
        "which material wraps is kept"
    );

    // New material, a new version, and a disabled KEK.
    client(HOME)
        .rotate_key_on_demand()
        .key_id(kek.as_str())
        .send()
        .await
        .unwrap();
    let rotated = service.key_manager().rotate(&context("a")).await.unwrap();
    assert_ne!(rotated.wraps[0].wrapped.kek_material, material);
    let third = crypto(&kms, &database, |builder| builder).await;
    assert_eq!(
        third
            .decrypt(&context("a"), &sealed, SSN.row(7))
            .await
            .unwrap()
            .as_bytes(),
        b"123-45-6789"
    );
    client(HOME)
        .disable_key()
        .key_id(kek.as_str())
        .send()
        .await
        .unwrap();
    let fourth = crypto(&kms, &database, |builder| builder).await;
    let error = fourth
        .decrypt(&context("a"), &sealed, SSN.row(7))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Kms(error) if error.kind() == KmsErrorKind::KeyState),
        "{error}"
    );
    assert!(error.to_string().contains("enable-key"), "{error}");
    database.remove().await;
}

#[tokio::test]
async fn calls_are_as_few_as_promised() {
    let (database, proxy) = (Database::create().await, Proxy::start().await);
    let (kek, other) = (create_key(HOME).await, create_key(HOME).await);
    let kms = builder_at(proxy.url())
        .default_kek(kek.as_str())
        .build()
        .await
        .unwrap();
    proxy.expect("building makes no calls", &[]);

    let service = crypto(&kms, &database, |builder| builder).await;
    service.key_manager().create(&context("explicit")).await.unwrap();
    proxy.expect("creating a key", &[("GenerateDataKey", 1)]);
    let mut sealed = Vec::new();
    for tenant in 0..TENANTS {
        let context = context(&tenant.to_string());
        sealed.push(service.encrypt(&context, "x", SSN.row(1)).await.unwrap());
    }
    proxy.expect(
        "creating on first use, and using",
        &[("GenerateDataKey", TENANTS)],
    );
    for tenant in (0..TENANTS).cycle().take(300) {
        let context = context(&tenant.to_string());
        service.encrypt(&context, "x", SSN.row(1)).await.unwrap();
        service
            .decrypt(&context, &sealed[tenant], SSN.row(1))
            .await
            .unwrap();
    }
    proxy.expect("the hot path", &[]);

    let cold = crypto(&kms, &database, |builder| builder).await;
    let all = (0..TENANTS).flat_map(|tenant| [tenant; 20]).map(|tenant| {
        let (cold, sealed) = (cold.clone(), sealed[tenant].clone());
        tokio::spawn(async move {
            cold.decrypt(&context(&tenant.to_string()), &sealed, SSN.row(1))
                .await
                .unwrap();
        })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    proxy.expect("a cold start", &[("Decrypt", TENANTS)]);

    // Versions of one context, moved to another KEK.
    let manager = service.key_manager();
    for _ in 1..TENANTS {
        manager.rotate(&context("0")).await.unwrap();
    }
    proxy.calls();
    let moving = crypto(&kms, &database, |builder| {
        builder.kek(other.as_str()).also_unwrap(kek.as_str())
    })
    .await;
    let moved = moving.key_manager().rewrap(&context("0")).await.unwrap();
    assert_eq!(moved.len(), TENANTS);
    // Once per process and minute: resolving the two KEKs' names.
    proxy.expect(
        "a rewrap of all versions",
        &[
            ("DescribeKey", 2),
            ("GetKeyRotationStatus", 2),
            ("ListKeyRotations", 2),
            ("ReEncrypt", TENANTS),
        ],
    );
    for record in moving.key_manager().list(&context("0")).await.unwrap() {
        assert_eq!(record.wraps[0].wrapped.kek, other);
    }
    let opened = moving
        .decrypt(&context("0"), &sealed[0], SSN.row(1))
        .await
        .unwrap();
    assert_eq!(opened.as_bytes(), b"x");
    database.remove().await;
}

#[tokio::test]
async fn an_alias_costs_one_question_and_stands_in_no_row() {
    let (database, proxy) = (Database::create().await, Proxy::start().await);
    let kek = create_key(HOME).await;
    let alias = format!("alias/flow-{}", std::process::id());
    let create = client(HOME)
        .create_alias()
        .alias_name(&alias)
        .target_key_id(kek.as_str());
    create.send().await.unwrap();
    let kms = builder_at(proxy.url()).default_kek(&alias).build().await.unwrap();
    let service = crypto(&kms, &database, |builder| builder).await;
    let mut sealed = Vec::new();
    for tenant in 0..TENANTS {
        let context = context(&tenant.to_string());
        sealed.push(service.encrypt(&context, "x", SSN.row(1)).await.unwrap());
    }
    proxy.expect("creating under an alias", &[("GenerateDataKey", TENANTS)]);
    let record = &service.key_manager().list(&context("0")).await.unwrap()[0];
    assert_eq!(record.wraps[0].wrapped.kek, kek);
    let cold = crypto(&kms, &database, |builder| builder).await;
    for (tenant, sealed) in sealed.iter().enumerate() {
        let context = context(&tenant.to_string());
        cold.decrypt(&context, sealed, SSN.row(1)).await.unwrap();
    }
    proxy.expect(
        "a cold start under an alias",
        &[
            ("Decrypt", TENANTS),
            ("DescribeKey", 1),
            ("GetKeyRotationStatus", 1),
            ("ListKeyRotations", 1),
        ],
    );
    database.remove().await;
}

#[tokio::test]
async fn a_multi_region_key_is_used_in_the_nearest_region_that_answers() {
    let (database, regions) = (Database::create().await, Regions::start().await);
    let kek = create_multi_region_key().await;
    let kms = regions.builder().regions([AWAY, HOME]).default_kek(kek.as_str());
    let kms = kms.build().await.unwrap();
    let service = crypto(&kms, &database, |builder| builder).await;
    let sealed = service.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    regions.away.expect("the nearest", &[("GenerateDataKey", 1)]);
    regions.home.expect("the other", &[]);

    regions.away.set_down(true);
    let opened = crypto(&kms, &database, |builder| builder).await;
    let opened = opened.decrypt(&context("a"), &sealed, SSN.row(1)).await.unwrap();
    assert_eq!(opened.as_bytes(), b"x");
    service.encrypt(&context("b"), "y", SSN.row(1)).await.unwrap();
    regions
        .home
        .expect("the other", &[("Decrypt", 1), ("GenerateDataKey", 1)]);

    // A process that is nearer to the other region uses the same KEK name, and reads both.
    regions.away.set_down(false);
    let there = regions.builder().regions([HOME, AWAY]).default_kek(kek.as_str());
    let there = crypto(&there.build().await.unwrap(), &database, |builder| builder).await;
    for tenant in ["a", "b"] {
        let record = &there.key_manager().list(&context(tenant)).await.unwrap()[0];
        assert_eq!(record.wraps[0].wrapped.kek, kek);
    }
    there.decrypt(&context("a"), &sealed, SSN.row(1)).await.unwrap();
    regions
        .home
        .expect("the nearest of the other process", &[("Decrypt", 1)]);
    database.remove().await;
}

#[tokio::test]
async fn of_a_key_in_each_region_one_is_enough() {
    let (database, regions) = (Database::create().await, Regions::start().await);
    let (home, away) = (create_key(HOME).await, create_key(AWAY).await);
    let kms = regions.builder().build().await.unwrap();
    let choice = KekChoice::new(KekRef::from(home.clone())).also_wrap(KekRef::from(away.clone()));
    let rule = |builder: CryptoBuilder| {
        let choice = choice.clone();
        builder.kek_rule(move |_| Some(choice.clone()))
    };
    let service = crypto(&kms, &database, rule).await;
    let manager = service.key_manager();
    let whole = manager.create(&context("whole")).await.unwrap();
    assert_eq!(whole.wraps.len(), 2);
    regions.home.expect("making it", &[("GenerateDataKey", 1)]);
    regions.away.expect("wrapping it again", &[("Encrypt", 1)]);

    // One region is down while keys are created, then the other.
    regions.away.set_down(true);
    let sealed = service.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let lacking = &manager.list(&context("a")).await.unwrap()[0];
    assert_eq!(
        manager.missing_wraps(lacking).await.unwrap(),
        [KekRef::from(away)]
    );
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.failed.len()), (1, 1));
    regions.away.set_down(false);
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.completed.len()), (1, 1));
    assert!(report.failed.is_empty());

    regions.home.set_down(true);
    let reader = crypto(&kms, &database, rule).await;
    let opened = reader.decrypt(&context("a"), &sealed, SSN.row(1)).await.unwrap();
    assert_eq!(opened.as_bytes(), b"x");
    database.remove().await;
}

#[tokio::test]
async fn a_rewrap_between_regions_keeps_the_key() {
    let (database, regions) = (Database::create().await, Regions::start().await);
    let (home, away) = (create_key(HOME).await, create_key(AWAY).await);
    let kms = regions.builder().build().await.unwrap();
    let service = crypto(&kms, &database, |builder| builder.kek(home.as_str())).await;
    let sealed = service.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    regions.home.calls();
    let moving = crypto(&kms, &database, |builder| {
        builder.kek(away.as_str()).also_unwrap(home.as_str())
    })
    .await;
    moving.key_manager().rewrap(&context("a")).await.unwrap();
    let (from, to) = (regions.home.calls(), regions.away.calls());
    assert_eq!(
        (from.get("Decrypt"), to.get("Encrypt")),
        (Some(&1), Some(&1)),
        "{from:?} {to:?}"
    );
    assert!(!from.contains_key("ReEncrypt") && !to.contains_key("ReEncrypt"));
    let moved = crypto(&kms, &database, |builder| builder.kek(away.as_str())).await;
    let opened = moved.decrypt(&context("a"), &sealed, SSN.row(1)).await.unwrap();
    assert_eq!(opened.as_bytes(), b"x");
    database.remove().await;
}
