//! Keys in use are refreshed before they expire, and no request waits for it.

use encx::kms::KmsErrorKind;
use encx::{Clock, Error};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, at_once, context, open, open_at_once, seal, seal_at_once,
    settle, until, within,
};
use encx_testkit::MemoryKms;
use tokio::task::JoinSet;

#[tokio::test]
async fn under_steady_use_no_request_waits_for_the_kms_again() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    let misses = process.stats().misses;
    let request = || {
        open_at_once(&process, &context, &sealed);
        seal_at_once(&process, &context);
        keyring.try_encrypt("", SSN.row(1)).unwrap();
        keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    };
    harness.pass_with(4 * HOUR, request).await;
    let stats = process.stats();
    assert_eq!(stats.misses, misses);
    // Each lifetime is between 90 % and 97.5 % of an hour.
    assert_eq!(stats.refreshes, 4);
    assert_eq!((stats.failed_refreshes, stats.stale_key_serves), (0, 0));
    assert_eq!(stats.kms_calls, 1 + stats.refreshes);
    assert_eq!(harness.kms.calls().unwrap, stats.refreshes);
    assert_eq!(stats.keys, 1);
}

#[tokio::test]
async fn keys_that_came_together_are_not_refreshed_together() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let mut tenants = Vec::new();
    for tenant in 0..100 {
        let context = context(tenant);
        let sealed = seal(&process, &context).await;
        tenants.push((context, sealed));
    }
    let misses = process.stats().misses;
    let mut per_step = Vec::new();
    let begin = harness.clock.elapsed();
    let mut seen = 0;
    harness
        .pass_with(HOUR + MINUTE, || {
            for (context, sealed) in &tenants {
                open_at_once(&process, context, sealed);
            }
            let now = harness.kms.calls().unwrap;
            per_step.push((harness.clock.elapsed() - begin, now - seen));
            seen = now;
        })
        .await;
    assert_eq!(process.stats().misses, misses);
    assert_eq!(process.stats().refreshes, 100);
    let busy: Vec<_> = per_step.iter().filter(|(_, calls)| *calls > 0).collect();
    // Nothing before the last tenth, and nothing in its last quarter but the sweep's own pace.
    assert!(busy[0].0 >= 54 * MINUTE, "{busy:?}");
    assert!(busy[busy.len() - 1].0 <= 59 * MINUTE, "{busy:?}");
    assert!(busy.iter().all(|(_, calls)| *calls < 30), "{busy:?}");
    assert!(busy.len() > 10, "{busy:?}");
}

#[tokio::test]
async fn refreshes_leave_room_for_requests_under_the_bound_on_kms_calls() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_concurrent_kms_calls(6)).await;
    let mut tenants = Vec::new();
    for tenant in 0..100 {
        let context = context(tenant);
        let sealed = seal(&process, &context).await;
        open_at_once(&process, &context, &sealed);
        tenants.push((context, sealed));
    }
    harness.pass(53 * MINUTE).await;
    let loads = harness.rows.loads();
    harness.kms.reset_calls();
    harness.kms.hold();
    // Past every key's refresh time at once.
    harness.clock.advance(6 * MINUTE);
    within(harness.kms.until_in_flight(3)).await;
    settle().await;
    assert_eq!(harness.kms.in_flight(), 3);
    // One query for all rows.
    assert_eq!(harness.rows.loads(), loads + 1);
    let request = tokio::spawn({
        let process = process.clone();
        async move { seal(&process, &context("new")).await }
    });
    within(harness.kms.until_in_flight(4)).await;
    harness.kms.release();
    within(request).await.unwrap();
    until("the refreshes", || process.stats().refreshes == 100).await;
    assert_eq!(harness.kms.max_in_flight(), 4);
    assert_eq!(harness.kms.calls().unwrap, 100);
    let misses = process.stats().misses;
    harness.pass(2 * MINUTE).await;
    for (context, sealed) in &tenants {
        open_at_once(&process, context, sealed);
    }
    assert_eq!(process.stats().misses, misses);
}

