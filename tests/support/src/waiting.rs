//! Waiting for what happens by itself, without a fixed sleep.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Long enough for a machine that does much else; reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let met = tokio::time::timeout(DEADLINE, met).await;
    assert!(met.is_ok(), "waited in vain for {what}");
}

/// Fails instead of hanging.
pub async fn within<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.expect("done before the deadline")
}

/// Lets every task of a single-threaded runtime run until it waits for something that only the test can bring.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Polls once, without a runtime being needed: what is done without waiting is done.
pub fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
