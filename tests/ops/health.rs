//! Health makes no calls, and reports the results of the last real calls.

use encx::kms::{CircuitState, KekChoice, KekId, KekRef, KmsErrorKind};
use encx::ops::{CallHealth, Health, HealthData, HealthStatus, KeysHealth};
use encx::{Crypto, Field};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open_at_once, seal, settle, until, within,
};
use encx_testkit::MemoryKms;

use crate::json;

fn status_of(health: &Health, name: &str) -> HealthStatus {
    let check = health.checks.iter().find(|check| check.name == name);
    check.unwrap().status
}

fn calls_of(health: &Health, name: &str) -> CallHealth {
    let check = health.checks.iter().find(|check| check.name == name);
    match &check.unwrap().data {
        HealthData::Kms(kms) => kms.calls.clone(),
        HealthData::KeyStore(store) => store.calls.clone(),
        data => panic!("{data:?}"),
    }
}

fn keys_of(health: &Health) -> KeysHealth {
    match &health.checks.last().unwrap().data {
        HealthData::Keys(keys) => keys.clone(),
        data => panic!("{data:?}"),
    }
}

/// Requests a key that is not in memory, and lets that fail.
async fn fail(process: &Crypto, tenant: &str) {
    let context = context(tenant);
    within(process.encrypt(&context, "", SSN.row(1)))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn before_any_call_a_process_is_up() {
    let harness = FaultHarness::new();
    let process = harness.builder().build().await.unwrap();
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Up);
    assert!(health.is_live() && health.is_ready());
    assert_eq!(
        json(&health),
        serde_json::json!({
            "status": "UP",
            "checks": [
                {"name": "kms", "status": "UP", "data": {
                    "provider": "memory", "kek": "memory/default", "kms": "default", "circuit": "closed",
                    "last_call": "no call yet",
                }},
                {"name": "key_store", "status": "UP", "data": {
                    "last_call": "no call yet", "states_age_seconds": 0.0,
                }},
                {"name": "keys", "status": "UP", "data": {"keys": 0, "encrypt": false, "decrypt": false}},
            ],
        })
    );
}

#[tokio::test]
async fn health_calls_neither_the_kms_nor_the_key_store() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let context = context("a");
    seal(&process, &context).await;
    let before = process.stats();
    let counts = || {
        let rows = &harness.rows;
        (
            harness.kms.calls().total(),
            rows.loads(),
            rows.gets(),
            rows.pages(),
            rows.polls(),
            rows.writes(),
        )
    };
    let called = counts();
    for _ in 0..1000 {
        assert!(process.health().is_ready());
    }
    settle().await;
    assert_eq!(counts(), called);
    // A probe is not a use of a key either.
    assert_eq!(process.stats(), before);
}

#[tokio::test]
async fn a_kms_that_does_not_answer_degrades_a_process_whose_keys_serve() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let (mine, other) = (context("mine"), context("other"));
    let sealed = seal(&process, &mine).await;
    assert_eq!(process.health().status, HealthStatus::Up);
    harness.kms.set_unavailable(true);
    within(process.encrypt(&other, "", SSN.row(1))).await.unwrap_err();
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert_eq!(status_of(&health, "kms"), HealthStatus::Down);
    assert_eq!(status_of(&health, "key_store"), HealthStatus::Up);
    assert!(health.is_ready() && health.is_live());
    let calls = calls_of(&health, "kms");
    assert_eq!(
        (calls.last_call, calls.last_failure),
        ("unavailable", Some("unavailable"))
    );
    assert!(calls.last_success_at.is_some());
    open_at_once(&process, &mine, &sealed);
    // The first answered call ends it.
    harness.kms.set_unavailable(false);
    seal(&process, &other).await;
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Up);
    assert_eq!(calls_of(&health, "kms").last_call, "ok");
    assert_eq!(calls_of(&health, "kms").last_failure, Some("unavailable"));
}

#[tokio::test]
async fn a_process_is_down_when_nothing_can_be_served_and_asks_for_a_request_later() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.kms.set_unavailable(true);
    for tenant in ["a", "b", "c", "d", "e"] {
        fail(&process, tenant).await;
    }
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Down);
    assert!(health.is_live() && !health.is_ready());
    let HealthData::Kms(kms) = &health.checks[0].data else {
        panic!()
    };
    assert_eq!(kms.circuit, CircuitState::Open);
    // Without requests, the KMS would never be called again.
    harness.pass(29 * SECOND).await;
    assert_eq!(process.health().status, HealthStatus::Down);
    harness.pass(2 * SECOND).await;
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert_eq!(status_of(&health, "kms"), HealthStatus::Degraded);
    assert!(health.is_ready());
    fail(&process, "f").await;
    assert_eq!(process.health().status, HealthStatus::Down);
}

