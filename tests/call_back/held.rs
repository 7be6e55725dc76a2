//! No key is held while the service's own code runs: a shutdown from that code leaves no key in memory.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use encx::{Ciphertext, Clock, Crypto, EncryptionContext, Error, Keyring};
use encx_test_support::{FaultHarness, SSN, context, seal, within};
use encx_testkit::ManualClock;

use super::within_deadline;

/// Drops every key of a process, and checks that the in-flight call holds none.
#[derive(Clone, Debug)]
struct Shutter {
    process: Crypto,
    calls: Arc<AtomicUsize>,
}

impl Shutter {
    fn new(process: &Crypto) -> Self {
        Self {
            process: process.clone(),
            calls: Arc::default(),
        }
    }

    fn shut(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _ = pin!(self.process.shutdown()).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(self.process.stats().keys, 0, "a key is held");
    }
}

/// A plaintext whose bytes come from code of the caller.
struct Plain(Shutter);

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        self.0.shut();
        b"x"
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.0.shut();
    }
}

/// A process that holds the keys of two contexts.
async fn process() -> (Crypto, [EncryptionContext; 2], [Ciphertext; 2]) {
    let harness = FaultHarness::new();
    let (process, contexts) = (harness.process().await, ["a", "b"].map(context));
    let sealed = [
        seal(&process, &contexts[0]).await,
        seal(&process, &contexts[1]).await,
    ];
    assert_eq!(process.stats().keys, 2);
    (process, contexts, sealed)
}

fn assert_all_shut<T: fmt::Debug>(results: Vec<Result<T, Error>>, expected: usize, shutter: &Shutter) {
    assert_eq!(results.len(), expected);
    for result in results {
        assert!(
            matches!(result, Err(Error::ShutDown | Error::NotReady)),
            "{result:?}"
        );
    }
    assert!(shutter.calls.load(Ordering::SeqCst) > 0);
}

#[test]
fn no_key_is_held_while_items_are_taken() {
    within_deadline(|| {
        super::block_on(async {
            let (process, [a, b], _) = process().await;
            let shutter = Shutter::new(&process);
            let items = (0..200).map(|n| {
                shutter.shut();
                (if n % 2 == 0 { &a } else { &b }, "x", SSN.row(n))
            });
            assert_all_shut(within(process.encrypt_many(items)).await, 200, &shutter);

            let (process, [a, _], [sealed, _]) = self::process().await;
            let shutter = Shutter::new(&process);
            let items = (0..200).map(|n| {
                shutter.shut();
                (&a, &sealed, SSN.row(n))
            });
            assert_all_shut(within(process.decrypt_many(items)).await, 200, &shutter);

            let (process, [a, _], [sealed, _]) = self::process().await;
            let (shutter, keyring) = (Shutter::new(&process), process.keyring(&a).await.unwrap());
            let items = (0..200).map(|n| {
                shutter.shut();
                ("x", SSN.row(n))
            });
            assert_all_shut(within(keyring.encrypt_many(items)).await, 200, &shutter);
            let items = (0..200).map(|n| {
                shutter.shut();
                (&sealed, SSN.row(n))
            });
            assert_all_shut(within(keyring.decrypt_many(items)).await, 200, &shutter);
        });
    });
}

#[test]
fn no_key_is_held_while_plaintexts_are_asked_for_and_dropped() {
    within_deadline(|| {
        super::block_on(async {
            let (process, [a, b], _) = process().await;
            let shutter = Shutter::new(&process);
            let plain = || Plain(shutter.clone());
            let keyring = process.keyring(&a).await.unwrap();
            let items: Vec<_> = (0..200)
                .map(|n| (if n % 2 == 0 { &a } else { &b }, plain(), SSN.row(n)))
                .collect();
            assert_all_shut(within(process.encrypt_many(items)).await, 200, &shutter);
            let one = within(process.encrypt(&a, plain(), SSN.row(1))).await;
            assert_all_shut(vec![one], 1, &shutter);
            assert_all_shut(vec![keyring.try_encrypt(plain(), SSN.row(1))], 1, &shutter);
        });
    });
}

/// If the plaintext is read while the key is loaded, state changes of the key in between count.
#[test]
fn a_key_that_is_dropped_while_a_plaintext_is_asked_for_is_not_used() {
    /// Shuts down once the key is there.
    struct Late(Crypto);

    impl AsRef<[u8]> for Late {
        fn as_ref(&self) -> &[u8] {
            if self.0.stats().keys > 0 {
                let _ = pin!(self.0.shutdown()).poll(&mut Context::from_waker(Waker::noop()));
            }
            b"x"
        }
    }

    within_deadline(|| {
        super::block_on(async {
            let harness = FaultHarness::new();
            let process = harness.process().await;
            let refused = within(process.encrypt(&context("a"), Late(process.clone()), SSN.row(1))).await;
            assert!(matches!(refused, Err(Error::ShutDown)), "{refused:?}");
            assert_eq!(process.stats().keys, 0);
        });
    });
}

/// Shuts down when it is read, once armed.
#[derive(Clone, Debug)]
struct ShuttingClock {
    time: ManualClock,
    shutter: Arc<OnceLock<Shutter>>,
}

impl ShuttingClock {
    fn shut(&self) {
        if let Some(shutter) = self.shutter.get()
            && shutter.calls.load(Ordering::SeqCst) == 0
        {
            shutter.shut();
        }
    }
}

impl Clock for ShuttingClock {
    fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    fn elapsed_coarsely(&self) -> Duration {
        self.shut();
        self.time.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        self.time.unix_millis()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.time.sleep(duration)
    }
}

#[test]
fn no_key_is_held_while_the_clock_is_asked() {
    within_deadline(|| {
        super::block_on(async {
            type Hot = fn(&Keyring, &Ciphertext) -> Option<Error>;
            let calls: [Hot; 3] = [
                |keyring, _| keyring.try_encrypt("x", SSN.row(1)).err(),
                |keyring, sealed| keyring.try_decrypt(sealed, SSN.row(1)).err(),
                |keyring, sealed| {
                    let mut buffer = sealed.as_bytes().to_vec();
                    keyring.try_decrypt_in_place(&mut buffer, SSN.row(1)).err()
                },
            ];
            for call in calls {
                let harness = FaultHarness::new();
                let clock = ShuttingClock {
                    time: harness.clock.clone(),
                    shutter: Arc::default(),
                };
                let process = harness.builder().clock(clock.clone()).build().await.unwrap();
                let sealed = seal(&process, &context("a")).await;
                let keyring = process.keyring(&context("a")).await.unwrap();
                // Often enough that the thread has the snapshot cached.
                for _ in 0..50 {
                    assert!(call(&keyring, &sealed).is_none());
                }
                clock.shutter.set(Shutter::new(&process)).unwrap();
                let refused = call(&keyring, &sealed);
                assert!(matches!(refused, Some(Error::ShutDown)), "{refused:?}");
            }
        });
    });
}
