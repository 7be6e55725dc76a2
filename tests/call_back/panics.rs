//! A subscriber that panics leaves no inconsistent state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Waker};

use encx::search::IndexField;
use encx_test_support::{FaultHarness, HOUR, MINUTE, SSN, context, seal};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::scenes::pass_with;
use super::{block_on, within_deadline};

const EMAIL: IndexField = IndexField::new("users", "email", 64);

struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["encx::refused", "encx::cache"].contains(&metadata.target())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // Events that end a call, not those of calls below it: of a refusal, and of a key that serves past its `ttl`.
        let names: Vec<_> = event
            .metadata()
            .fields()
            .iter()
            .map(|field| field.name())
            .collect();
        let ends_a_call = names.contains(&"refusal") || names == ["message", "key"];
        assert!(!ends_a_call, "a subscriber's own fault");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_buffer_that_is_refused_is_wiped_before_a_subscriber_hears_of_it() {
    within_deadline(|| {
        let harness = FaultHarness::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let (keyring, sealed) = runtime.block_on(async {
            let process = harness.process().await;
            let sealed = seal(&process, &context("a")).await;
            (process.keyring(&context("a")).await.unwrap(), sealed)
        });
        // A suite that is refused before the buffer is touched.
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[1] = 2;
        let (of_future, of_try) = (&mut bytes.clone(), &mut bytes);
        // Two dispatchers: `tracing` assumes that a single one applies to all threads, and threads of other tests have
        // none.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        tracing::subscriber::with_default(Panicking, || {
            let waited = AssertUnwindSafe(|| block_on(keyring.decrypt_in_place(of_future, SSN.row(1))));
            catch_unwind(waited).unwrap_err();
            let tried = AssertUnwindSafe(|| keyring.try_decrypt_in_place(of_try, SSN.row(1)));
            catch_unwind(tried).unwrap_err();
        });
        assert!(of_future.is_empty() && of_try.is_empty());
    });
}

/// If a function ends by a panic in its last drop, its return value is never dropped.
#[test]
fn a_key_that_a_call_returns_is_let_go_of_if_a_subscriber_panics() {
    within_deadline(|| {
        block_on(async {
            let harness = FaultHarness::new();
            let process = harness
                .built(harness.builder().stale_if_unavailable(24 * HOUR))
                .await;
            process.blind_index(&context("a"), &EMAIL, "x").await.unwrap();
            assert_eq!(process.stats().keys, 1);
            harness.kms.set_unavailable(true);
            let mut panics = 0;
            let request = || {
                let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
                tracing::subscriber::with_default(Panicking, || {
                    let of = context("a");
                    let mut call = pin!(process.blind_index(&of, &EMAIL, "x"));
                    let poll = || call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    panics += usize::from(catch_unwind(AssertUnwindSafe(poll)).is_err());
                });
            };
            pass_with(&harness, HOUR + 5 * MINUTE, request).await;
            assert_eq!(panics, 1, "the key served past its time, which is told once");
            process.shutdown().await;
            assert_eq!(process.stats().keys, 0);
        });
    });
}
