//! `encx keys`: lists keys and changes their states.

pub(super) mod change;
mod destroy;
mod list;

use anyhow::Result;

pub(super) use self::change::would;

use crate::exit::Exit;
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Lists key versions of all contexts, oldest first
    List(list::Args),
    /// Lists what is due for rotation; exits 3 if anything is
    NeedsRotation(list::DueArgs),
    /// Shows one key version
    Show(change::Id),
    /// Makes the first key of a context
    Create(change::OfContext),
    /// Makes a new version, which encrypts from now on; older ones go on decrypting
    Rotate(change::OfContext),
    /// Makes a key for a context all of whose versions were destroyed
    Revive(change::OfContext),
    /// Takes a version out of use until it is resumed: it neither encrypts nor decrypts
    Suspend(change::OfVersion),
    /// Puts a suspended version back into the state that it had
    Resume(change::OfVersion),
    /// Marks a version as known to others: it never encrypts again, and decrypts only where a service accepts that
    Compromise(change::OfVersion),
    /// Destroys a version in steps: call it again until it says so
    Destroy(destroy::Args),
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    match command {
        Command::List(args) => list::run(session, args).await,
        Command::NeedsRotation(args) => list::needs_rotation(session, args).await,
        Command::Show(id) => change::show(session, &id).await,
        Command::Create(args) => change::create(session, args).await,
        Command::Rotate(args) => change::rotate(session, args).await,
        Command::Revive(args) => change::revive(session, args).await,
        Command::Suspend(args) => change::suspend(session, args).await,
        Command::Resume(args) => change::resume(session, args).await,
        Command::Compromise(args) => change::compromise(session, args).await,
        Command::Destroy(args) => destroy::run(session, args).await,
    }
}
