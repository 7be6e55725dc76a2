//! Command-line arguments.

use clap::{Parser, Subcommand};

use crate::columns::WalkArgs;
use crate::commands::{
    adopt, audit, census, columns, completions, config, doctor, inspect, keks, keys, local, maintain, man,
    migrate, report, rewrap, rotate, shred, status, validate, verify,
};
use crate::session::Global;

/// Operate the keys of encx: list, check, rotate, rewrap, shred.
///
/// Settings come from the environment (`ENCX_KMS`, `ENCX_KEY_STORE`, ..) and encx.toml, as for the service; `encx
/// config show` lists them. Data goes to stdout, everything else to stderr.
///
/// Exit codes: 0 done; 1 wrong usage or settings; 2 the KMS or the key store failed; 3 finding; 4 refused by a
/// rule; 130 stopped by Ctrl-C.
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
    /// Encrypt plaintext columns in use: backfill, verify, contract
    #[command(subcommand)]
    Adopt(adopt::Command),
    /// Read the audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Count rows of declared columns by data key; exit 3 if a row cannot be read
    Census(census::Args),
    /// List and check the declared columns
    #[command(subcommand)]
    Columns(columns::Command),
    /// Write a shell completion script
    Completions(completions::Args),
    /// Show and check settings
    #[command(subcommand)]
    Config(config::Command),
    /// Check settings, database, KEKs and keys; exit 3 on a finding
    Doctor(doctor::Args),
    /// Show a ciphertext's header; decrypt nothing
    Inspect(inspect::Args),
    /// List and check KEKs
    #[command(subcommand)]
    Keks(keks::Command),
    /// List keys and change their states
    #[command(subcommand)]
    Keys(keys::Command),
    /// Create and change a file of local KEKs
    #[command(subcommand)]
    Local(local::Command),
    /// Rotate due keys, once or as a daemon
    Maintain(maintain::Args),
    /// Write manual pages
    Man(man::Args),
    /// Create and update the key store's tables
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Re-encrypt rows that are not under the active version of their key
    Reencrypt(WalkArgs),
    /// Write a report for auditors, as HTML or JSON
    Report(report::Args),
    /// Move all keys to the KEKs that the KEK rule chooses
    Rewrap(rewrap::Args),
    /// Rotate the keys of all contexts and re-encrypt every row of the declared columns
    Rotate(rotate::Args),
    /// Destroy every key of a context, with a plan before and a receipt after
    #[command(subcommand)]
    Shred(shred::Command),
    /// Show KMSs, keys, processes, due rotations and cost
    Status(status::Args),
    /// Test the whole chain under an encryption context; store nothing
    Validate(validate::Args),
    /// Decrypt rows of declared columns and say why any fail; exit 3 if any do
    Verify(verify::Args),
    /// Print the program's version
    Version,
}
