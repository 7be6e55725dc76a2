//! Faults, with real processes and real servers: what users see while processes die, PostgreSQL is killed and the KMS
//! does not answer.
//!
//! The binary is its own worker. Started with a worker's settings in the environment it serves the test's requests,
//! line by line; otherwise it lists and runs tests as `cargo test` expects. It needs `ENCX_TEST_POSTGRES_URL`, a server
//! for tests that do not kill it, and `ENCX_TEST_POSTGRES_BIN`, the folder of PostgreSQL's programs, with which it
//! starts its own server to kill. `./scripts/test` provides both.
//!
//! `ENCX_TEST_ROUNDS` multiplies the length of tests that are bounded by a count; default 1.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod destroy;
mod gates;
mod invariants;
mod jobs;
mod killed_process;
mod killed_server;
mod kms;
mod maintenance;
mod member;
mod outages;
#[path = "../common/pooler.rs"]
mod pooler;
mod process;
mod proxy;
mod races;
mod revocation;
mod rows;
mod scene;
mod server;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(settings) = process::worker_settings() {
        process::serve(settings);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let tests = [
        destroy::tests(),
        jobs::tests(),
        killed_process::tests(),
        killed_server::tests(),
        maintenance::tests(),
        outages::tests(),
        races::tests(),
        revocation::tests(),
        rows::tests(),
    ];
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().flatten().collect());
    server::stop();
    conclusion.exit_code()
}

/// Makes a test from a function.
fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Prints a measurement to the log.
#[allow(clippy::print_stdout, reason = "a test's figures")]
fn say(figure: &str) {
    println!("     {figure}");
}

/// Returns the factor for the length of tests.
fn rounds() -> usize {
    let rounds = std::env::var("ENCX_TEST_ROUNDS");
    rounds.map_or(1, |rounds| rounds.parse().unwrap())
}
