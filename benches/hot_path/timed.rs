//! The clock.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Run;
use crate::support::cases::Row;

/// The number of stack positions from which calls are made in sequence.
const DEPTHS: u32 = 16;

/// How long a thread waits for another, which may have failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times all cases of a row in turns of this many calls, on each of this many threads at once. Returns, per case, the
/// time of the slowest thread in each round.
pub(crate) fn turns(row: &Row<'_>, calls: u64, threads: usize, rounds: u32) -> Vec<Vec<Duration>> {
    let start = Start::of(threads);
    let work = || {
        let mut took = vec![Vec::new(); row.cases.len()];
        for case in &row.cases {
            // One-time work of a thread, such as seeding its generator, is not measured.
            (case.run)(1);
        }
        for round in 0..rounds {
            for turn in 0..row.cases.len() {
                // Each starts a round equally often, so that none always follows the same one.
                let at = (turn + round as usize) % row.cases.len();
                start.wait();
                took[at].push(timed(&*row.cases[at].run, calls, round));
            }
        }
        took
    };
    let of_threads: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends"));
        joined.collect()
    });
    let slowest = |case: usize, round: usize| of_threads.iter().map(|took| took[case][round]).max();
    let rounds = 0..rounds as usize;
    (0..row.cases.len())
        .map(|case| rounds.clone().filter_map(|round| slowest(case, round)).collect())
        .collect()
}

/// Makes `calls` calls on each of this many threads at once, and returns the time of the slowest.
pub(crate) fn timed_on(run: &Run<'_>, calls: u64, threads: usize) -> Duration {
    let start = Start::of(threads);
    let work = || {
        run(1);
        start.wait();
        timed(run, calls, 0)
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        let others = others
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends"));
        others.fold(mine, Duration::max)
    })
}

/// Returns the median.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Every turn starts at another stack position. The position relative to the heap makes the same instructions up to a
/// sixth slower, and differs between threads, builds and starts of one program.
fn timed(run: &Run<'_>, calls: u64, turn: u32) -> Duration {
    let begin = Instant::now();
    deeper(run, calls, turn % DEPTHS);
    begin.elapsed()
}

/// Makes the calls from this many frames deeper, each of several cache lines.
#[inline(never)]
fn deeper(run: &Run<'_>, calls: u64, frames: u32) {
    let frame = black_box([0_u8; 264]);
    match frames.checked_sub(1) {
        Some(frames) => deeper(run, calls, frames),
        None => run(calls),
    }
    black_box(&frame);
}

/// Threads wait here for each other by spinning: a thread that is woken up would run on the waker's core for a while,
/// and the two would share it.
struct Start {
    threads: usize,
    arrived: AtomicUsize,
}

impl Start {
    fn of(threads: usize) -> Self {
        Self {
            threads,
            arrived: AtomicUsize::new(0),
        }
    }

    fn wait(&self) {
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let all = arrived.next_multiple_of(self.threads);
        let (mut spins, begin) = (0_u32, Instant::now());
        while self.arrived.load(Ordering::Acquire) < all {
            spins += 1;
            if spins.is_multiple_of(1 << 14) {
                assert!(begin.elapsed() < PATIENCE, "the other thread does not come");
                // In case there is only one core.
                thread::yield_now();
            }
            spin_loop();
        }
    }
}
