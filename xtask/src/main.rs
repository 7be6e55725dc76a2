//! Maintainers' tasks: `cargo xtask NAME`.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a maintainer's tool: a panic leaves nothing in place"
)]

mod golden;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask make-golden

  make-golden   writes the golden files of the version in Cargo.toml, before its release";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["make-golden"] => golden::make().await,
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
