//! `encx shred`: destroys every key of a context, with a plan before and a receipt after.

mod done;
mod plan;
mod planned;
mod replay;
mod run;
mod state;
mod verify;

use anyhow::Result;

use crate::exit::Exit;
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Says what a shredding would destroy, and what would survive it; changes nothing
    Plan(plan::Args),
    /// Destroys what a plan says, and writes a receipt for each context
    Run(run::Args),
    /// Checks receipts, and that nothing of what they list opens; exits 3 on a finding
    Verify(verify::Args),
    /// Destroys again what receipts list and a restored database has alive
    Replay(replay::Args),
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    match command {
        Command::Plan(args) => plan::run(session, args).await,
        Command::Run(args) => run::run(session, args).await,
        Command::Verify(args) => verify::run(session, &args).await,
        Command::Replay(args) => replay::run(session, args).await,
    }
}