#[tokio::test]
async fn refusals_degrade_and_what_is_about_one_wrap_does_not() {
    for (kind, expected) in [
        (KmsErrorKind::AccessDenied, HealthStatus::Degraded),
        (KmsErrorKind::KeyState, HealthStatus::Degraded),
        (KmsErrorKind::Integrity, HealthStatus::Up),
    ] {
        let harness = FaultHarness::new();
        let process = harness.process().await;
        seal(&process, &context("mine")).await;
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(kind));
        fail(&process, "other").await;
        let health = process.health();
        assert_eq!(
            (health.status, status_of(&health, "kms")),
            (expected, expected),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_key_store_that_is_down_shows_with_the_first_poll_and_its_return_by_itself() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let mine = context("mine");
    seal(&process, &mine).await;
    harness.rows.set_unavailable(true);
    harness.next_failed_poll(&process).await;
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert_eq!(status_of(&health, "key_store"), HealthStatus::Down);
    assert_eq!(calls_of(&health, "key_store").last_call, "unavailable");
    assert!(health.is_ready());
    harness.rows.set_unavailable(false);
    let before = process.stats().failed_polls;
    harness.pass(10 * SECOND).await;
    until("a poll that succeeds", || {
        process.health().status == HealthStatus::Up
    })
    .await;
    assert_eq!(process.stats().failed_polls, before);
}

#[tokio::test]
async fn a_process_without_keys_is_down_while_its_key_store_is() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.rows.set_unavailable(true);
    fail(&process, "a").await;
    assert_eq!(process.health().status, HealthStatus::Down);
    harness.rows.set_unavailable(false);
    seal(&process, &context("a")).await;
    assert_eq!(process.health().status, HealthStatus::Up);
}

#[tokio::test]
async fn keys_whose_states_are_too_old_serve_only_where_the_builder_lets_them() {
    for fail_closed in [false, true] {
        let harness = FaultHarness::new();
        let builder = harness.builder();
        let builder = match fail_closed {
            true => builder.fail_closed_on_stale_state(),
            false => builder,
        };
        let process = harness.built(builder).await;
        let mine = context("mine");
        seal(&process, &mine).await;
        harness.rows.set_unavailable(true);
        harness.next_failed_poll(&process).await;
        harness.pass(2 * MINUTE).await;
        let stale_serves = process.stats().stale_serves;
        let health = process.health();
        assert_eq!(
            process.stats().stale_serves,
            stale_serves,
            "a probe is no use of a key"
        );
        let served = keys_of(&health);
        assert_eq!((served.encrypt, served.decrypt), (!fail_closed, !fail_closed));
        let expected = match fail_closed {
            true => HealthStatus::Down,
            false => HealthStatus::Degraded,
        };
        assert_eq!(health.status, expected);
        // The calls themselves get the same result.
        let sealed = within(process.encrypt(&mine, "", SSN.row(1))).await;
        assert_eq!(sealed.is_err(), fail_closed);
    }
}

#[tokio::test]
async fn past_their_time_keys_may_decrypt_longer_than_they_encrypt() {
    let harness = FaultHarness::new();
    let builder = harness.builder().ttl(HOUR).stale_decrypt_if_unavailable(HOUR);
    let process = harness.built(builder).await;
    let mine = context("mine");
    let sealed = seal(&process, &mine).await;
    harness.pass(50 * MINUTE).await;
    open_at_once(&process, &mine, &sealed);
    harness.kms.set_unavailable(true);
    harness
        .pass_with(20 * MINUTE, || open_at_once(&process, &mine, &sealed))
        .await;
    let health = process.health();
    let served = keys_of(&health);
    assert_eq!((served.encrypt, served.decrypt), (false, true), "{health:?}");
    assert_eq!(health.status, HealthStatus::Degraded);
}

#[tokio::test]
async fn who_was_shut_down_is_not_live() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    process.shutdown().await;
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Down);
    assert!(!health.is_live() && !health.is_ready());
}

