//! The entries that a thread remembers: they never stand in for others, and calls work without them.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread;

use encx::{Ciphertext, Crypto, EncryptionContext, Error, Plaintext};
use encx_test_support::{HarnessExt, SSN, context};
use encx_testkit::Harness;
use tracing::span;

/// Completes a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the key is not hot"),
    }
}

fn round_trip(crypto: &Crypto, context: &EncryptionContext) -> Ciphertext {
    let sealed = ready(crypto.encrypt(context, "secret", SSN.row(1))).unwrap();
    let opened: Plaintext = ready(crypto.decrypt(context, &sealed, SSN.row(1))).unwrap();
    assert_eq!(opened.as_bytes(), b"secret");
    sealed
}

#[tokio::test]
async fn two_cryptos_in_one_thread_are_two() {
    let harnesses = [Harness::new().await, Harness::new().await];
    let cryptos = [harnesses[0].process().await, harnesses[1].process().await];
    let context = context("a");
    for crypto in &cryptos {
        crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    }
    let ids = [0, 1].map(|of| harnesses[of].store().records()[0].id);
    for round in 0..20 {
        let of = round / 3 % 2;
        let sealed = round_trip(&cryptos[of], &context);
        assert_eq!(sealed.key_id(), ids[of]);
        let other = cryptos[1 - of].decrypt(&context, &sealed, SSN.row(1)).await;
        assert!(matches!(other, Err(Error::UnknownKey { .. })));
    }
    // A dropped `Crypto` serves no call, although the thread remembers its entries.
    let [gone, stays] = cryptos;
    gone.shutdown().await;
    let refused = gone.encrypt(&context, "x", SSN.row(1)).await;
    assert!(matches!(refused, Err(Error::ShutDown)));
    round_trip(&stays, &context);
    drop(gone);
    let opened = harnesses[0].process().await;
    let sealed = opened.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert_eq!(sealed.key_id(), ids[0]);
}

#[tokio::test]
async fn an_entry_that_was_dropped_is_not_used() {
    let harness = Harness::new().await;
    let crypto = harness.builder().max_keyrings(4).build().await.unwrap();
    let evicted = context("evicted");
    crypto.encrypt(&evicted, "x", SSN.row(1)).await.unwrap();
    round_trip(&crypto, &evicted);
    let key_is_there = || async {
        // Whether a call with this key would wait.
        let future = crypto.encrypt(&evicted, "x", SSN.row(1));
        pin!(future)
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    };
    for n in 0..20 {
        let other = context(format!("other {n}"));
        crypto.encrypt(&other, "x", SSN.row(1)).await.unwrap();
    }
    // The bound is applied occasionally.
    while key_is_there().await {
        assert!(crypto.stats().keyrings > 0);
        tokio::task::yield_now().await;
    }
    let unwraps = harness.kms().calls().unwrap;
    crypto.encrypt(&evicted, "x", SSN.row(1)).await.unwrap();
    // An entry that the cache has dropped would unwrap the key on every use.
    for _ in 0..10 {
        round_trip(&crypto, &evicted);
    }
    assert!(harness.kms().calls().unwrap - unwraps <= 1);
}

#[tokio::test]
async fn more_contexts_than_a_thread_remembers() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let contexts: Vec<_> = (0..400).map(|n| context(format!("t{n}"))).collect();
    let items = contexts.iter().map(|context| (context, "x", SSN.row(1)));
    let first = crypto.encrypt_many(items).await;
    let ids: Vec<_> = first.into_iter().map(|sealed| sealed.unwrap().key_id()).collect();
    let calls = harness.kms().calls();
    for round in 0..3 {
        for n in 0..contexts.len() {
            let n = n * (2 * round + 1) * 3 % contexts.len();
            assert_eq!(round_trip(&crypto, &contexts[n]).key_id(), ids[n]);
            // An equal context, built again.
            assert_eq!(round_trip(&crypto, &context(format!("t{n}"))).key_id(), ids[n]);
        }
    }
    assert_eq!(harness.kms().calls(), calls);
}

