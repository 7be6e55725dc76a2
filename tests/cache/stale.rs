//! Behavior while the KMS does not answer, if the builder lets keys serve past their `ttl`.

use encx::kms::KmsErrorKind;
use encx::{Ciphertext, Crypto, CryptoBuilder, EncryptionContext, Error};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open, open_at_once, seal, seal_at_once, settle, until,
    within,
};
use encx_testkit::MemoryKms;

/// A process that has used one key, and whose KMS became unavailable half an hour later.
async fn cut_off(harness: &FaultHarness, builder: CryptoBuilder) -> (Crypto, EncryptionContext, Ciphertext) {
    let (process, context) = (harness.built(builder).await, context("a"));
    let sealed = seal(&process, &context).await;
    open_at_once(&process, &context, &sealed);
    harness.pass(HOUR / 2).await;
    harness.kms.set_unavailable(true);
    (process, context, sealed)
}

fn assert_unavailable<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.unwrap_err();
    let is_right = matches!(error, Error::Kms(_) | Error::KmsCircuitOpen { .. });
    assert!(is_right && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn nothing_serves_past_its_time_unless_that_is_allowed() {
    let harness = FaultHarness::new();
    let (process, context, sealed) = cut_off(&harness, harness.builder()).await;
    harness
        .pass_with(HOUR / 2 - SECOND, || open_at_once(&process, &context, &sealed))
        .await;
    harness.clock.advance(SECOND);
    assert_unavailable(open(&process, &context, &sealed).await);
    harness.pass(10 * SECOND).await;
    assert_eq!((process.stats().keys, process.stats().stale_key_serves), (0, 0));
}

#[tokio::test]
async fn during_an_outage_that_is_tolerable_nothing_fails_until_its_limit() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(2 * HOUR);
    let (process, context, sealed) = cut_off(&harness, builder).await;
    let misses = process.stats().misses;
    let request = || {
        open_at_once(&process, &context, &sealed);
        seal_at_once(&process, &context);
    };
    harness.pass_with(HOUR / 2 - SECOND, request).await;
    assert_eq!(process.stats().stale_key_serves, 0);
    let asked = harness.kms.calls().unwrap;
    assert!(asked > 0);
    harness.pass_with(2 * HOUR, request).await;
    // No call waited, every use is counted, and the KMS was not flooded.
    let stats = process.stats();
    assert_eq!(stats.misses, misses);
    assert!(stats.stale_key_serves >= 2 * 2 * 360, "{stats:?}");
    assert!(harness.kms.calls().unwrap - asked <= 2 * 60 * 2, "{stats:?}");
    assert!(stats.failed_refreshes > 10, "{stats:?}");
    let served = stats.stale_key_serves;

    harness.clock.advance(SECOND);
    let keyring = process.keyring(&context).await;
    assert_unavailable(keyring);
    assert_unavailable(open(&process, &context, &sealed).await);
    assert_unavailable(within(process.encrypt(&context, "", SSN.row(1))).await);
    harness.pass(10 * SECOND).await;
    assert_eq!(process.stats().keys, 0);
    assert_eq!(process.stats().stale_key_serves, served);

    harness.kms.set_unavailable(false);
    harness.pass(MINUTE).await;
    open(&process, &context, &sealed).await.unwrap();
}

#[tokio::test]
async fn decryption_and_encryption_have_limits_of_their_own() {
    for encrypt in [true, false] {
        let harness = FaultHarness::new();
        let builder = harness.builder();
        let builder = if encrypt {
            builder.stale_encrypt_if_unavailable(HOUR)
        } else {
            builder
                .stale_decrypt_if_unavailable(HOUR)
                .stale_encrypt_if_unavailable(MINUTE)
        };
        let (process, context, sealed) = cut_off(&harness, builder).await;
        let keyring = process.keyring(&context).await.unwrap();
        harness.pass(HOUR / 2 + MINUTE).await;
        let misses = process.stats().misses;
        harness
            .pass_with(HOUR - MINUTE - SECOND, || {
                if encrypt {
                    seal_at_once(&process, &context);
                    assert!(keyring.try_decrypt(&sealed, SSN.row(1)).is_err());
                } else {
                    open_at_once(&process, &context, &sealed);
                    assert!(keyring.try_encrypt("", SSN.row(1)).is_err());
                }
            })
            .await;
        assert_eq!(process.stats().misses, misses);
        if encrypt {
            assert_unavailable(open(&process, &context, &sealed).await);
        } else {
            assert_unavailable(within(process.encrypt(&context, "", SSN.row(1))).await);
        }
        harness.pass(SECOND).await;
        harness.pass(10 * SECOND).await;
        assert_eq!(process.stats().keys, 0);
    }
}

