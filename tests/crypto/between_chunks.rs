//! Changes to a key during a batch: it is used for the chunk that has begun, and for no other.

use std::cell::RefCell;
use std::pin::Pin;
use std::time::Duration;

use encx::{Ciphertext, Clock, Crypto, EncryptionContext, Error, Keyring};
use encx_test_support::{HarnessExt, SSN, context};
use encx_testkit::{Harness, ManualClock, block_on};

const HOUR: Duration = Duration::from_secs(3600);

/// Several chunks of 64.
const ITEMS: i64 = 200;
const CHUNK: usize = 64;

/// Whether the first read happened, and the action at the second.
type Looks = (bool, Box<dyn FnOnce()>);

thread_local! {
    /// The action for this thread's second clock read.
    static SECOND_LOOK: RefCell<Option<Looks>> = const { RefCell::new(None) };
}

fn at_second_look(event: impl FnOnce() + 'static) {
    SECOND_LOOK.set(Some((false, Box::new(event))));
}

/// A clock that a batch reads once per chunk.
#[derive(Clone, Debug)]
struct LookedAt(ManualClock);

impl Clock for LookedAt {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn elapsed_coarsely(&self) -> Duration {
        let event = SECOND_LOOK.with_borrow_mut(|event| match event {
            Some((looked @ false, _)) => {
                *looked = true;
                None
            }
            _ => event.take(),
        });
        if let Some((_, event)) = event {
            event();
        }
        self.0.elapsed_coarsely()
    }

    fn unix_millis(&self) -> u64 {
        self.0.unix_millis()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.sleep(duration)
    }
}

/// How a batch runs: by a `Crypto` or a `Keyring`. Decryption repeats one ciphertext 200 times.
#[derive(Clone, Copy, Debug)]
enum Batch {
    CryptoDecrypts,
    CryptoEncrypts,
    KeyringDecrypts,
    KeyringEncrypts,
}

const BATCHES: [Batch; 4] = [
    Batch::CryptoDecrypts,
    Batch::CryptoEncrypts,
    Batch::KeyringDecrypts,
    Batch::KeyringEncrypts,
];

impl Batch {
    fn decrypts(self) -> bool {
        matches!(self, Self::CryptoDecrypts | Self::KeyringDecrypts)
    }

    /// Runs it. The ciphertexts are those it made.
    async fn run(
        self,
        (crypto, keyring): (&Crypto, &Keyring),
        context: &EncryptionContext,
        sealed: &Ciphertext,
    ) -> Vec<Result<Option<Ciphertext>, Error>> {
        let opened = |opened: Vec<Result<_, Error>>| opened.into_iter().map(|one| one.map(|_| None));
        let made = |made: Vec<Result<_, Error>>| made.into_iter().map(|one| one.map(Some));
        let rows = 0..ITEMS;
        match self {
            Self::CryptoDecrypts => {
                let items = rows.map(|_| (context, sealed, SSN.row(1)));
                opened(crypto.decrypt_many(items).await).collect()
            }
            Self::CryptoEncrypts => {
                let items = rows.map(|row| (context, "x", SSN.row(row)));
                made(crypto.encrypt_many(items).await).collect()
            }
            Self::KeyringDecrypts => {
                let items = rows.map(|_| (sealed, SSN.row(1)));
                opened(keyring.decrypt_many(items).await).collect()
            }
            Self::KeyringEncrypts => {
                let items = rows.map(|row| ("x", SSN.row(row)));
                made(keyring.encrypt_many(items).await).collect()
            }
        }
    }
}

/// A process whose key is in memory.
async fn process(harness: &Harness, clock: &ManualClock) -> (Crypto, EncryptionContext, Ciphertext) {
    let builder = harness.builder().clock(LookedAt(clock.clone()));
    let crypto = builder.ttl(HOUR).build().await.unwrap();
    let context = context("a");
    let sealed = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    (crypto, context, sealed)
}

#[tokio::test]
async fn a_key_that_expires_while_a_batch_runs_is_loaded_again() {
    for batch in BATCHES {
        for kms_answers in [true, false] {
            let (harness, clock) = (Harness::new().await, ManualClock::new());
            let (crypto, context, sealed) = process(&harness, &clock).await;
            let keyring = crypto.keyring(&context).await.unwrap();
            harness.kms().set_unavailable(!kms_answers);
            let before = harness.kms().calls().unwrap;
            at_second_look(move || clock.advance(HOUR));
            let done = batch.run((&crypto, &keyring), &context, &sealed).await;
            assert!(SECOND_LOOK.take().is_none(), "{batch:?} took one look");
            assert_eq!(done.len(), usize::try_from(ITEMS).unwrap());
            let (first, rest) = done.split_at(CHUNK);
            assert!(first.iter().all(Result::is_ok), "{batch:?}: {first:?}");
            if kms_answers {
                assert!(rest.iter().all(Result::is_ok), "{batch:?}: {rest:?}");
                assert_eq!(harness.kms().calls().unwrap - before, 1, "{batch:?}");
            } else {
                assert!(
                    rest.iter().all(|one| matches!(one, Err(Error::Kms(_)))),
                    "{batch:?}: {rest:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_is_destroyed_while_a_batch_runs_is_used_no_more() {
    for batch in BATCHES {
        let (harness, clock) = (Harness::new().await, ManualClock::new());
        let (crypto, here, sealed) = process(&harness, &clock).await;
        let keyring = crypto.keyring(&here).await.unwrap();
        let (manager, old) = (crypto.key_manager(), sealed.key_id());
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let destroying = async {
            let asked = tokio::task::spawn_blocking(move || asked.recv().unwrap());
            asked.await.unwrap();
            let next = manager.rotate(&here).await.unwrap().id;
            manager.destroy_with_data(&here, old, "a test").await.unwrap();
            answer.send(()).unwrap();
            next
        };
        let (crypto, context) = (crypto.clone(), here.clone());
        let running = tokio::task::spawn_blocking(move || {
            at_second_look(move || {
                ask.send(()).unwrap();
                answered.recv().unwrap();
            });
            block_on(batch.run((&crypto, &keyring), &context, &sealed))
        });
        let (next, done) = tokio::join!(destroying, running);
        let done = done.unwrap();
        assert_eq!(done.len(), usize::try_from(ITEMS).unwrap());
        for (number, one) in done.iter().enumerate() {
            let is_first = number < CHUNK;
            match one {
                Ok(None) if is_first => {}
                Ok(Some(made)) if made.key_id() == if is_first { old } else { next } => {}
                Err(Error::Destroyed { id, .. }) if !is_first && batch.decrypts() && *id == old => {}
                other => panic!("{batch:?}, item {number}: {other:?}"),
            }
        }
    }
}
