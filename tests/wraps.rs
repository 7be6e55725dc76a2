//! Several wraps of one key: created while a KMS is down, reported, and completed later.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use encx::kms::{KekChoice, KekId, KekRef, KmsErrorKind, KmsName};
use encx::store::KeyRecord;
use encx::{Crypto, EncryptionContext, Error};
use encx_test_support::{SSN, context};
use encx_testkit::{Harness, MemoryKeyStore, MemoryKms};

const HERE: &str = "memory/default";
const THERE: &str = "memory/there";

fn there() -> KekRef {
    KekRef::new(KmsName::new("there").unwrap(), KekId::new(THERE).unwrap())
}

/// A harness with a second KMS. The KEKs of both wrap every key.
struct TwoKms {
    harness: Harness,
    there: MemoryKms,
}

impl TwoKms {
    async fn new() -> Self {
        let there_kms = MemoryKms::new().with_kek(THERE);
        let choice = KekChoice::new(KekRef::try_from(HERE).unwrap()).also_wrap(there());
        let there = there_kms.clone();
        let harness = Harness::with(move |settings| {
            let choice = choice.clone();
            settings
                .kms_named("there", there_kms.clone())
                .kek_rule(move |_| Some(choice.clone()))
        });
        Self {
            harness: harness.await,
            there,
        }
    }

    fn here(&self) -> &MemoryKms {
        self.harness.kms()
    }

    fn store(&self) -> &MemoryKeyStore {
        self.harness.store()
    }

    async fn crypto(&self) -> Crypto {
        self.harness.process().await
    }

    fn reset_calls(&self) {
        self.here().reset_calls();
        self.there.reset_calls();
    }

    fn calls(&self) -> (u64, u64) {
        (self.here().calls().total(), self.there.calls().total())
    }
}

fn keks(record: &KeyRecord) -> Vec<&str> {
    record
        .wraps
        .iter()
        .map(|wrap| wrap.wrapped.kek.as_str())
        .collect()
}

#[tokio::test]
async fn a_key_gets_one_wrap_under_each_kek() {
    let both = TwoKms::new().await;
    let crypto = both.crypto().await;
    both.reset_calls();
    let manager = crypto.key_manager();
    let made = manager.create(&context("a")).await.unwrap();
    assert_eq!(keks(&made), [HERE, THERE]);
    assert_eq!(both.calls(), (1, 1));
    assert_eq!(manager.missing_wraps(&made).await.unwrap(), []);
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.completed.len()), (1, 0));
}

#[tokio::test]
async fn a_second_kms_that_is_down_delays_no_key_and_is_made_up_for() {
    let both = TwoKms::new().await;
    let crypto = both.crypto().await;
    let manager = crypto.key_manager();
    let whole = manager.create(&context("whole")).await.unwrap();
    both.there.set_unavailable(true);
    let made = manager.create(&context("a")).await.unwrap();
    assert_eq!(keks(&made), [HERE]);
    assert_eq!(manager.missing_wraps(&made).await.unwrap(), [there()]);
    // A key created on first use behaves the same.
    let sealed = crypto.encrypt(&context("b"), "x", SSN.row(1)).await.unwrap();

    // Still down: reported for each, but called only a few times.
    for _ in 0..5 {
        let tenant = format!("tenant-{}", both.store().records().len());
        manager.create(&context(&tenant)).await.unwrap();
    }
    both.reset_calls();
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.completed.len()), (1, 0));
    assert_eq!(report.failed.len(), 7);
    assert!(report.failed.iter().all(|failed| failed.error.is_retryable()));
    assert!(both.calls().1 <= 3, "it went on asking: {:?}", both.calls());

    both.there.set_unavailable(false);
    // A job in another process, which has not noticed the outage.
    let manager = both.crypto().await.key_manager();
    assert_eq!(manager.missing_wraps(&made).await.unwrap(), [there()]);
    both.reset_calls();
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.completed.len()), (1, 7));
    assert!(report.failed.is_empty());
    // Per key without a wrap, one call to unwrap it and one to wrap it.
    assert_eq!(both.calls(), (7, 7));
    for record in both.store().records() {
        assert_eq!(keks(&record), [HERE, THERE]);
        assert_eq!(manager.missing_wraps(&record).await.unwrap(), []);
    }
    let again = manager.complete_wraps().await.unwrap();
    assert_eq!((again.already_complete, again.completed.len()), (8, 0));
    assert_eq!(
        whole.wraps,
        manager.list(&context("whole")).await.unwrap()[0].wraps
    );

    // The other wrap alone is enough.
    both.here().set_unavailable(true);
    let opened = both
        .crypto()
        .await
        .decrypt(&context("b"), &sealed, SSN.row(1))
        .await;
    assert_eq!(opened.unwrap().as_bytes(), b"x");
}

