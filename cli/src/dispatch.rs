//! Runs commands, and maps their errors to exit codes.

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use crate::args::{Args, Command};
use crate::commands::{
    adopt, audit, census, columns, completions, config, doctor, inspect, keks, keys, local, maintain, man,
    migrate, reencrypt, report, rewrap, rotate, shred, status, validate, verify,
};
use crate::exit::{self, Exit};
use crate::output::{Output, tell};
use crate::program::Program;
use crate::session::Session;

/// Runs a command and prints its error.
pub(crate) fn run(program: &Program, args: Args) -> ExitCode {
    match dispatch(program, args) {
        Ok(exit) => exit,
        Err(error) if is_broken_pipe(&error) => Exit::BrokenPipe,
        Err(error) => {
            tell(&format!("encx: {}", exit::describe(&error)));
            Exit::of(&error)
        }
    }
    .into()
}

fn dispatch(program: &Program, args: Args) -> Result<Exit> {
    let output = Output(args.global.format);
    match args.command {
        Command::Inspect(ref args) if !args.resolve => return inspect::run(output, args, None),
        Command::Completions(args) => return completions::run(&args, Args::command()),
        Command::Local(command) => return wait(local::run(command, output)),
        Command::Man(args) => return man::run(&args, Args::command()),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            output.object(&serde_json::json!({ "version": version }), || {
                format!("encx {version}")
            })?;
            return Ok(Exit::Done);
        }
        _ => {}
    }
    let session = Session::new(program, &args.global)?;
    match args.command {
        Command::Adopt(command) => wait(adopt::run(&session, command)),
        Command::Audit(command) => wait(audit::run(&session, command)),
        Command::Census(args) => wait(census::run(&session, args)),
        Command::Columns(command) => wait(columns::run(&session, command)),
        Command::Config(command) => wait(config::run(&session, command)),
        Command::Doctor(args) => wait(doctor::run(&session, args)),
        Command::Inspect(args) => wait(inspect::resolve(&session, &args)),
        Command::Keks(command) => wait(keks::run(&session, command)),
        Command::Keys(command) => wait(keys::run(&session, command)),
        Command::Maintain(args) => wait(maintain::run(&session, args)),
        Command::Migrate(command) => wait(migrate::run(&session, command)),
        Command::Reencrypt(args) => wait(reencrypt::run(&session, args)),
        Command::Report(args) => wait(report::run(&session, args)),
        Command::Rewrap(args) => wait(rewrap::run(&session, args)),
        Command::Rotate(args) => wait(rotate::run(&session, args)),
        Command::Shred(command) => wait(shred::run(&session, command)),
        Command::Status(args) => wait(status::run(&session, args)),
        Command::Validate(args) => wait(validate::run(&session, args)),
        Command::Verify(args) => wait(verify::run(&session, args)),
        // Handled above, because they need no settings.
        Command::Completions(_) | Command::Local(_) | Command::Man(_) | Command::Version => Ok(Exit::Done),
    }
}

/// Runs a command that waits for servers and files.
fn wait(command: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A hanging connection must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

/// Tells whether the reader of stdout has exited, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
