//! The cost of encrypting and decrypting on a hot key, as a multiple of the bare cipher's cost in the same run.
//!
//! ```text
//! cargo bench --bench hot_path              everything, about three minutes
//! cargo bench --bench hot_path -- --quick   the same, less exactly
//! cargo bench --bench hot_path -- encrypt   criterion's part for what matches, then the table
//! cargo bench --bench hot_path -- table     the table alone
//! cargo bench --bench hot_path --features aws-lc-rs,ring    with the fastest cipher library, in encx and in the floor
//! ```
//!
//! Criterion times each case separately, and compares it with the previous run. The table at the end does not use these
//! figures: on a shared machine, two cases timed a minute apart see different conditions. Instead, the cases of one row
//! alternate in turns of about a millisecond, hundreds of times. Each turn is divided by the floor's time in the same
//! round, and the table shows the median. This cancels disturbances and clock changes. Memory layout can favour one
//! case, so keys, buffers and threads are recreated every few rounds. The table is also written to `hot_path.json` in
//! the target directory.
//!
//! A call on a hot key never waits, so its future is polled once, without a runtime: this times encx, not an executor.
//! A runtime runs beside it for the cache's background work, as in a service.
#![allow(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
#![allow(clippy::print_stdout, reason = "figures are what a bench is for")]

mod cold;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod timed;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

use support::cases::{Hot, Row};
use table::{Effort, Table};
use timed::timed_on;

/// The lengths of the plaintexts, in bytes.
const LENGTHS: [usize; 4] = [64, 1 << 10, 16 << 10, 1 << 20];

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
    if let [mode, keyrings] = &args[..]
        && mode == service::FOOTPRINT
    {
        let bytes = keyrings.parse().ok().and_then(service::footprint);
        println!("{}", bytes.map(|bytes| bytes.to_string()).unwrap_or_default());
        return;
    }
    if !has("table") {
        let hot = Hot::new();
        let rows = rows(&hot);
        let mut criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_millis(800))
            .sample_size(20)
            .nresamples(10_000)
            .without_plots()
            .configure_from_args();
        for threads in [1, 2] {
            for row in &rows {
                bench(&mut criterion, row, threads);
            }
        }
        criterion.final_summary();
    }
    if has("--list") || has("--profile-time") {
        return;
    }
    // Cargo passes `--bench` to benches. Without it this runs as a test, which only checks that it works.
    let benched = has("--bench") && !has("--test");
    let effort = match () {
        () if !benched => Effort::TEST,
        () if has("--quick") => Effort::QUICK,
        () => Effort::FULL,
    };
    let table = Table::measure(effort);
    if benched {
        table.print();
        table.write();
    }
}

/// Lists the timed cases, for every length.
fn rows(hot: &Hot) -> Vec<Row<'_>> {
    LENGTHS.into_iter().flat_map(|len| hot.rows(len)).collect()
}

fn bench(criterion: &mut Criterion, row: &Row<'_>, threads: usize) {
    let name = match threads {
        1 => row.name.to_owned(),
        _ => format!("{}/{threads}-threads", row.name),
    };
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes((row.len * threads) as u64));
    group.sampling_mode(if row.len < 1 << 20 {
        SamplingMode::Auto
    } else {
        SamplingMode::Flat
    });
    for case in &row.cases {
        group.bench_function(BenchmarkId::new(case.name, row.len), |bencher| {
            bencher.iter_custom(|calls| timed_on(&*case.run, calls, threads));
        });
    }
    group.finish();
}