#[tokio::test]
async fn a_context_in_use_is_the_last_to_go() {
    let harness = Harness::new().await;
    let crypto = harness.builder().max_keyrings(16).build().await.unwrap();
    let used = context("used");
    crypto.encrypt(&used, "x", SSN.row(1)).await.unwrap();
    for n in 0..100 {
        let other = context(format!("other {n}"));
        crypto.encrypt(&other, "x", SSN.row(1)).await.unwrap();
        // Two alternate, so that the thread must distinguish them. The bound is applied here, not after more new
        // entries than the bound.
        assert!(crypto.stats().keyrings <= 16 + 1);
        round_trip(&crypto, &other);
        round_trip(&crypto, &used);
    }
    assert_eq!(harness.kms().calls().unwrap, 0, "it never had to come back");
}

#[test]
fn a_thread_that_ends_still_encrypts() {
    type Done = Sender<Result<Ciphertext, Error>>;
    struct AtEnd(Crypto, EncryptionContext, Done);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let sealed = ready(self.0.encrypt(&self.1, "the last word", SSN.row(1)));
            let _ = self.2.send(sealed);
        }
    }
    thread_local! {
        static EARLIER: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
        static LATER: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let context = context("a");
    let crypto = runtime.block_on(async {
        let crypto = Harness::new().await.process().await;
        crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
        crypto
    });
    let (send, done) = channel();
    let misses = crypto.stats().misses;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let at_end = || Some(AtEnd(crypto.clone(), context.clone(), send.clone()));
            // One of them outlives what the thread remembers, in either order.
            EARLIER.set(at_end());
            round_trip(&crypto, &context);
            LATER.set(at_end());
        });
        thread.join().unwrap();
    });
    for _ in 0..2 {
        let sealed = done.try_recv().unwrap().unwrap();
        let opened = ready(crypto.decrypt(&context, &sealed, SSN.row(1))).unwrap();
        assert_eq!(opened.as_bytes(), b"the last word");
    }
    assert_eq!(crypto.stats().misses, misses, "the key was in memory");
}

/// Encrypts on every event, like a subscriber that writes to an encrypted log.
struct Encrypting {
    crypto: Crypto,
    contexts: [EncryptionContext; 4],
    told: AtomicUsize,
    sealed: Sender<Ciphertext>,
}

thread_local! {
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

impl tracing::Subscriber for Encrypting {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        if !BUSY.replace(true) {
            // One that the thread remembers, and one that it does not yet.
            let next = self.told.fetch_add(1, Ordering::Relaxed);
            for context in [&self.contexts[0], &self.contexts[next]] {
                let _ = self.sealed.send(round_trip(&self.crypto, context));
            }
            BUSY.set(false);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn a_subscriber_may_encrypt() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let contexts = ["a", "b", "c", "d"].map(context);
    let mut forged = Vec::new();
    for context in &contexts {
        let sealed = crypto.encrypt(context, "x", SSN.row(1)).await.unwrap();
        forged = sealed.as_bytes().to_vec();
    }
    *forged.last_mut().unwrap() ^= 1;
    let forged = Ciphertext::parse(forged).unwrap();
    let (sealed, seen) = channel();
    let subscriber = Encrypting {
        crypto: crypto.clone(),
        contexts: contexts.clone(),
        told: AtomicUsize::new(1),
        sealed,
    };
    // Two dispatchers: `tracing` assumes that a single one applies to all threads, and threads of other tests have
    // none.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    // In a thread that does not remember any of them yet.
    let refuse = || {
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                let refused = ready(crypto.decrypt(&contexts[3], &forged, SSN.row(1)));
                assert!(matches!(refused, Err(Error::Decrypt { .. })));
            }
        });
    };
    thread::scope(|scope| scope.spawn(refuse).join().unwrap());
    let sealed: Vec<_> = seen.try_iter().collect();
    assert_eq!(sealed.len(), 6, "the subscriber was told of each");
    for (n, sealed) in sealed.iter().enumerate() {
        let of = if n % 2 == 0 { 0 } else { 1 + n / 2 };
        let opened = crypto.decrypt(&contexts[of], sealed, SSN.row(1)).await;
        assert_eq!(opened.unwrap().as_bytes(), b"secret");
    }
}