#[tokio::test]
async fn if_the_first_kms_is_down_the_next_makes_the_key() {
    let both = TwoKms::new().await;
    let crypto = both.crypto().await;
    let manager = crypto.key_manager();
    manager.create(&context("a")).await.unwrap();
    both.here().set_unavailable(true);
    let made = manager.create(&context("b")).await.unwrap();
    assert_eq!(keks(&made), [THERE]);
    let rotated = manager.rotate(&context("b")).await.unwrap();
    assert_eq!(keks(&rotated), [THERE]);
    both.here().set_unavailable(false);
    assert_eq!(
        manager.missing_wraps(&rotated).await.unwrap(),
        [KekRef::try_from(HERE).unwrap()]
    );
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.completed.len()), (1, 2));
}

#[tokio::test]
async fn without_any_kms_there_is_no_key() {
    let both = TwoKms::new().await;
    let manager = both.crypto().await.key_manager();
    both.here().set_unavailable(true);
    both.there.set_unavailable(true);
    let error = manager.create(&context("a")).await.unwrap_err();
    assert!(
        matches!(&error, Error::Kms(error) if error.kek().as_str() == HERE),
        "{error}"
    );
    assert!(error.is_retryable());
    assert!(both.store().records().is_empty());
}

#[tokio::test]
async fn only_unavailability_is_passed_over() {
    for kind in [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::Configuration,
        KmsErrorKind::KeyState,
        KmsErrorKind::NotFound,
    ] {
        for first in [true, false] {
            let both = TwoKms::new().await;
            let manager = both.crypto().await.key_manager();
            let (kms, kek) = if first {
                (both.here(), HERE)
            } else {
                (&both.there, THERE)
            };
            kms.set_kek_fault(kek, Some(kind));
            let error = manager.create(&context("a")).await.unwrap_err();
            assert!(
                matches!(&error, Error::Kms(error) if error.kind() == kind),
                "{error}"
            );
            assert!(both.store().records().is_empty());
        }
    }
}

#[tokio::test]
async fn a_failure_of_one_version_stands_in_the_report_alone() {
    let both = TwoKms::new().await;
    let manager = both.crypto().await.key_manager();
    both.there.set_unavailable(true);
    let damaged = manager.create(&context("damaged")).await.unwrap();
    let sound = manager.create(&context("sound")).await.unwrap();
    both.there.set_unavailable(false);
    both.store().tamper(|records| {
        let record = records.iter_mut().find(|record| record.id == damaged.id);
        record.unwrap().wraps[0].wrapped.ciphertext[40] ^= 1;
    });
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!(report.completed, [sound.id]);
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].id, damaged.id);
    let error = &report.failed[0].error;
    assert!(
        matches!(error, Error::Kms(error) if error.kind() == KmsErrorKind::Integrity),
        "{error}"
    );
}

#[tokio::test]
async fn what_has_all_wraps_is_told_apart_while_a_kms_is_down() {
    let both = TwoKms::new().await;
    let manager = both.crypto().await.key_manager();
    both.there.set_unavailable(true);
    for tenant in ["a", "b", "c", "d", "e"] {
        manager.create(&context(tenant)).await.unwrap();
    }
    both.there.set_unavailable(false);
    let manager = both.crypto().await.key_manager();
    for tenant in ["x", "y", "z"] {
        let whole = manager.create(&context(tenant)).await.unwrap();
        assert_eq!(keks(&whole), [HERE, THERE]);
    }
    both.there.set_unavailable(true);
    // Those that lack a wrap come first, so that the KEK is given up before the complete ones are checked.
    let report = manager.complete_wraps().await.unwrap();
    assert_eq!((report.already_complete, report.completed.len()), (3, 0));
    assert_eq!(report.failed.len(), 5);
}

#[tokio::test]
async fn a_source_that_is_down_stops_only_what_it_holds() {
    let (both, old) = (TwoKms::new().await, MemoryKms::new().with_kek("memory/old"));
    let build = |wraps_both: bool| {
        let rule = move |context: &EncryptionContext| {
            let of_old = context.pairs().any(|(_, value)| value.starts_with("old"));
            let first = if of_old {
                KekRef::try_from(("old", "memory/old")).unwrap()
            } else {
                KekRef::try_from(HERE).unwrap()
            };
            let choice = KekChoice::new(first);
            Some(if wraps_both {
                choice.also_wrap(there())
            } else {
                choice
            })
        };
        Crypto::builder(both.here().clone(), both.store().clone())
            .kms_named("there", both.there.clone())
            .kms_named("old", old.clone())
            .kek_rule(rule)
            .build()
    };
    let manager = build(false).await.unwrap().key_manager();
    for tenant in ["old-1", "old-2", "old-3", "old-4", "old-5", "a", "b"] {
        manager.create(&context(tenant)).await.unwrap();
    }
    old.set_unavailable(true);
    let report = build(true)
        .await
        .unwrap()
        .key_manager()
        .complete_wraps()
        .await
        .unwrap();
    assert_eq!((report.completed.len(), report.failed.len()), (2, 5));
    assert!(report.failed.iter().all(|failed| failed.error.is_retryable()));
}

