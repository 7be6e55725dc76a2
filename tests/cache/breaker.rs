//! The circuit breaker pauses calls to a KMS that does not answer; a refusal is an answer.

use encx::kms::{KekChoice, KmsErrorKind, KmsName};
use encx::{Crypto, Error};
use encx_test_support::{
    FaultHarness, MINUTE, SECOND, SSN, at_once, context, open, seal, settle, until, within,
};
use encx_testkit::MemoryKms;
use std::time::Duration;
use tokio::task::JoinSet;

/// Encrypts for a new tenant, so that the KMS must be called.
async fn call(process: &Crypto, tenant: impl std::fmt::Display) -> Result<(), Error> {
    let context = context(tenant);
    within(process.encrypt(&context, "", SSN.row(1))).await.map(drop)
}

/// Fails five calls in a row.
async fn break_down(harness: &FaultHarness, process: &Crypto) {
    harness.kms.set_unavailable(true);
    for tenant in 0..5 {
        let failed = call(process, tenant).await;
        assert!(matches!(failed, Err(Error::Kms(_))), "{failed:?}");
    }
    assert_eq!(process.stats().kms_circuit_openings, 1);
}

fn retry_in(outcome: Result<(), Error>) -> Duration {
    let error = outcome.unwrap_err();
    assert!(error.is_retryable());
    match error {
        Error::KmsCircuitOpen { kms, retry_in } => {
            assert_eq!(kms, KmsName::default());
            retry_in
        }
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn after_five_failures_in_a_row_calls_fail_without_a_call() {
    for kind in [KmsErrorKind::Unavailable, KmsErrorKind::Throttled] {
        let harness = FaultHarness::new();
        let process = harness.process().await;
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(kind));
        for tenant in 0..5 {
            assert!(matches!(call(&process, tenant).await, Err(Error::Kms(_))));
        }
        let calls = harness.kms.calls().total();
        for tenant in 0..20 {
            let left = retry_in(call(&process, tenant).await);
            assert!(left > Duration::ZERO && left <= SECOND, "{left:?}");
        }
        assert_eq!(harness.kms.calls().total(), calls);
        let stats = process.stats();
        assert_eq!((stats.kms_calls, stats.kms_circuit_openings), (calls, 1));
    }
}

#[tokio::test]
async fn refusals_are_answers() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let kinds = [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::Integrity,
        KmsErrorKind::LimitExceeded,
    ];
    for kind in kinds {
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(kind));
        for tenant in 0..20 {
            assert!(matches!(call(&process, tenant).await, Err(Error::Kms(_))));
        }
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, None);
    }
    // Four failures, an answer of any kind, and four more are not five in a row.
    for _ in 0..3 {
        harness.kms.fail_next(4, KmsErrorKind::Unavailable);
        harness.kms.fail_next(1, KmsErrorKind::AccessDenied);
        harness.kms.fail_next(4, KmsErrorKind::Throttled);
        for tenant in 0..9 {
            assert!(matches!(call(&process, tenant).await, Err(Error::Kms(_))));
        }
        call(&process, "good").await.unwrap();
        harness.clock.advance(2 * 60 * MINUTE);
        settle().await;
    }
    assert_eq!(process.stats().kms_circuit_openings, 0);
}

#[tokio::test]
async fn one_call_probes_and_its_answer_closes() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    break_down(&harness, &process).await;
    harness.kms.set_unavailable(false);
    harness.clock.advance(SECOND);
    harness.kms.hold();
    let before = harness.kms.calls().total();
    let mut calls = JoinSet::new();
    for tenant in 0..50 {
        let process = process.clone();
        calls.spawn(async move { call(&process, format!("b{tenant}")).await });
    }
    within(harness.kms.until_in_flight(1)).await;
    settle().await;
    assert_eq!(harness.kms.calls().total(), before + 1);
    harness.kms.release();
    let outcomes = within(calls.join_all()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        assert!(retry_in(outcome) > Duration::ZERO);
    }
    for tenant in 0..50 {
        call(&process, format!("b{tenant}")).await.unwrap();
    }
    assert_eq!(process.stats().kms_circuit_openings, 1);
    // The count starts at zero.
    harness.kms.fail_next(4, KmsErrorKind::Unavailable);
    for tenant in 0..4 {
        assert!(matches!(
            call(&process, format!("c{tenant}")).await,
            Err(Error::Kms(_))
        ));
    }
    call(&process, "c").await.unwrap();
}

#[tokio::test]
async fn a_refused_probe_closes_too() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    break_down(&harness, &process).await;
    harness.kms.set_unavailable(false);
    harness.clock.advance(SECOND);
    harness.kms.fail_next(1, KmsErrorKind::AccessDenied);
    assert!(matches!(call(&process, "b").await, Err(Error::Kms(_))));
    call(&process, "b").await.unwrap();
}