#[tokio::test]
async fn a_request_during_a_refresh_is_served_from_the_old_key() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    open_at_once(&process, &context, &sealed);
    harness.pass(53 * MINUTE).await;
    harness.kms.hold();
    harness.clock.advance(6 * MINUTE);
    within(harness.kms.until_in_flight(1)).await;
    // After such a jump, a poll is due.
    open(&process, &context, &sealed).await.unwrap();
    let misses = process.stats().misses;
    open_at_once(&process, &context, &sealed);
    seal_at_once(&process, &context);
    assert_eq!(harness.kms.in_flight(), 1);
    harness.kms.release();
    until("the refresh", || process.stats().refreshes == 1).await;
    harness.pass(2 * MINUTE).await;
    open_at_once(&process, &context, &sealed);
    assert_eq!(process.stats().misses, misses);
    assert_eq!(harness.kms.calls().unwrap, 1);
}

#[tokio::test]
async fn a_caller_after_the_expiry_joins_the_refresh() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    open_at_once(&process, &context, &sealed);
    harness.pass(59 * MINUTE - MINUTE / 2).await;
    assert_eq!(harness.kms.calls().unwrap, 1);
    // The refreshed key's own refresh.
    open_at_once(&process, &context, &sealed);
    harness.pass(53 * MINUTE).await;
    harness.kms.hold();
    harness.pass_with(6 * MINUTE, || {}).await;
    // Each attempt hangs until its timeout, and one is in flight.
    harness.clock.advance(4 * MINUTE);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (process, context, sealed) = (process.clone(), context.clone(), sealed.clone());
        calls.spawn(async move { open(&process, &context, &sealed).await.map(drop) });
    }
    settle().await;
    assert!(harness.kms.in_flight() <= 1, "{}", harness.kms.in_flight());
    harness.kms.release();
    let outcomes = within(calls.join_all()).await;
    // All had the same outcome.
    assert!(outcomes.iter().all(Result::is_ok) || outcomes.iter().all(Result::is_err));
}

#[tokio::test]
async fn a_refusal_drops_the_key_before_its_time_is_over() {
    let kinds = [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::Configuration,
        KmsErrorKind::Integrity,
        KmsErrorKind::KeyState,
        KmsErrorKind::NotFound,
        KmsErrorKind::Unsupported,
    ];
    for kind in kinds {
        let harness = FaultHarness::new();
        let builder = harness.builder().stale_if_unavailable(HOUR);
        let (process, context) = (harness.built(builder).await, context("a"));
        let sealed = seal(&process, &context).await;
        open_at_once(&process, &context, &sealed);
        harness.pass(53 * MINUTE).await;
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(kind));
        open_at_once(&process, &context, &sealed);
        harness.pass(6 * MINUTE).await;
        assert_eq!(process.stats().keys, 0, "{kind:?}");
        assert_eq!(process.stats().failed_refreshes, 1, "{kind:?}");
        let refused = open(&process, &context, &sealed).await;
        assert!(
            matches!(&refused, Err(Error::Kms(error)) if error.kind() == kind),
            "{refused:?}"
        );
        let refused = within(process.encrypt(&context, "", SSN.row(1))).await;
        assert!(refused.is_err(), "{kind:?}");
        // When the permission is granted again, everything works as before.
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, None);
        open(&process, &context, &sealed).await.unwrap();
    }
}

#[tokio::test]
async fn a_used_up_quota_says_nothing_against_a_key() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(HOUR);
    let (process, context) = (harness.built(builder).await, context("a"));
    let sealed = seal(&process, &context).await;
    open_at_once(&process, &context, &sealed);
    harness.pass(53 * MINUTE).await;
    let quota = Some(KmsErrorKind::LimitExceeded);
    harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, quota);
    harness
        .pass_with(6 * MINUTE, || open_at_once(&process, &context, &sealed))
        .await;
    // But it does not count as unavailable either.
    harness.pass(2 * MINUTE).await;
    assert_eq!(process.stats().keys, 0);
    assert!(open(&process, &context, &sealed).await.is_err());
    assert_eq!(process.stats().stale_key_serves, 0);
}

