//! `MemoryKms` keeps the contract, and applies the faults that tests set.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use encx::EncryptionContext;
use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{KekId, KeyManagementService, KmsContext, KmsErrorKind};
use encx_testkit::{KmsFixture, ManualClock, MemoryKms, block_on};

struct Fixture(MemoryKms);

impl Fixture {
    fn new() -> Self {
        let kms = MemoryKms::new()
            .with_kek("memory/other")
            .with_alias("alias/app", MemoryKms::DEFAULT_KEK);
        Self(kms)
    }
}

#[async_trait]
impl KmsFixture for Fixture {
    fn kms(&self) -> Arc<dyn KeyManagementService> {
        Arc::new(self.0.clone())
    }

    fn kek(&self) -> KekId {
        kek(MemoryKms::DEFAULT_KEK)
    }

    fn other_kek(&self) -> KekId {
        kek("memory/other")
    }

    fn unknown_kek(&self) -> KekId {
        kek("memory/unknown")
    }

    fn alias(&self) -> Option<KekId> {
        Some(kek("alias/app"))
    }

    async fn disable(&self, kek: &KekId) {
        self.0.disable_kek(kek.as_str());
    }
}

encx_testkit::kms_conformance!(Fixture::new());

fn kek(name: &str) -> KekId {
    KekId::new(name).unwrap()
}

fn context() -> KmsContext {
    let user = EncryptionContext::builder().pair("tenantId", 1).build().unwrap();
    KmsContext::new(&user, KeyUsage::Data, DataKeyId::generate(1, None).unwrap())
}

#[test]
fn what_old_material_wrapped_still_unwraps() {
    block_on(async {
        let (kms, context, default) = (MemoryKms::new(), context(), kek(MemoryKms::DEFAULT_KEK));
        let before = kms.generate_data_key(&default, &context).await.unwrap();
        kms.rotate_kek(MemoryKms::DEFAULT_KEK);
        let after = kms.wrap_key(&default, &before.key, &context).await.unwrap();
        assert_ne!(before.wrapped.kek_material, after.kek_material);
        let described = kms.describe_kek(&default).await.unwrap();
        assert_eq!(described.current_material, after.kek_material);
        for wrapped in [before.wrapped, after] {
            let key = kms.unwrap_key(&wrapped, &context).await.unwrap();
            assert_eq!(key.expose(), before.key.expose());
        }
    });
}

#[test]
fn a_disabled_kek_can_be_enabled_and_a_deleted_one_is_gone() {
    block_on(async {
        let (kms, context, default) = (MemoryKms::new(), context(), kek(MemoryKms::DEFAULT_KEK));
        kms.disable_kek(MemoryKms::DEFAULT_KEK);
        kms.enable_kek(MemoryKms::DEFAULT_KEK);
        let made = kms.generate_data_key(&default, &context).await.unwrap();
        kms.delete_kek(MemoryKms::DEFAULT_KEK);
        let error = kms.unwrap_key(&made.wrapped, &context).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::NotFound);
        assert_eq!(kms.default_kek(), Some(&default));
        assert_eq!(kms.without_default_kek().default_kek(), None);
    });
}

#[test]
fn ordered_faults_come_in_order_and_end() {
    block_on(async {
        let (kms, default) = (MemoryKms::new(), kek(MemoryKms::DEFAULT_KEK));
        kms.fail_next(1, KmsErrorKind::Throttled);
        kms.fail_next(2, KmsErrorKind::AccessDenied);
        for kind in [
            Some(KmsErrorKind::Throttled),
            Some(KmsErrorKind::AccessDenied),
            Some(KmsErrorKind::AccessDenied),
            None,
        ] {
            let result = kms.describe_kek(&default).await;
            assert_eq!(result.err().map(|error| error.kind()), kind);
        }
        kms.set_unavailable(true);
        let error = kms.describe_kek(&default).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable);
        assert!(error.is_retryable());
        kms.set_unavailable(false);
        kms.set_kek_fault(MemoryKms::DEFAULT_KEK, Some(KmsErrorKind::AccessDenied));
        let error = kms.describe_kek(&default).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::AccessDenied);
        kms.set_kek_fault(MemoryKms::DEFAULT_KEK, None);
        kms.describe_kek(&default).await.unwrap();
        assert_eq!(kms.calls().describe, 7);
        assert_eq!(kms.calls().total(), 7);
    });
}

#[test]
fn held_calls_stay_in_flight_until_released_or_cancelled() {
    block_on(async {
        let (kms, default) = (MemoryKms::new(), kek(MemoryKms::DEFAULT_KEK));
        kms.hold();
        let call = || {
            let (kms, default, context) = (kms.clone(), default.clone(), context());
            tokio::spawn(async move { kms.generate_data_key(&default, &context).await.map(drop) })
        };
        let (first, second, cancelled) = (call(), call(), call());
        kms.until_in_flight(3).await;
        assert_eq!(kms.calls().generate, 3);
        cancelled.abort();
        kms.until_in_flight(2).await;
        kms.fail_next(1, KmsErrorKind::Throttled);
        kms.release();
        let results = [first.await.unwrap(), second.await.unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!((kms.in_flight(), kms.max_in_flight()), (0, 3));
        kms.reset_calls();
        assert_eq!((kms.calls().total(), kms.max_in_flight()), (0, 0));
    });
}

#[test]
fn latency_passes_on_the_tests_clock() {
    block_on(async {
        let clock = ManualClock::new();
        let kms = MemoryKms::new().with_latency(clock.clone(), Duration::from_secs(60));
        let call = {
            let kms = kms.clone();
            tokio::spawn(async move { kms.describe_kek(&kek(MemoryKms::DEFAULT_KEK)).await })
        };
        kms.until_in_flight(1).await;
        assert!(!call.is_finished());
        // The call may not have read the clock yet, so one step may not be enough.
        while !call.is_finished() {
            clock.advance(Duration::from_secs(60));
            tokio::task::yield_now().await;
        }
        call.await.unwrap().unwrap();
    });
}
