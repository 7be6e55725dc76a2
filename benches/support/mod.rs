//! The cases of hot calls, which `hot_path` times and `instructions` counts.

pub(crate) mod cases;
pub(crate) mod floor;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Makes this many calls of one kind.
pub(crate) type Run<'a> = dyn Fn(u64) + Sync + 'a;

/// Completes a future that never waits. Inlined, so that the future is created where it is polled, as with `await`.
#[inline(always)]
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the key is not hot"),
    }
}