#[tokio::test]
async fn a_kms_that_does_not_answer_is_asked_again_until_it_does() {
    for kind in [KmsErrorKind::Unavailable, KmsErrorKind::Throttled] {
        let harness = FaultHarness::new();
        // From a time between half an hour and 52 minutes on.
        let process = harness.built(harness.builder().refresh_ahead(0.5)).await;
        let context = context("a");
        let sealed = seal(&process, &context).await;
        let misses = process.stats().misses;
        let request = || open_at_once(&process, &context, &sealed);
        harness.pass_with(29 * MINUTE, request).await;
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(kind));
        harness.pass_with(26 * MINUTE, request).await;
        let tries = harness.kms.calls().unwrap;
        assert!((2..60).contains(&tries), "{tries} tries");
        assert_eq!(
            (process.stats().failed_refreshes, process.stats().refreshes),
            (tries, 0)
        );
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, None);
        // It is still the old key, and the next attempt is about a minute away.
        harness.pass_with(2 * MINUTE, request).await;
        assert_eq!(process.stats().refreshes, 1);
        harness.pass_with(10 * MINUTE, request).await;
        assert_eq!(process.stats().misses, misses);
    }
}

#[tokio::test]
async fn without_an_answer_a_key_serves_to_the_end_of_its_time_and_no_longer() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    let request = || open_at_once(&process, &context, &sealed);
    harness.pass_with(53 * MINUTE, request).await;
    harness.kms.set_unavailable(true);
    harness.pass_with(7 * MINUTE - SECOND, request).await;
    harness.clock.advance(SECOND);
    assert!(matches!(
        keyring.try_decrypt(&sealed, SSN.row(1)),
        Err(Error::NotReady)
    ));
    let failed = open(&process, &context, &sealed).await.unwrap_err();
    assert!(failed.is_retryable(), "{failed:?}");
    until("the sweep", || {
        harness.clock.advance(SECOND);
        process.stats().keys == 0
    })
    .await;
    assert_eq!(process.stats().stale_key_serves, 0);
    harness.kms.set_unavailable(false);
    harness.clock.advance(MINUTE);
    open(&process, &context, &sealed).await.unwrap();
}

#[tokio::test]
async fn an_unused_key_costs_no_call_and_leaves_memory() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(HOUR);
    let (process, idle, once) = (harness.built(builder).await, context("idle"), context("once"));
    seal(&process, &idle).await;
    let sealed = seal(&process, &once).await;
    open_at_once(&process, &once, &sealed);
    harness.pass(HOUR + 10 * SECOND).await;
    // One was used after it was created, and the other was not.
    assert_eq!((process.stats().refreshes, process.stats().keys), (1, 1));
    harness.pass(HOUR).await;
    assert_eq!((process.stats().refreshes, process.stats().keys), (1, 0));
    assert_eq!(harness.kms.calls().unwrap, 1);
}

#[tokio::test]
async fn a_key_that_is_used_late_in_its_life_is_refreshed_too() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    harness.pass(59 * MINUTE).await;
    assert_eq!(harness.kms.calls().unwrap, 0);
    open_at_once(&process, &context, &sealed);
    let misses = process.stats().misses;
    harness.pass(2 * MINUTE).await;
    open_at_once(&process, &context, &sealed);
    assert_eq!(process.stats().misses, misses);
}

#[tokio::test]
async fn old_versions_that_only_decrypt_are_refreshed_by_themselves() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let old = seal(&process, &context).await;
    process.key_manager().rotate(&context).await.unwrap();
    let new = seal(&process, &context).await;
    assert_ne!(old.key_id(), new.key_id());
    let misses = process.stats().misses;
    harness
        .pass_with(2 * HOUR, || open_at_once(&process, &context, &old))
        .await;
    assert_eq!(process.stats().misses, misses);
    // The old one twice, and the new one once after its one use.
    assert_eq!(process.stats().refreshes, 3);
    assert_eq!(process.stats().keys, 1);
    assert_eq!(harness.kms.calls().unwrap, 3);
}

