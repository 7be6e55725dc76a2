//! The program `encx` as a library, for applications with their own KEK rule, KMS or key store.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use encx::kms::{KekChoice, KekRef};
//! use encx_cli::Program;
//! use encx_config::Loader;
//!
//! fn main() -> ExitCode {
//!     let program = Program::new(Loader::from_env()).customize(|builder| {
//!         // The same rule as in the service.
//!         builder.kek_rule(|context| {
//!             let tenant = context.get("tenantId")?;
//!             KekRef::try_from(format!("alias/tenant-{tenant}")).ok().map(KekChoice::new)
//!         })
//!     });
//!     encx_cli::run(program)
//! }
//! ```
//!
//! The README lists commands and exit codes.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod args;
mod columns;
mod commands;
mod confirm;
mod context;
mod dispatch;
mod doctor;
mod exit;
mod keks;
mod output;
mod program;
mod progress;
mod receipts;
mod record;
mod report;
mod row_counts;
mod rows;
mod session;

pub use program::Program;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::exit::Exit;

/// Runs the program with this process's arguments and returns its exit code.
///
/// | code | meaning |
/// | --- | --- |
/// | 0 | done |
/// | 1 | wrong usage or settings, or a local failure |
/// | 2 | the KMS or the key store failed |
/// | 3 | a finding: something is due, missing or failed |
/// | 4 | refused by a rule |
/// | 130 | stopped by Ctrl-C |
/// | 141 | stdout's reader has exited |
pub fn run(program: impl Into<Program>) -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(help_or_error) => {
            // `--help` and `--version` are not errors and go to stdout.
            let exit = match help_or_error.use_stderr() {
                true => Exit::Usage,
                false => Exit::Done,
            };
            // If stdout and stderr are closed, only the exit code is left.
            let _ = help_or_error.print();
            return exit.into();
        }
    };
    dispatch::run(&program.into(), args)
}
