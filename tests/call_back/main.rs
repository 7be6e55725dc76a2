//! Subscribers, clocks and wakers are the service's own code, and may call encx. None of them runs while encx holds a
//! lock, which would deadlock, or a key, which would stay in memory.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod events;
mod held;
mod panics;
mod scenes;
mod wakers;

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use encx::{Clock, Crypto, Keyring};
use encx_test_support::{Connection, FaultHarness, SSN};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

/// Long enough for a busy machine; reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(300);

/// The handles that a subscriber, a clock or a waker may hold.
#[derive(Clone)]
struct Service {
    crypto: Crypto,
    keyring: Keyring,
    kms: MemoryKms,
    rows: MemoryKeyStore,
}

static SERVICES: Mutex<Vec<Service>> = Mutex::new(Vec::new());

thread_local! {
    static CALLS: Cell<bool> = const { Cell::new(false) };
}

/// Calls every operation, in every way that does not wait. Not reentrant.
fn call_back() {
    if CALLS.try_with(|calls| calls.replace(true)).unwrap_or(true) {
        return;
    }
    let services = SERVICES.lock().unwrap().clone();
    for service in services {
        service.call();
    }
    let _ = CALLS.try_with(|calls| calls.set(false));
}

impl Service {
    fn call(&self) {
        let context = self.keyring.context();
        if let Ok(sealed) = self.keyring.try_encrypt("a log line", SSN.row(1)) {
            let _ = self.keyring.try_decrypt(&sealed, SSN.row(1));
            let _ = self.keyring.try_decrypt(&sealed, SSN.row(2));
        }
        let _ = self.crypto.stats();
        let _ = format!("{:?} {:?} {:?}", self.crypto, self.kms, self.rows);
        let _ = (self.kms.calls(), self.kms.max_in_flight(), self.rows.records());
        let waker = Waker::from(Arc::new(Calling));
        let mut polling = Context::from_waker(&waker);
        let _ = pin!(self.crypto.encrypt(&context, "a log line", SSN.row(1))).poll(&mut polling);
        let items = [("a", SSN.row(1)), ("log line", SSN.row(2))];
        let _ = pin!(self.keyring.encrypt_many(items)).poll(&mut polling);
    }
}

/// A waker that calls back.
struct Calling;

impl Wake for Calling {
    fn wake(self: Arc<Self>) {
        call_back();
    }
}

/// A clock that calls back on every read.
#[derive(Clone, Debug)]
struct CallingClock(ManualClock);

impl Clock for CallingClock {
    fn elapsed(&self) -> Duration {
        call_back();
        self.0.elapsed()
    }

    fn elapsed_coarsely(&self) -> Duration {
        call_back();
        self.0.elapsed_coarsely()
    }

    fn unix_millis(&self) -> u64 {
        call_back();
        self.0.unix_millis()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        call_back();
        self.0.sleep(duration)
    }
}

/// A harness whose KMS and key store use a clock that calls back, with hints and a registry of processes.
fn calling_harness() -> FaultHarness {
    let clock = ManualClock::new();
    let rows = MemoryKeyStore::with_clock(CallingClock(clock.clone()));
    let harness = FaultHarness {
        store: Connection::new(rows.clone(), true),
        kms: MemoryKms::new().with_clock(CallingClock(clock.clone())),
        clock,
        rows,
    };
    harness.with_registry()
}

/// Registers a process for call-backs.
fn register(harness: &FaultHarness, crypto: &Crypto, keyring: &Keyring) {
    SERVICES.lock().unwrap().push(Service {
        crypto: crypto.clone(),
        keyring: keyring.clone(),
        kms: harness.kms.clone(),
        rows: harness.rows.clone(),
    });
}

/// Runs a test in its own thread, and fails if it hangs.
fn within_deadline(test: impl FnOnce() + Send + 'static) {
    let (done, end) = channel();
    let running = thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match end.recv_timeout(DEADLINE) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs: something calls back under a lock"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => running
            .join()
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked)),
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}
