//! Waits for conditions without a fixed sleep.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Long enough for a busy machine; reached only when a test fails.
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

/// Runs every task of a single-threaded runtime until it waits for an action of the test.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Polls once, without a runtime; `None` if the future would wait.
pub fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
