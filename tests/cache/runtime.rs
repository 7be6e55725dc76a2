//! Without a runtime calls fail instead of panicking; when a runtime ends, another takes over.

use std::thread;

use encx::{Ciphertext, Crypto, EncryptionContext, Error, Keyring};
use encx_test_support::{FaultHarness, HOUR, SSN, at_once, context, open, seal, until, within};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn assert_no_runtime<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    assert!(matches!(outcome, Err(Error::NoRuntime)), "{outcome:?}");
}

#[test]
fn without_a_runtime_nothing_is_built() {
    let built = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build();
    assert_no_runtime(at_once(built).unwrap());
}

/// The operations of a process with one hot key on a thread without a runtime.
fn use_without_runtime(process: &Crypto, hot: (&EncryptionContext, &Keyring, &Ciphertext)) {
    let (context_of_hot, keyring, sealed) = hot;
    // Keys in memory need no runtime.
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    keyring.try_decrypt(sealed, SSN.row(1)).unwrap();
    at_once(keyring.encrypt("", SSN.row(1))).unwrap().unwrap();
    at_once(process.decrypt(context_of_hot, sealed, SSN.row(1)))
        .unwrap()
        .unwrap();
    at_once(process.keyring(context_of_hot)).unwrap().unwrap();
    // Cold keys do.
    let cold = context("cold");
    assert_no_runtime(at_once(process.encrypt(&cold, "", SSN.row(1))).unwrap());
    assert_no_runtime(at_once(process.decrypt(&cold, sealed, SSN.row(1))).unwrap());
    assert_no_runtime(at_once(process.keyring(&cold)).unwrap());
    assert_no_runtime(at_once(process.needs_reencryption(&cold, sealed)).unwrap());
    let items = [(context_of_hot, "", SSN.row(1)), (&cold, "", SSN.row(2))];
    let mut outcomes = at_once(process.encrypt_many(items)).unwrap();
    assert_no_runtime(outcomes.remove(1));
    outcomes.remove(0).unwrap();
    let items = [(context_of_hot, sealed, SSN.row(1)), (&cold, sealed, SSN.row(1))];
    let mut outcomes = at_once(process.decrypt_many(items)).unwrap();
    assert_no_runtime(outcomes.remove(1));
    outcomes.remove(0).unwrap();
}

#[test]
fn without_a_runtime_what_is_hot_works_and_what_is_cold_is_refused() {
    // With the machine's clock, whose timers need a runtime.
    let runtime = runtime();
    let process = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build();
    let process = runtime.block_on(process).unwrap();
    let context_of_hot = context("hot");
    let (sealed, keyring, cold) = runtime.block_on(async {
        let sealed = seal(&process, &context_of_hot).await;
        let keyring = process.keyring(&context_of_hot).await.unwrap();
        let cold = process.keyring(&context("empty")).await.unwrap();
        (sealed, keyring, cold)
    });
    use_without_runtime(&process, (&context_of_hot, &keyring, &sealed));
    assert!(matches!(cold.try_encrypt("", SSN.row(1)), Err(Error::NotReady)));
    assert_no_runtime(at_once(cold.encrypt("", SSN.row(1))).unwrap());
    // Callers with a runtime are not affected.
    runtime.block_on(async {
        seal(&process, &context("cold")).await;
        within(process.shutdown()).await;
    });
}

#[test]
fn after_its_runtime_ended_a_process_says_so_and_goes_on_in_another() {
    let harness = FaultHarness::new();
    let first = runtime();
    let (process, sealed, keyring) = first.block_on(async {
        let process = harness.process().await;
        let sealed = seal(&process, &context("a")).await;
        let keyring = process.keyring(&context("a")).await.unwrap();
        (process, sealed, keyring)
    });
    drop(first);
    use_without_runtime(&process, (&context("a"), &keyring, &sealed));

    runtime().block_on(async {
        open(&process, &context("a"), &sealed).await.unwrap();
        seal(&process, &context("b")).await;
        // The poller and the sweeper run again.
        harness.suspend_elsewhere(&context("b")).await;
        harness.next_poll().await;
        until("the suspended key to be dropped", || process.stats().keys == 1).await;
        harness.clock.advance(HOUR);
        until("the sweep", || process.stats().keys == 0).await;
        within(process.shutdown()).await;
    });
}

#[test]
fn a_load_whose_runtime_ends_is_interrupted_and_can_be_repeated_in_another() {
    let harness = FaultHarness::new();
    let (first, second) = (runtime(), runtime());
    let process = first.block_on(harness.process());
    harness.kms.hold();
    let spawn = |on: &Runtime| {
        let process = process.clone();
        on.spawn(async move { process.encrypt(&context("a"), "", SSN.row(1)).await })
    };
    spawn(&first);
    second.block_on(within(harness.kms.until_in_flight(1)));
    let follower = spawn(&second);
    // It has joined once it is counted as a miss.
    second.block_on(until("the follower", || process.stats().misses == 2));
    thread::spawn(move || drop(first)).join().unwrap();
    let outcome = second.block_on(within(follower)).unwrap();
    harness.kms.release();
    match outcome {
        Err(error) => assert!(
            matches!(error, Error::Interrupted) && error.is_retryable(),
            "{error:?}"
        ),
        // It started after the first load was gone, and began its own.
        Ok(_) => panic!("nothing was released yet"),
    }
    second.block_on(async {
        seal(&process, &context("a")).await;
        within(process.shutdown()).await;
    });
}