#[tokio::test]
async fn each_kms_has_a_check_with_the_lasting_name_of_its_kek() {
    let harness = FaultHarness::new();
    let replica = MemoryKms::new()
        .with_kek("kek-eu")
        .with_alias("alias/eu", "kek-eu");
    let builder =
        harness
            .builder()
            .kms_named("eu", replica.clone())
            .kek_for("region", "eu", ("eu", "alias/eu"));
    let process = harness.built(builder).await;
    let kek = |health: &Health| match &health.checks[1].data {
        HealthData::Kms(kms) => kms.kek.clone(),
        data => panic!("{data:?}"),
    };
    let health = process.health();
    assert_eq!(health.checks[1].name, "kms:eu");
    assert_eq!(kek(&health), Some(KekId::new("alias/eu").unwrap()));
    let european = encx::EncryptionContext::from_pairs([("region", "eu")]).unwrap();
    let field = Field::new("users", "ssn");
    within(process.encrypt(&european, "", field.row(1)))
        .await
        .unwrap();
    assert_eq!(kek(&process.health()), Some(KekId::new("kek-eu").unwrap()));
    // The failure of one does not affect the other.
    replica.set_unavailable(true);
    let other = encx::EncryptionContext::from_pairs([("region", "eu"), ("tenant", "2")]).unwrap();
    within(process.encrypt(&other, "", field.row(1)))
        .await
        .unwrap_err();
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert_eq!(status_of(&health, "kms:eu"), HealthStatus::Down);
    assert_eq!(status_of(&health, "kms"), HealthStatus::Up);
}

/// Lets calls to a KMS fail until a process without keys has learned that it is down.
async fn fail_often(process: &Crypto) {
    for tenant in ["a", "b", "c", "d", "e"] {
        fail(process, tenant).await;
    }
}

#[tokio::test]
async fn a_kms_that_wraps_nothing_makes_no_process_ready() {
    // As with settings that have only `[kms.eu]`: the KMS is also registered as `default`.
    let harness = FaultHarness::new();
    let used = MemoryKms::new().with_kek("kek-eu");
    let builder = harness.builder().kms_named("eu", used.clone());
    let builder = builder.kek_choice(KekChoice::new(KekRef::try_from(("eu", "kek-eu")).unwrap()));
    let process = harness.built(builder).await;
    assert!(process.health().is_ready());
    used.set_unavailable(true);
    fail_often(&process).await;
    let health = process.health();
    assert_eq!(health.status, HealthStatus::Down);
    assert!(!health.is_ready());
    // Nor does a KMS that only unwraps older wraps.
    let harness = FaultHarness::new();
    let old = MemoryKms::new().with_kek("kek-old");
    let builder = harness
        .builder()
        .kms_named("old", old)
        .also_unwrap(("old", "kek-old"));
    let process = harness.built(builder).await;
    harness.kms.set_unavailable(true);
    fail_often(&process).await;
    assert!(!process.health().is_ready());
}

#[tokio::test]
async fn where_a_closure_decides_the_kms_that_was_called_counts() {
    let harness = FaultHarness::new();
    let used = MemoryKms::new().with_kek("kek-eu");
    let builder = harness.builder().kms_named("eu", used.clone());
    let builder = builder.kek_rule(|_| {
        let kek = KekRef::try_from(("eu", "kek-eu")).unwrap();
        Some(KekChoice::new(kek))
    });
    let process = harness.built(builder).await;
    assert!(process.health().is_ready());
    used.set_unavailable(true);
    fail_often(&process).await;
    assert!(!process.health().is_ready());
}

#[tokio::test]
async fn one_kek_that_is_refused_leaves_a_process_ready_for_others() {
    for (kind, ready) in [
        (KmsErrorKind::AccessDenied, true),
        (KmsErrorKind::KeyState, true),
        (KmsErrorKind::NotFound, true),
        (KmsErrorKind::Configuration, false),
    ] {
        let kms = MemoryKms::new().with_kek("kek-of-a");
        let harness = FaultHarness::new();
        let builder = Crypto::builder(kms.clone(), harness.store.clone())
            .clock(harness.clock.clone())
            .connect_lazily()
            .kek_for("tenantId", "a", "kek-of-a");
        let process = harness.built(builder).await;
        kms.set_kek_fault("kek-of-a", Some(kind));
        fail(&process, "a").await;
        let health = process.health();
        assert_eq!(health.is_ready(), ready, "{kind:?}");
        let expected = if ready {
            HealthStatus::Degraded
        } else {
            HealthStatus::Down
        };
        assert_eq!(health.status, expected, "{kind:?}");
        assert_eq!(status_of(&health, "kms"), HealthStatus::Degraded, "{kind:?}");
    }
    // Without another KEK, nothing can be served.
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness
        .kms
        .set_kek_fault(MemoryKms::DEFAULT_KEK, Some(KmsErrorKind::AccessDenied));
    fail(&process, "a").await;
    assert!(!process.health().is_ready());
}
