//! The table, and how its figures are taken: the libraries alternate in turns of a millisecond, hundreds of times, and
//! the minimum of each counts, because noise only adds.
#![allow(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::time::Duration;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table as Grid};

use super::kms::{CROWDS, KEYS, KmsCalls, LATENCY, Stampede};
use super::{AAD, FIELD, LENGTHS, Run, Subject, payload};

/// The amount of measurement.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    rounds: u32,
}

impl Effort {
    pub(crate) const FULL: Self = Self { rounds: 300 };
    pub(crate) const QUICK: Self = Self { rounds: 30 };
}

/// The duration of one turn.
const TURN: Duration = Duration::from_millis(1);

pub(crate) struct Table {
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    /// Nanoseconds per call: encrypt and decrypt, for each length.
    nanos: Vec<f64>,
    /// The bytes stored for a field, minus the field.
    overhead: usize,
    kms: Option<KmsCalls>,
    note: Option<String>,
}

impl Table {
    pub(crate) fn measure(subjects: &[Box<dyn Subject>], effort: Effort) -> Self {
        let lines = subjects.iter().map(|subject| Line {
            name: subject.name(),
            nanos: Vec::new(),
            overhead: subject.stored_len(&payload(FIELD)) - FIELD,
            kms: None,
            note: subject.note(),
        });
        let mut lines: Vec<_> = lines.collect();
        for len in LENGTHS {
            let encrypt: Vec<_> = subjects
                .iter()
                .map(|subject| subject.encrypt(payload(len)))
                .collect();
            add(&mut lines, &encrypt, effort);
            let decrypt: Vec<_> = subjects
                .iter()
                .map(|subject| subject.decrypt(payload(len)))
                .collect();
            add(&mut lines, &decrypt, effort);
        }
        for (line, subject) in lines.iter_mut().zip(subjects) {
            line.kms = subject.kms_calls();
        }
        Self { lines }
    }

    pub(crate) fn print(&self) {
        println!(
            "Nanoseconds a call, and the multiple of the first row's time in this run; {} bytes of AAD where there is \
             AAD.\nOver: bytes that are stored beyond a field of {FIELD}. KMS calls, {} ms each: for {} and {} \
             encryptions at once under a new key;\nfor as many decryptions at once in a process that has just begun; \
             for {KEYS} new keys in turn.\n",
            AAD.len(),
            LATENCY.as_millis(),
            CROWDS[0],
            CROWDS[1],
        );
        println!("{}\n", self.grid());
        for line in &self.lines {
            if let Some(note) = &line.note {
                println!("{}: {note}", line.name);
            }
        }
    }

    /// Prints how many times faster one row is than another, for a field.
    pub(crate) fn compare(&self, name: &str, other: &str) {
        let field = |name| {
            self.lines
                .iter()
                .find(|line| line.name == name)
                .map(|line| &line.nanos[..2])
        };
        let (Some(ours), Some(theirs)) = (field(name), field(other)) else {
            panic!("the table has no such rows");
        };
        println!(
            "{FIELD} bytes: {name}, takes 1/{:.1} of the time of {other}, to encrypt, and 1/{:.1} to decrypt.",
            theirs[0] / ours[0],
            theirs[1] / ours[1],
        );
    }

    fn grid(&self) -> Grid {
        let mut grid = Grid::new();
        grid.load_style(ASCII_MARKDOWN);
        let mut header = vec![String::new()];
        for len in LENGTHS {
            header.push(format!("encrypt {}", bytes(len)));
            header.push(format!("decrypt {}", bytes(len)));
        }
        header.push("over".to_owned());
        header.extend(CROWDS.map(|count| format!("KMS, {count} encrypt")));
        header.extend(CROWDS.map(|count| format!("KMS, {count} decrypt")));
        header.push(format!("KMS, {KEYS} keys"));
        grid.set_header(header);
        let floor = &self.lines[0].nanos;
        for line in &self.lines {
            grid.add_row(line.cells(floor));
        }
        for column in grid.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        grid
    }
}

impl Line {
    fn cells(&self, floor: &[f64]) -> Vec<String> {
        let mut cells = vec![self.name.to_owned()];
        let times = self.nanos.iter().zip(floor);
        cells.extend(times.map(|(nanos, floor)| format!("{nanos:.0} {:.1}×", nanos / floor)));
        cells.push(self.overhead.to_string());
        match self.kms {
            Some(KmsCalls {
                encrypt,
                decrypt,
                keys,
            }) => {
                cells.extend(encrypt.into_iter().chain(decrypt).map(stampede));
                cells.push(keys.to_string());
            }
            None => cells.extend(std::iter::repeat_n("–".to_owned(), 5)),
        }
        cells
    }
}

fn stampede(Stampede { calls, failed }: Stampede) -> String {
    match failed {
        0 => calls.to_string(),
        _ => format!("{calls}, {failed} failed"),
    }
}

fn bytes(len: usize) -> String {
    match len >> 10 {
        0 => format!("{len} B"),
        kib => format!("{kib} KiB"),
    }
}

fn add(lines: &mut [Line], runs: &[Run<'_>], effort: Effort) {
    for (line, nanos) in lines.iter_mut().zip(least_nanos(runs, effort)) {
        line.nanos.push(nanos);
    }
}

/// Times all in turns, and returns the minimum of each, in nanoseconds per call.
fn least_nanos(runs: &[Run<'_>], effort: Effort) -> Vec<f64> {
    let calls: Vec<_> = runs.iter().map(calls_a_turn).collect();
    let mut least = vec![f64::INFINITY; runs.len()];
    for _ in 0..effort.rounds {
        for ((run, &calls), least) in runs.iter().zip(&calls).zip(&mut least) {
            *least = (run(calls).as_secs_f64() * 1e9 / calls as f64).min(*least);
        }
    }
    least
}

/// Finds the number of calls that fill a turn. An interrupted turn looks full after a single call, so this also takes
/// the minimum of several tries.
fn calls_a_turn(run: &Run<'_>) -> u64 {
    let mut calls = 1;
    while (0..5).map(|_| run(calls)).min() < Some(TURN) {
        calls *= 2;
    }
    calls
}