#[tokio::test]
async fn two_that_complete_at_once_both_find_it_done() {
    let both = TwoKms::new().await;
    let manager = both.crypto().await.key_manager();
    both.there.set_unavailable(true);
    let made = manager.create(&context("a")).await.unwrap();
    both.there.set_unavailable(false);
    let (one, other) = (
        both.crypto().await.key_manager(),
        both.crypto().await.key_manager(),
    );
    for manager in [&one, &other] {
        assert_eq!(manager.missing_wraps(&made).await.unwrap(), [there()]);
    }
    // Both have read the version, and are wrapping it.
    both.there.hold();
    let release = async {
        both.there.until_in_flight(2).await;
        both.there.release();
    };
    let (one, other, ()) = tokio::join!(one.complete_wraps(), other.complete_wraps(), release);
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(
        one.failed.is_empty() && other.failed.is_empty(),
        "{one:?} {other:?}"
    );
    assert_eq!(one.completed.len() + other.completed.len(), 1);
    assert_eq!(one.already_complete + other.already_complete, 1);
    assert_eq!(keks(&both.store().records()[0]), [HERE, THERE]);
}

#[tokio::test]
async fn a_check_opens_every_wrap_and_not_the_first_alone() {
    let both = TwoKms::new().await;
    let crypto = both.crypto().await;
    let manager = crypto.key_manager();
    let made = manager.create(&context("a")).await.unwrap();
    both.reset_calls();
    manager.check_version(&made).await.unwrap();
    assert_eq!(both.calls(), (1, 1));

    // The second wrap is that of another key: the first opens still.
    let other = manager.create(&context("b")).await.unwrap();
    let mut edited = made.clone();
    edited.wraps[1] = other.wraps[1].clone();
    let error = manager.check_version(&edited).await.unwrap_err();
    assert!(
        matches!(&error, Error::Kms(error) if error.kind() == KmsErrorKind::Integrity),
        "{error}"
    );
    // A KMS that is down says less than a wrap that is wrong.
    both.here().set_unavailable(true);
    let error = manager.check_version(&edited).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(manager.check_version(&made).await.unwrap_err().is_retryable());
    both.here().set_unavailable(false);
}

#[tokio::test]
async fn a_check_tells_what_is_wrong_with_a_row() {
    let both = TwoKms::new().await;
    let manager = both.crypto().await.key_manager();
    let made = manager.create(&context("a")).await.unwrap();
    let other = manager.create(&context("b")).await.unwrap();

    let mut edited = made.clone();
    edited.key_check = other.key_check;
    let refused = manager.check_version(&edited).await;
    assert!(
        matches!(refused, Err(Error::KeyMismatch { id }) if id == made.id),
        "{refused:?}"
    );

    let mut edited = made.clone();
    edited.context.clone_from(&other.context);
    let refused = manager.check_version(&edited).await;
    assert!(
        matches!(
            refused,
            Err(Error::Store(encx::store::StoreError::Corrupt { .. }))
        ),
        "{refused:?}"
    );

    let mut edited = made.clone();
    edited.wraps.clear();
    let refused = manager.check_version(&edited).await;
    assert!(matches!(refused, Err(Error::RolledBack { .. })), "{refused:?}");

    let mut edited = made.clone();
    for wrap in &mut edited.wraps {
        wrap.wrapped.kek = KekId::new("memory/unknown").unwrap();
    }
    let refused = manager.check_version(&edited).await;
    assert!(matches!(refused, Err(Error::KekNotAllowed { .. })), "{refused:?}");

    // In every state but one.
    manager.rotate(&context("a")).await.unwrap();
    let versions = manager.list(&context("a")).await.unwrap();
    for version in &versions {
        manager.check_version(version).await.unwrap();
    }
    let _ = manager
        .shred(&context("b"), std::time::Duration::ZERO)
        .await
        .unwrap();
    let gone = manager.list(&context("b")).await.unwrap();
    let refused = manager.check_version(&gone[0]).await;
    assert!(matches!(refused, Err(Error::Destroyed { .. })), "{refused:?}");
}
