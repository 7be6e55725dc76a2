//! Makes a number of calls of one `hot_path` case, so that `scripts/check-instructions` can count their instructions.
//!
//! ```text
//! cargo run --release -p encx-bench-instructions                           one call of each, and its name
//! cargo run --release -p encx-bench-instructions -- encrypt/keyring 4096   so many calls of this one
//! ```
//!
//! Each case is a process, so its effects on the key, such as ending an epoch, do not affect others. Every case in
//! `benches/support/cases.rs` is a case here, too. This is a separate package, because the tests and benches of the
//! others depend on databases, which take minutes to build.
#![allow(clippy::print_stdout, reason = "the script reads it")]

#[allow(dead_code, reason = "some of it only `hot_path` needs")]
#[path = "../../support/mod.rs"]
mod support;

use std::hint::black_box;

use support::Run;
use support::cases::Hot;

/// The length of the plaintexts, in bytes: small, so that encx's overhead outweighs the cipher.
const LEN: usize = 64;

/// Uncounted calls: they initialize state per thread and per key, and use each message key often enough to cache it.
const WARM_UP: u64 = 64;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let hot = Hot::new();
    let rows = hot.rows(LEN);
    let mut cases = rows.iter().flat_map(|row| {
        let cases = row.cases.iter();
        cases.map(|case| (format!("{}/{}", row.name, case.name), &case.run))
    });
    match &args[..] {
        [wanted, calls] => {
            let calls = calls.parse().expect("a number of calls");
            let (_, run) = cases
                .find(|(name, _)| name == wanted)
                .expect("a case of this name");
            run(WARM_UP);
            counted_calls(&**run, calls);
        }
        _ => {
            for (name, run) in cases {
                run(1);
                println!("{name}");
            }
        }
    }
}

/// Callgrind counts while this function runs; it finds it by name.
#[inline(never)]
fn counted_calls(run: &Run<'_>, calls: u64) {
    run(black_box(calls));
    // Without this, the call above would become a tail call that ends the function.
    black_box(());
}
