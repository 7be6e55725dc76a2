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
    /// Show what a shredding would destroy and what would survive; change nothing
    Plan(plan::Args),
    /// Destroy what a plan lists, and write a receipt for each context
    Run(run::Args),
    /// Check receipts, and that nothing they list decrypts; exit 3 on a finding
    Verify(verify::Args),
    /// Destroy again what receipts list and a restored database brought back
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