#[tokio::test]
async fn no_caller_is_served_before_the_kms_was_asked() {
    let harness = FaultHarness::new();
    // States never expire here: only the key's own time matters.
    let builder = harness.builder().state_ttl(100 * HOUR);
    let builder = builder.refresh_ahead(0.0).stale_if_unavailable(HOUR);
    let (process, context) = (harness.built(builder).await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    open_at_once(&process, &context, &sealed);
    // Past its `ttl` in one jump, so that no refresh was possible.
    harness.kms.set_unavailable(true);
    harness.clock.advance(HOUR + SECOND);
    assert!(matches!(
        keyring.try_decrypt(&sealed, SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert_eq!(
        (harness.kms.calls().unwrap, process.stats().stale_key_serves),
        (0, 0)
    );
    open(&process, &context, &sealed).await.unwrap();
    assert!(harness.kms.calls().unwrap > 0);
    assert_eq!(process.stats().stale_key_serves, 1);
    let asked = harness.kms.calls().unwrap;
    for _ in 0..100 {
        open_at_once(&process, &context, &sealed);
    }
    assert_eq!(process.stats().stale_key_serves, 101);
    assert_eq!(harness.kms.calls().unwrap, asked);
}

#[tokio::test]
async fn a_kms_that_answers_lets_no_key_serve_past_its_time() {
    let harness = FaultHarness::new();
    // States never expire here: only the key's own time matters.
    let builder = harness.builder().state_ttl(100 * HOUR);
    let builder = builder.refresh_ahead(0.0).stale_if_unavailable(HOUR);
    let (process, context) = (harness.built(builder).await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    open_at_once(&process, &context, &sealed);
    harness.clock.advance(HOUR);
    assert!(matches!(
        keyring.try_encrypt("", SSN.row(1)),
        Err(Error::NotReady)
    ));
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(harness.kms.calls().unwrap, 1);
    assert_eq!(process.stats().stale_key_serves, 0);
}

#[tokio::test]
async fn no_request_waits_for_a_kms_that_is_known_to_hang() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(2 * HOUR);
    let (process, context, sealed) = cut_off(&harness, builder).await;
    harness.kms.set_unavailable(false);
    harness.kms.hold();
    let misses = process.stats().misses;
    let request = || open_at_once(&process, &context, &sealed);
    harness.pass_with(HOUR + 29 * MINUTE, request).await;
    assert_eq!(process.stats().misses, misses);
    assert!(process.stats().stale_key_serves > 300);
    // The KMS is also known to hang if every attempt ended by a load's timeout.
    assert_eq!(process.stats().kms_circuit_openings, 1);
    harness.kms.release();
    harness.pass(4 * MINUTE).await;
    assert_eq!(process.stats().refreshes, 1);
}

#[tokio::test]
async fn a_refusal_ends_it_at_once() {
    let kinds = [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::Integrity,
        KmsErrorKind::KeyState,
        KmsErrorKind::NotFound,
    ];
    for kind in kinds {
        let harness = FaultHarness::new();
        let builder = harness.builder().stale_if_unavailable(2 * HOUR);
        let (process, context, sealed) = cut_off(&harness, builder).await;
        let request = || open_at_once(&process, &context, &sealed);
        harness.pass_with(HOUR, request).await;
        assert!(process.stats().stale_key_serves > 0);
        harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(kind));
        harness.kms.set_unavailable(false);
        // The next background attempt, for a key or for the whole KMS.
        harness.pass(2 * MINUTE).await;
        assert_eq!(process.stats().keys, 0, "{kind:?}");
        let refused = open(&process, &context, &sealed).await;
        assert!(
            matches!(&refused, Err(Error::Kms(error)) if error.kind() == kind),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_that_a_request_gets_ends_it_too() {
    let harness = FaultHarness::new();
    let builder = harness
        .builder()
        .stale_decrypt_if_unavailable(2 * HOUR)
        .stale_encrypt_if_unavailable(MINUTE);
    let (process, context, sealed) = cut_off(&harness, builder).await;
    harness.pass(HOUR).await;
    open_at_once(&process, &context, &sealed);
    assert_eq!(process.stats().keys, 1);
    let denied = Some(KmsErrorKind::AccessDenied);
    harness.kms.set_kek_fault(MemoryKms::DEFAULT_KEK, denied);
    harness.kms.set_unavailable(false);
    // Long enough for the breaker's pause. Nothing else runs before the request, which may no longer encrypt without a
    // KMS call.
    harness.clock.advance(31 * SECOND);
    let refused = within(process.encrypt(&context, "", SSN.row(1))).await;
    assert!(
        matches!(&refused, Err(Error::Kms(error)) if error.kind() == KmsErrorKind::AccessDenied),
        "{refused:?}"
    );
    assert_eq!(process.stats().keys, 0);
    let refused = open(&process, &context, &sealed).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn when_the_kms_comes_back_keys_are_refreshed_in_the_background() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(5 * HOUR);
    let (process, context, sealed) = cut_off(&harness, builder).await;
    let misses = process.stats().misses;
    let request = || open_at_once(&process, &context, &sealed);
    harness.pass_with(2 * HOUR, request).await;
    harness.kms.set_unavailable(false);
    harness.pass_with(2 * MINUTE, request).await;
    let stats = process.stats();
    assert_eq!((stats.refreshes, stats.keys), (1, 1));
    // Back to normal operation.
    harness.pass_with(HOUR / 2, request).await;
    let after = process.stats();
    assert_eq!(after.stale_key_serves, stats.stale_key_serves);
    assert_eq!(after.misses, misses);
    assert_eq!(after.refreshes, 1);
}

#[tokio::test]
async fn a_suspended_key_is_dropped_whether_the_kms_answers_or_not() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(5 * HOUR);
    let (process, context, sealed) = cut_off(&harness, builder).await;
    let request = || open_at_once(&process, &context, &sealed);
    harness.pass_with(HOUR, request).await;
    harness.kms.set_unavailable(false);
    harness.suspend_elsewhere(&context).await;
    harness.kms.set_unavailable(true);
    harness.next_poll().await;
    let refused = open(&process, &context, &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    assert_eq!(process.stats().keys, 0);
}

#[tokio::test]
async fn what_the_key_store_cannot_confirm_does_not_serve_longer_for_it() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(5 * HOUR);
    let (process, context, sealed) = cut_off(&harness, builder).await;
    harness.store.set_down(true);
    let request = || open_at_once(&process, &context, &sealed);
    // States that were read a `ttl` ago are not trusted, even if the key may still serve.
    harness.pass_with(HOUR - MINUTE, request).await;
    assert!(process.stats().stale_key_serves > 0 && process.stats().stale_serves > 0);
    harness.pass(2 * MINUTE).await;
    let failed = open(&process, &context, &sealed).await.unwrap_err();
    assert!(matches!(failed, Error::Store(_)), "{failed:?}");
    harness.store.set_down(false);
    harness.pass(MINUTE).await;
    open(&process, &context, &sealed).await.unwrap();
}

#[tokio::test]
async fn an_unused_key_stays_only_while_the_kms_is_known_not_to_answer() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(5 * HOUR);
    let process = harness.built(builder).await;
    let (busy, idle) = (context("busy"), context("idle"));
    let (of_busy, of_idle) = (seal(&process, &busy).await, seal(&process, &idle).await);
    harness.kms.set_unavailable(true);
    let request = || open_at_once(&process, &busy, &of_busy);
    harness.pass_with(2 * HOUR, request).await;
    // The idle key's next request is served like the others.
    assert_eq!(process.stats().keys, 2);
    let calls = harness.kms.calls().unwrap;
    open(&process, &idle, &of_idle).await.unwrap();
    assert!(harness.kms.calls().unwrap <= calls + 1);
    open_at_once(&process, &idle, &of_idle);

    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(5 * HOUR);
    let process = harness.built(builder).await;
    let of_busy = seal(&process, &busy).await;
    seal(&process, &idle).await;
    harness.kms.set_unavailable(true);
    let request = || open_at_once(&process, &busy, &of_busy);
    harness.pass_with(2 * HOUR, request).await;
    assert_eq!(process.stats().keys, 2);
    // It was unused in all that time, and the KMS answers again.
    harness.kms.set_unavailable(false);
    harness.pass_with(4 * MINUTE, request).await;
    assert_eq!(process.stats().keys, 1);
    assert_eq!(harness.kms.calls().unwrap - process.stats().failed_refreshes, 1);
}

#[tokio::test]
async fn an_outage_costs_the_key_store_no_query_for_each_key_and_try() {
    let harness = FaultHarness::new();
    let builder = harness.builder().stale_if_unavailable(5 * HOUR);
    let process = harness.built(builder).await;
    let mut tenants = Vec::new();
    for tenant in 0..50 {
        let context = context(tenant);
        let sealed = seal(&process, &context).await;
        open_at_once(&process, &context, &sealed);
        tenants.push((context, sealed));
    }
    harness.kms.set_unavailable(true);
    harness.pass(HOUR + MINUTE).await;
    let loads = harness.rows.loads();
    let calls = harness.kms.calls().unwrap;
    harness.pass(HOUR).await;
    assert!(
        harness.kms.calls().unwrap - calls < 300,
        "{:?}",
        harness.kms.calls()
    );
    assert!(
        harness.rows.loads() - loads < 300,
        "{}",
        harness.rows.loads() - loads
    );
    for (context, sealed) in &tenants {
        open_at_once(&process, context, sealed);
    }
    harness.kms.set_unavailable(false);
    harness.pass(3 * MINUTE).await;
    until("all to be refreshed", || process.stats().refreshes == 50).await;
    settle().await;
    assert_eq!(process.stats().keys, 50);
}
