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
    /// List key versions of all contexts, oldest first
    List(list::Args),
    /// List keys that are due for rotation; exit 3 if there are any
    NeedsRotation(list::DueArgs),
    /// Show one key version
    Show(change::Id),
    /// Create the first key of a context
    Create(change::OfContext),
    /// Create a new version that encrypts from now on; older versions still decrypt
    Rotate(change::OfContext),
    /// Create a key for a context whose versions were all destroyed
    Revive(change::OfContext),
    /// Suspend a version: it neither encrypts nor decrypts until it is resumed
    Suspend(change::OfVersion),
    /// Return a suspended version to its previous state
    Resume(change::OfVersion),
    /// Mark a version as compromised: it never encrypts again, and decrypts only where a service accepts that
    Compromise(change::OfVersion),
    /// Destroy a version in steps; repeat until it is destroyed
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
