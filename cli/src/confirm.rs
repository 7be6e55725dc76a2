//! Confirmation before an irreversible change.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Result, bail};

/// The options of commands that change something.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    /// The reason for the audit log: at most 1024 bytes, no secrets
    #[arg(long, value_name = "REASON")]
    pub(crate) because: Option<String>,
    /// Show what would be done; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

impl Change {
    /// Asks for confirmation. Refuses without a terminal unless `--yes` was given.
    pub(crate) fn confirm(&self, what: &str) -> Result<()> {
        confirm(self.yes, what)
    }
}

/// Asks for confirmation unless `yes`. Refuses without a terminal.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        bail!("{what}: there is no terminal to ask, so say --yes");
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{}. Go on? [y/N] ", crate::output::printable(what))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}
