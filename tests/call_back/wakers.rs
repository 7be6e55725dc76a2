//! A waker that calls back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use encx::keys::KeyState;
use encx_test_support::{FaultHarness, MINUTE, SSN, context, settle};

use super::{SERVICES, block_on, call_back, register, within_deadline};

/// Calls back before it wakes the waiter.
struct CallsFirst {
    waker: Waker,
    woken: Arc<AtomicBool>,
}

impl Wake for CallsFirst {
    fn wake(self: Arc<Self>) {
        call_back();
        self.woken.store(true, Ordering::SeqCst);
        self.waker.wake_by_ref();
    }
}

/// A future that is polled with a waker that calls back.
struct Calling<F> {
    future: Pin<Box<F>>,
    woken: Arc<AtomicBool>,
}

impl<F: Future> Future for Calling<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::new(CallsFirst {
            waker: context.waker().clone(),
            woken: Arc::clone(&self.woken),
        }));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

fn calling<F: Future>(future: F) -> (Calling<F>, Arc<AtomicBool>) {
    let woken = Arc::new(AtomicBool::new(false));
    let future = Calling {
        future: Box::pin(future),
        woken: Arc::clone(&woken),
    };
    (future, woken)
}

#[test]
fn a_waker_may_call_back() {
    within_deadline(|| block_on(wakers()));
}

async fn wakers() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, here) = (harness.process().await, context("waker"));
    process.encrypt(&here, "x", SSN.row(1)).await.unwrap();
    let keyring = process.keyring(&here).await.unwrap();
    register(&harness, &process, &keyring);
    // Each is woken by another task: a load that completes, a KMS that is released, a clock that moves, a store's lock
    // that is released.
    for tenant in 0..3 {
        let tenant = context(tenant);
        harness.kms.hold();
        let (cold, woken) = calling(process.encrypt(&tenant, "x", SSN.row(1)));
        let cold = async { cold.await.unwrap() };
        let release = async {
            harness.kms.until_in_flight(1).await;
            harness.kms.release();
        };
        tokio::join!(cold, release);
        assert!(woken.load(Ordering::SeqCst));
    }
    let manager = process.key_manager();
    let (waiting, woken) = calling(manager.await_processes(MINUTE));
    let move_on = async {
        while !woken.load(Ordering::SeqCst) {
            settle().await;
            harness.clock.advance(MINUTE / 60);
        }
    };
    let (report, ()) = tokio::join!(waiting, move_on);
    let _ = report.unwrap();
    // Hints wake their listeners while the key store writes.
    let (mut hints, hinted) = (
        encx::store::KeyStore::changes(&harness.rows),
        Arc::new(AtomicBool::new(false)),
    );
    let next = std::future::poll_fn(|context| futures_core::Stream::poll_next(Pin::new(&mut hints), context));
    let next = Calling {
        future: Box::pin(next),
        woken: Arc::clone(&hinted),
    };
    let change = async {
        settle().await;
        let id = manager.list(&here).await.unwrap()[0].id;
        manager.set_state(&here, id, KeyState::Suspended).await.unwrap();
    };
    let (hint, ()) = tokio::join!(next, change);
    assert!(hint.is_some() && hinted.load(Ordering::SeqCst));
    let (ending, _) = calling(process.shutdown());
    ending.await;
    SERVICES.lock().unwrap().clear();
}