#[tokio::test]
async fn shutdown_stops_refreshes() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    for tenant in 0..20 {
        let context = context(tenant);
        let sealed = seal(&process, &context).await;
        open_at_once(&process, &context, &sealed);
    }
    harness.kms.hold();
    harness.clock.advance(59 * MINUTE);
    within(harness.kms.until_in_flight(16)).await;
    within(process.shutdown()).await;
    assert_eq!(harness.kms.in_flight(), 0);
    let calls = harness.kms.calls().total();
    harness.kms.release();
    harness.pass(2 * HOUR).await;
    assert_eq!(harness.kms.calls().total(), calls);
    assert_eq!(process.stats().keys, 0);
}

#[tokio::test]
async fn a_row_that_was_changed_by_hand_is_read_again_before_a_refresh() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    open_at_once(&process, &context, &sealed);
    harness.pass(53 * MINUTE).await;
    harness.rows.tamper(Vec::clear);
    open_at_once(&process, &context, &sealed);
    harness.pass(6 * MINUTE).await;
    assert_eq!(harness.kms.calls().unwrap, 0);
    assert_eq!(process.stats().keys, 0);
    let refused = open(&process, &context, &sealed).await;
    assert!(matches!(refused, Err(Error::RolledBack { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_wrap_that_was_replaced_since_its_row_was_read_does_not_cost_the_key() {
    let harness = FaultHarness::new();
    harness.kms.create_kek("memory/new");
    // Read once, and trusted for a long time.
    let builder = harness.builder().state_ttl(100 * HOUR).also_unwrap("memory/new");
    let (process, context) = (harness.built(builder).await, context("a"));
    let sealed = seal(&process, &context).await;
    open_at_once(&process, &context, &sealed);
    let elsewhere = encx::Crypto::builder(harness.kms.clone(), harness.rows.clone())
        .kek("memory/new")
        .also_unwrap(MemoryKms::DEFAULT_KEK)
        .clock(harness.clock.clone())
        .build_key_manager()
        .unwrap();
    elsewhere.rewrap(&context).await.unwrap();
    harness.kms.disable_kek(MemoryKms::DEFAULT_KEK);
    harness.pass(59 * MINUTE).await;
    assert_eq!(process.stats().refreshes, 1);
    harness.pass(2 * MINUTE).await;
    open_at_once(&process, &context, &sealed);
}

#[tokio::test]
async fn it_can_be_switched_off_and_is_a_part_of_the_time() {
    let harness = FaultHarness::new();
    let (process, context) = (
        harness.built(harness.builder().refresh_ahead(0.0)).await,
        context("a"),
    );
    let sealed = seal(&process, &context).await;
    harness
        .pass_with(HOUR - SECOND, || open_at_once(&process, &context, &sealed))
        .await;
    harness.pass(10 * SECOND).await;
    assert_eq!(harness.kms.calls().unwrap, 0);
    assert_eq!(process.stats().keys, 0);
    for part in [1.0, -0.1, 0.001, f64::NAN, f64::INFINITY] {
        let built = at_once(harness.builder().refresh_ahead(part).build()).unwrap();
        assert!(matches!(built, Err(Error::Config { .. })), "{part}");
    }
    // Almost the full range is allowed: the key is then refreshed more often.
    let builder = harness.builder().refresh_ahead(0.9);
    let eager = harness.built(builder).await;
    open(&eager, &context, &sealed).await.unwrap();
    let before = harness.kms.calls().unwrap;
    harness
        .pass_with(2 * HOUR, || open_at_once(&eager, &context, &sealed))
        .await;
    assert!(harness.kms.calls().unwrap - before >= 2);
}
