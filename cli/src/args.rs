//! What the program is told on the command line.

use clap::{Parser, Subcommand};

use crate::commands::{
    audit, completions, config, doctor, inspect, keks, keys, local, maintain, man, migrate, rewrap, rotate,
    shred, status, validate,
};
use crate::session::Global;

/// Operates the keys of encx: lists what there is and what is due, rotates, moves to other KEKs.
///
/// Settings come from the environment (`ENCX_KMS`, `ENCX_KEY_STORE`, ..) and encx.toml, as for the service: see `encx config
/// show`. Data goes to stdout, all else to stderr.
///
/// Exit codes: 0 done; 1 wrong usage or settings; 2 the KMS or the key store failed; 3 a finding; 4 a rule refuses it;
/// 130 stopped by Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "encx", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads the audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Writes what completes commands in a shell
    Completions(completions::Args),
    /// Shows and checks settings
    #[command(subcommand)]
    Config(config::Command),
    /// Looks for what is wrong with settings, database, KEKs and keys; exits 3 if something is
    Doctor(doctor::Args),
    /// Says what a ciphertext's header holds; decrypts nothing
    Inspect(inspect::Args),
    /// Lists and checks KEKs
    #[command(subcommand)]
    Keks(keks::Command),
    /// Lists keys and changes their states
    #[command(subcommand)]
    Keys(keys::Command),
    /// Makes and changes a file of local KEKs
    #[command(subcommand)]
    Local(local::Command),
    /// Rotates what is due, once or for as long as it runs
    Maintain(maintain::Args),
    /// Writes manual pages
    Man(man::Args),
    /// Creates and updates the key store's tables
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Moves all keys to the KEKs that the KEK rule chooses
    Rewrap(rewrap::Args),
    /// Rotates the keys of all contexts and moves every row of the declared columns to the new versions
    Rotate(rotate::Args),
    /// Destroys every key of a context, with a plan before and a receipt after
    #[command(subcommand)]
    Shred(shred::Command),
    /// Shows KMSs, keys, processes, what is due and what it costs
    Status(status::Args),
    /// Does the whole chain under an encryption context, and leaves nothing behind
    Validate(validate::Args),
    /// Writes the program's version
    Version,
}
