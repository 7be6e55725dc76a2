//! The table of ratios, and `hot_path.json`.
#![allow(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cold::{self, Cold};
use crate::service;
use crate::support::cases::Row;
use crate::timed::timed;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    rounds: u32,
    /// How long one turn of the floor takes.
    turn: Duration,
    tenants: u32,
    cold_rounds: u32,
    service: service::Effort,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 250,
        turn: Duration::from_millis(1),
        tenants: 1000,
        cold_rounds: 5,
        service: service::Effort::FULL,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 30,
        cold_rounds: 2,
        service: service::Effort::QUICK,
        ..Self::FULL
    };
    /// Once is enough to see that it works.
    pub(crate) const TEST: Self = Self {
        rounds: 1,
        turn: Duration::ZERO,
        tenants: 3,
        cold_rounds: 1,
        service: service::Effort::TEST,
    };
}

/// What one case cost on one thread and on two, in nanoseconds a call.
struct Line {
    operation: &'static str,
    case: &'static str,
    len: usize,
    nanos: [f64; 2],
    floor: [f64; 2],
}

impl Line {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.operation, self.case, self.len)
    }

    /// How many times the floor's time a call takes, on one thread (0) or on two (1).
    fn ratio(&self, threads: usize) -> f64 {
        self.nanos[threads] / self.floor[threads]
    }

    /// How much more two threads do than one, where the floor's gain is 1.
    fn scaling(&self) -> f64 {
        self.ratio(0) / self.ratio(1)
    }
}

pub(crate) struct Table {
    lines: Vec<Line>,
    cold: Cold,
    tenants: u32,
    service: Vec<(&'static str, f64)>,
}

impl Table {
    pub(crate) fn measure(rows: &[Row<'_>], effort: Effort) -> Self {
        Self {
            lines: rows.iter().flat_map(|row| lines(row, effort)).collect(),
            cold: cold(effort),
            tenants: effort.tenants,
            service: service::measure(effort.service),
        }
    }

    pub(crate) fn print(&self) {
        println!("\nA multiple of the floor's time in this run; 64 bytes of AAD; nanoseconds a call.\n");
        println!(
            "{:<36} {:>10} {:>10} {:>7} {:>10} {:>9}",
            "", "floor", "encx", "ratio", "2 threads", "scaling"
        );
        for line in &self.lines {
            println!(
                "{:<36} {:>10.0} {:>10.0} {:>7.2} {:>10.2} {:>9.2}",
                line.key(),
                line.floor[0],
                line.nanos[0],
                line.ratio(0),
                line.ratio(1),
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
        println!("\nMessages are encrypted by {:?}.", encx::suite::backend());
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
            put(&key, line.ratio(0));
            put(&format!("{key}/2-threads"), line.ratio(1));
            put(&format!("{key}/2-threads-scaling"), line.scaling());
            put(&format!("{key}/nanoseconds"), line.nanos[0]);
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

fn lines(row: &Row<'_>, effort: Effort) -> impl Iterator<Item = Line> {
    let [single, double] = [1, 2].map(|threads| least_nanos(row, threads, effort));
    let (operation, len) = (row.name, row.len);
    let names: Vec<_> = row.cases.iter().map(|case| case.name).collect();
    let floor = [single[0], double[0]];
    names.into_iter().enumerate().skip(1).map(move |(at, case)| Line {
        operation,
        case,
        len,
        nanos: [single[at], double[at]],
        floor,
    })
}

/// Times all cases in turns, and returns the least of each, in nanoseconds a call.
fn least_nanos(row: &Row<'_>, threads: usize, effort: Effort) -> Vec<f64> {
    let calls = calls_a_turn(row, effort);
    let mut least = vec![Duration::MAX; row.cases.len()];
    for _ in 0..effort.rounds {
        for (case, least) in row.cases.iter().zip(&mut least) {
            *least = timed(&*case.run, calls, threads).min(*least);
        }
    }
    let per_call = |least: Duration| least.as_secs_f64() * 1e9 / calls as f64;
    least.into_iter().map(per_call).collect()
}

/// Finds how many calls of the floor fill a turn.
fn calls_a_turn(row: &Row<'_>, effort: Effort) -> u64 {
    let floor = &*row.cases[0].run;
    let mut calls = 1;
    // The least of several: one interruption of the first call would look like a whole turn.
    let least = |calls| (0..5).map(|_| timed(floor, calls, 1)).min().unwrap_or_default();
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

/// Cargo gives a bench a folder of its own there.
fn target() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().unwrap_or(folder).to_owned()
}
