//! The program `encx`.

use std::process::ExitCode;

use encx_config::Loader;

fn main() -> ExitCode {
    encx_cli::run(Loader::from_env())
}
