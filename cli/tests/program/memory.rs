//! Peak memory of walks over a large table.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::sealed::{SSN, add_rows, create_table, number};
use crate::support::{Database, Place};

/// A job has 1000 rows in hand, so that many more than that show what it keeps.
const ROWS: i64 = 200_000;

/// Rows of one `INSERT`.
const BATCH: i64 = 10_000;

/// The most that a process may have resident, whatever the table's size.
const MOST: u64 = 150 << 20;

/// Runs the program to its end and returns its peak resident memory in bytes.
fn peak_of(place: &Place, args: &[&str]) -> u64 {
    let mut child = place
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak = 0;
    // The kernel tells the peak until the process ends, and it only grows.
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_so_far(&child));
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(peak > 0, "{args:?} ended before it was looked at");
    peak
}

fn peak_so_far(child: &Child) -> u64 {
    // Gone, or a zombie, which has no memory.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[allow(clippy::print_stdout, reason = "the figures, for --nocapture")]
fn walks_are_bounded(database: Database) {
    let place = Place::new(database);
    place.write_private("encx.toml", SSN);
    create_table(&place, "users");
    for first in (0..ROWS).step_by(usize::try_from(BATCH).unwrap()) {
        add_rows(&place, "users", first..first + BATCH, 20);
    }
    // One version of each context is old, so that there is something to re-encrypt and to count.
    for tenant in 0..2 {
        let context = format!("tenantId=t-{tenant}");
        place.ok(&["keys", "rotate", "-c", &context, "-c", "purpose=pii"]);
    }
    for args in [&["census"][..], &["verify", "--all"], &["reencrypt"]] {
        let peak = peak_of(&place, args);
        println!(
            "{database:?}, {ROWS} rows: encx {}: {} MiB",
            args.join(" "),
            peak >> 20
        );
        assert!(peak < MOST, "{args:?}: {} MiB", peak >> 20);
    }
    let count = number(&place, "SELECT count(*) FROM users", "SELECT count(*) FROM users");
    assert_eq!(count, ROWS);
}

#[test]
fn walks_over_a_large_table_in_sqlite_are_bounded() {
    walks_are_bounded(Database::Sqlite);
}

#[test]
fn walks_over_a_large_table_in_postgres_are_bounded() {
    walks_are_bounded(Database::Postgres);
}
