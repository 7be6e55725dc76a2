//! The clock.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::support::Run;

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
