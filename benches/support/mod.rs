//! What `hot_path` consists of: the cases, the cold start, what a service sees, and the table.

pub(crate) mod cases;
pub(crate) mod cold;
pub(crate) mod floor;
pub(crate) mod service;
pub(crate) mod table;

use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Makes this many calls of one kind.
pub(crate) type Run<'a> = dyn Fn(u64) + Sync + 'a;

/// Makes `calls` calls on each of so many threads at once, and returns how long the slowest of them took.
pub(crate) fn timed(run: &Run<'_>, calls: u64, threads: usize) -> Duration {
    let clock = || {
        let begin = Instant::now();
        run(calls);
        begin.elapsed()
    };
    if threads == 1 {
        return clock();
    }
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let start = || {
            // What a thread does once, such as seeding its generator, is not what is asked about.
            run(1);
            barrier.wait();
            clock()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(start)).collect();
        let slowest = threads
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends"));
        slowest.max().unwrap_or_default()
    })
}

/// Completes a future that has nothing to wait for. Inlined, so that the future is made where it is polled, as
/// `await` would.
#[inline(always)]
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the key is not hot"),
    }
}
