//! A subscriber that panics finds nothing left undone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::support::{SSN, World, context, seal};
use super::{block_on, within_deadline};

struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "encx::refused"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // The one that ends a refused call, and not those of what it called.
        let ends_a_call = event.metadata().fields().field("refusal").is_some();
        assert!(!ends_a_call, "a subscriber's own fault");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_buffer_that_is_refused_is_wiped_before_a_subscriber_hears_of_it() {
    within_deadline(|| {
        let world = World::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let (keyring, sealed) = runtime.block_on(async {
            let process = world.process().await;
            let sealed = seal(&process, &context("a")).await;
            (process.keyring(&context("a")).await.unwrap(), sealed)
        });
        // Of a suite that is refused before the buffer is touched.
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[1] = 2;
        let (of_future, of_try) = (&mut bytes.clone(), &mut bytes);
        // Two dispatchers: of a single one `tracing` takes it that all threads have it, and threads of other tests have none.
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
