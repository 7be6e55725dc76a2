//! The table of ratios, and `hot_path.json`.
#![allow(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cold::{self, Cold};
use crate::support::cases::{Hot, Row};
use crate::timed::{median, timed_on, turns};
use crate::{rows, service};

/// The amount of measurement.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// How often everything is recreated.
    passes: u32,
    /// How many turns each case has per pass.
    rounds: u32,
    /// The duration of one turn of the floor.
    turn: Duration,
    tenants: u32,
    cold_rounds: u32,
    service: service::Effort,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        passes: 8,
        rounds: 32,
        turn: Duration::from_millis(1),
        tenants: 1000,
        cold_rounds: 5,
        service: service::Effort::FULL,
    };
    pub(crate) const QUICK: Self = Self {
        passes: 2,
        rounds: 16,
        cold_rounds: 2,
        service: service::Effort::QUICK,
        ..Self::FULL
    };
    /// Once is enough to check that it works.
    pub(crate) const TEST: Self = Self {
        passes: 1,
        rounds: 1,
        turn: Duration::ZERO,
        tenants: 3,
        cold_rounds: 1,
        service: service::Effort::TEST,
    };
}

/// The cost of one case on one thread and on two: medians.
struct Line {
    operation: &'static str,
    case: &'static str,
    len: usize,
    /// Nanoseconds per call, on one thread.
    nanos: f64,
    floor: f64,
    /// The ratio to the floor's time in the same round, on one thread and on two.
    ratios: [f64; 2],
}

impl Line {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.operation, self.case, self.len)
    }

    /// The gain from a second thread, relative to the floor's gain.
    fn scaling(&self) -> f64 {
        self.ratios[0] / self.ratios[1]
    }
}

pub(crate) struct Table {
    lines: Vec<Line>,
    cold: Cold,
    tenants: u32,
    service: Vec<(&'static str, f64)>,
}

impl Table {
    pub(crate) fn measure(effort: Effort) -> Self {
        Self {
            lines: lines(effort),
            cold: cold(effort),
            tenants: effort.tenants,
            service: service::measure(effort.service),
        }
    }

    pub(crate) fn print(&self) {
        println!(
            "\nA multiple of the floor's time in the same round; 64 bytes of AAD; nanoseconds a call; medians.\n"
        );
        println!(
            "{:<36} {:>10} {:>10} {:>7} {:>10} {:>9}",
            "", "floor", "encx", "ratio", "2 threads", "scaling"
        );
        for line in &self.lines {
            println!(
                "{:<36} {:>10.0} {:>10.0} {:>7.2} {:>10.2} {:>9.2}",
                line.key(),
                line.floor,
                line.nanos,
                line.ratios[0],
                line.ratios[1],
                line.scaling(),
            );
        }
        println!(
            "\nCold start, {} tenants in turn, KMS and key store in memory: first encryption {:.1} µs each, \
             first decryption {:.1} µs each.",
            self.tenants,
            micros(self.cold.encrypt),
            micros(self.cold.decrypt),
        );
        println!("\nWhat a service sees:\n");
        for (name, value) in &self.service {
            println!("{name:<36} {value:>10.2}");
        }
        println!("\nThe floor, and encx, encrypt by {:?}.", encx::suite::backend());
    }

    /// Writes `hot_path.json` into the target directory.
    pub(crate) fn write(&self) {
        let path = target().join("hot_path.json");
        std::fs::write(&path, self.json()).expect("the target directory can be written to");
        println!("\nWritten to {}.", path.display());
    }

    fn json(&self) -> String {
        let mut json = String::from("{\n");
        let mut put = |key: &str, value: f64| {
            // Keys are names and numbers: nothing in them needs escaping.
            writeln!(json, "  \"{key}\": {value:.3},").expect("a string takes everything");
        };
        for line in &self.lines {
            let key = line.key();
            put(&key, line.ratios[0]);
            put(&format!("{key}/2-threads"), line.ratios[1]);
            put(&format!("{key}/2-threads-scaling"), line.scaling());
            put(&format!("{key}/nanoseconds"), line.nanos);
        }
        put("cold-start/encrypt/microseconds", micros(self.cold.encrypt));
        put("cold-start/decrypt/microseconds", micros(self.cold.decrypt));
        for (name, value) in &self.service {
            put(name, *value);
        }
        json.truncate(json.trim_end_matches(['\n', ',']).len());
        json.push_str("\n}\n");
        json
    }
}

/// The times of one row, on one thread and on two.
struct Timed {
    operation: &'static str,
    len: usize,
    names: Vec<&'static str>,
    calls: u64,
    /// By threads, by case: the duration of each turn.
    took: [Vec<Vec<Duration>>; 2],
}

impl Timed {
    fn new(row: &Row<'_>, effort: Effort) -> Self {
        let names: Vec<_> = row.cases.iter().map(|case| case.name).collect();
        let nothing = vec![Vec::new(); names.len()];
        Self {
            operation: row.name,
            len: row.len,
            names,
            calls: calls_a_turn(row, effort),
            took: [nothing.clone(), nothing],
        }
    }

    fn more(&mut self, row: &Row<'_>, effort: Effort) {
        for (took, threads) in self.took.iter_mut().zip([1, 2]) {
            let more = turns(row, self.calls, threads, effort.rounds);
            took.iter_mut()
                .zip(more)
                .for_each(|(took, more)| took.extend(more));
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let nanos = |took: &Vec<Duration>| {
            let all = took
                .iter()
                .map(|took| took.as_secs_f64() * 1e9 / self.calls as f64);
            median(all)
        };
        let ratio = |took: &[Vec<Duration>], case: usize| {
            let rounds = took[case].iter().zip(&took[0]);
            median(rounds.map(|(took, floor)| took.as_secs_f64() / floor.as_secs_f64()))
        };
        self.names.iter().enumerate().skip(1).map(move |(at, case)| Line {
            operation: self.operation,
            case,
            len: self.len,
            nanos: nanos(&self.took[0][at]),
            floor: nanos(&self.took[0][0]),
            ratios: self.took.each_ref().map(|took| ratio(took, at)),
        })
    }
}

fn lines(effort: Effort) -> Vec<Line> {
    let mut timed = Vec::<Timed>::new();
    for _ in 0..effort.passes {
        let hot = Hot::new();
        let rows = rows(&hot);
        if timed.is_empty() {
            timed.extend(rows.iter().map(|row| Timed::new(row, effort)));
        }
        for (timed, row) in timed.iter_mut().zip(&rows) {
            timed.more(row, effort);
        }
    }
    timed.iter().flat_map(Timed::lines).collect()
}

/// Finds the number of calls of the floor that fill a turn.
fn calls_a_turn(row: &Row<'_>, effort: Effort) -> u64 {
    let floor = &*row.cases[0].run;
    let mut calls = 1;
    // The minimum of several: one interruption of the first call would look like a full turn.
    let least = |calls| {
        (0..5)
            .map(|_| timed_on(floor, calls, 1))
            .min()
            .unwrap_or_default()
    };
    while least(calls) < effort.turn {
        calls *= 2;
    }
    calls
}

fn cold(effort: Effort) -> Cold {
    let rounds = (0..effort.cold_rounds).map(|_| cold::measure(effort.tenants));
    let least = rounds.reduce(|least, cold| Cold {
        encrypt: least.encrypt.min(cold.encrypt),
        decrypt: least.decrypt.min(cold.decrypt),
    });
    least.expect("there is a round")
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Cargo gives each bench a separate folder there.
fn target() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().unwrap_or(folder).to_owned()
}