#[tokio::test]
async fn pauses_double_up_to_a_bound() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    break_down(&harness, &process).await;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let pause = retry_in(call(&process, "b").await);
        let calls = harness.kms.calls().total();
        harness.clock.advance(pause - Duration::from_millis(1));
        retry_in(call(&process, "b").await);
        assert_eq!(harness.kms.calls().total(), calls);
        harness.clock.advance(Duration::from_millis(1));
        assert!(matches!(call(&process, "b").await, Err(Error::Kms(_))));
        assert_eq!(harness.kms.calls().total(), calls + 1);
        pauses.push(pause.as_secs_f64());
    }
    for (pause, longest) in pauses.iter().zip([1, 2, 4, 8, 16, 30, 30, 30]) {
        let longest = f64::from(longest);
        assert!((0.74 * longest..=longest).contains(pause), "{pauses:?}");
    }
    // One opening, regardless of the number of attempts.
    assert_eq!(process.stats().kms_circuit_openings, 1);
    harness.kms.set_unavailable(false);
    harness.clock.advance(30 * SECOND);
    call(&process, "b").await.unwrap();
    // The next outage starts the count again.
    harness.kms.set_unavailable(true);
    for tenant in 0..5 {
        assert!(matches!(
            call(&process, format!("c{tenant}")).await,
            Err(Error::Kms(_))
        ));
    }
    assert!(retry_in(call(&process, "b2").await) <= SECOND);
    assert_eq!(process.stats().kms_circuit_openings, 2);
}

#[tokio::test]
async fn a_probe_that_is_cancelled_leaves_its_place_to_the_next() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    break_down(&harness, &process).await;
    harness.kms.set_unavailable(false);
    harness.clock.advance(SECOND);
    harness.kms.hold();
    // A key manager's call affects only its caller.
    let manager = process.key_manager();
    let probe = tokio::spawn(async move { manager.rotate(&context("a")).await });
    within(harness.kms.until_in_flight(1)).await;
    retry_in(call(&process, "b").await);
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    harness.kms.release();
    call(&process, "b").await.unwrap();
    open(&process, &context("a"), &sealed).await.unwrap();
}

#[tokio::test]
async fn a_kms_that_hangs_is_unavailable() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.kms.hold();
    let mut calls = JoinSet::new();
    for tenant in 0..5 {
        let process = process.clone();
        calls.spawn(async move { call(&process, tenant).await });
    }
    within(harness.kms.until_in_flight(5)).await;
    harness.clock.advance(30 * SECOND);
    for outcome in within(calls.join_all()).await {
        assert!(matches!(outcome, Err(Error::TimedOut { .. })), "{outcome:?}");
    }
    until("the calls to be dropped", || harness.kms.in_flight() == 0).await;
    settle().await;
    retry_in(call(&process, "b").await);
    // So is one whose probe hangs.
    harness.clock.advance(SECOND);
    let probe = tokio::spawn({
        let process = process.clone();
        async move { call(&process, "b").await }
    });
    within(harness.kms.until_in_flight(1)).await;
    harness.clock.advance(30 * SECOND);
    assert!(within(probe).await.unwrap().is_err());
    settle().await;
    assert!(retry_in(call(&process, "b").await) > SECOND);
    harness.kms.release();
    harness.clock.advance(2 * SECOND);
    call(&process, "b").await.unwrap();
}

#[tokio::test]
async fn a_caller_that_waits_for_a_permit_does_not_call_an_open_circuit() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_concurrent_kms_calls(5)).await;
    harness.kms.hold();
    let mut calls = JoinSet::new();
    for tenant in 0..40 {
        let process = process.clone();
        calls.spawn(async move { call(&process, tenant).await });
    }
    within(harness.kms.until_in_flight(5)).await;
    settle().await;
    harness.kms.set_unavailable(true);
    harness.kms.release();
    let outcomes = within(calls.join_all()).await;
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(harness.kms.calls().total(), 5);
}

#[tokio::test]
async fn each_kms_has_a_breaker_of_its_own() {
    let harness = FaultHarness::new();
    let second = MemoryKms::new().with_kek("memory/second");
    let builder = || {
        let builder = harness.builder().kms_named("second", second.clone());
        builder.kek_rule(|_| {
            let both = KekChoice::new(encx::kms::KekRef::try_from(MemoryKms::DEFAULT_KEK).ok()?);
            Some(both.also_wrap(encx::kms::KekRef::try_from(("second", "memory/second")).ok()?))
        })
    };
    let writer = harness.built(builder()).await;
    let mut sealed = Vec::new();
    for tenant in 0..20 {
        sealed.push(seal(&writer, &context(tenant)).await);
    }
    let process = harness.built(builder()).await;
    harness.kms.set_unavailable(true);
    let (first_before, second_before) = (harness.kms.calls().unwrap, second.calls().unwrap);
    for (tenant, sealed) in sealed.iter().enumerate() {
        open(&process, &context(tenant), sealed).await.unwrap();
    }
    // Five attempts showed that the first does not answer; from then on the second was called at once.
    assert_eq!(harness.kms.calls().unwrap - first_before, 5);
    assert_eq!(second.calls().unwrap - second_before, 20);
    assert_eq!(process.stats().kms_circuit_openings, 1);
    // Without an alternative, the error names the KMS.
    second.set_unavailable(true);
    let reader = process;
    for tenant in 20..30 {
        let failed = call(&reader, tenant).await;
        assert!(failed.unwrap_err().is_retryable());
    }
}

#[tokio::test]
async fn a_key_in_memory_needs_no_kms() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let (a, sealed) = (context("a"), seal(&process, &context("a")).await);
    break_down(&harness, &process).await;
    retry_in(call(&process, "b").await);
    at_once(process.decrypt(&a, &sealed, SSN.row(1)))
        .unwrap()
        .unwrap();
}
