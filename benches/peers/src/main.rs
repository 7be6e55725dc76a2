//! Measures encx and its peers side by side: the same payloads, a local KEK for all, one run, one table.
//!
//! ```text
//! cargo run --release                the first build takes a quarter of an hour
//! cargo run --release -- --quick     the same, less exactly
//! cargo run --release --no-default-features --features aws-lc-rs
//!                                    without aws-esdk, which is most of the build
//! ```
//!
//! Each row of the table is a library in the configuration that its own documentation recommends for a service. Its
//! file describes it, and the README states what it does more and less than encx.
#![allow(clippy::disallowed_methods, reason = "a bench measures the machine's time")]

mod asherah;
#[cfg(feature = "aws-esdk")]
mod aws_esdk;
mod encx;
mod floor;
mod support;
mod tink;

use support::Subject;
use support::table::{Effort, Table};

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let subjects = subjects();
    for subject in &subjects {
        subject.check();
    }
    let table = Table::measure(&subjects, effort);
    table.print();
    for peer in [asherah::SESSION, asherah::JSON] {
        table.compare(encx::KEYRING, peer);
    }
}

/// Lists the measured subjects: the floor first, because every figure is also a multiple of its time.
fn subjects() -> Vec<Box<dyn Subject>> {
    let mut subjects = Vec::from(floor::subjects());
    subjects.extend(encx::subjects());
    subjects.extend(asherah::subjects());
    subjects.extend(tink::subjects());
    #[cfg(feature = "aws-esdk")]
    subjects.extend(aws_esdk::subjects());
    subjects
}
