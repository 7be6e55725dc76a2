//! `encx adopt`: turns plaintext columns into encrypted ones, step by step.

use anyhow::{Result, bail};
use encx::Crypto;
use encx::record::RowIdKind;
use encx_config::{DeclaredColumn, DeclaredPlaintext};
use encx_tables::{Adoption, AdoptionJobs, PlaintextColumn, Rows};
use serde::Serialize;

use crate::columns::{ColumnArgs, WalkArgs, name_of};
use crate::exit::Exit;
use crate::output::tell;
use crate::progress::{Work, exit_of, follow_work};
use crate::session::Session;

/// The columns are those of encx.toml with `plaintext = { column = .., kind = .., until = .. }`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Encrypts every plaintext that has no ciphertext beside it
    Backfill(WalkArgs),
    /// Opens every ciphertext beside a plaintext and compares them; changes nothing
    Verify(WalkArgs),
    /// Sets every plaintext to NULL whose ciphertext opens to it; this cannot be taken back
    Contract(ContractArgs),
    /// Counts rows by which of the two columns have a value
    Status(ColumnArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ContractArgs {
    #[command(flatten)]
    step: WalkArgs,
    /// Ask nothing
    #[arg(long, short = 'y')]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Backfill,
    Verify,
    Contract,
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    let (columns, step) = match &command {
        Command::Status(columns) => (columns, None),
        Command::Backfill(step) => (&step.columns, Some((Kind::Backfill, step))),
        Command::Verify(step) => (&step.columns, Some((Kind::Verify, step))),
        Command::Contract(args) => (&args.step.columns, Some((Kind::Contract, &args.step))),
    };
    let adopted = adopted(session, columns)?;
    if let Command::Contract(args) = &command
        && !args.step.dry_run
    {
        let plain = adopted
            .iter()
            .map(|(declared, plain)| format!("{}.{}", declared.column.sql_table, plain.sql_column));
        let plain: Vec<_> = plain.collect();
        crate::confirm::confirm(
            args.yes,
            &format!(
                "set the plaintexts of {} to NULL, so that the data lives in its ciphertexts alone: this cannot be taken back",
                plain.join(", ")
            ),
        )?;
    }
    session
        .with_rows(async |rows, crypto| match step {
            None => status(session, &adopted, rows, crypto).await,
            Some((kind, step)) => walk(session, kind, step, &adopted, rows, crypto).await,
        })
        .await
}

type Adopted<'s> = Vec<(&'s DeclaredColumn, &'s DeclaredPlaintext)>;

/// Finds the columns that are being adopted.
fn adopted<'s>(session: &'s Session, columns: &ColumnArgs) -> Result<Adopted<'s>> {
    let declared = columns.of(&session.settings)?;
    let adopted: Vec<_> = declared
        .iter()
        .filter_map(|declared| Some((*declared, declared.plaintext.as_ref()?)))
        .collect();
    if adopted.is_empty() || (columns.are_named() && adopted.len() < declared.len()) {
        let without = declared.iter().filter(|declared| declared.plaintext.is_none());
        let names: Vec<_> = without.map(|declared| name_of(declared)).collect();
        bail!(
            "encx.toml names no plaintext column for {}: add `plaintext = {{ column = \"..\", kind = \"text\", until = \"2027-03-31\" }}`",
            names.join(", ")
        );
    }
    Ok(adopted)
}

fn jobs(
    rows: &Rows,
    crypto: &Crypto,
    declared: &DeclaredColumn,
    plain: &DeclaredPlaintext,
) -> Result<AdoptionJobs> {
    let name = &plain.sql_column;
    let column = match plain.kind {
        RowIdKind::Bytes => PlaintextColumn::bytes(name),
        RowIdKind::Integer => PlaintextColumn::integer(name),
        RowIdKind::Uuid => PlaintextColumn::uuid(name),
        _ => PlaintextColumn::text(name),
    };
    let until = Adoption::try_until(&plain.until)?;
    Ok(rows.adopt(crypto, column, declared.column.clone(), until)?)
}

async fn walk(
    session: &Session,
    kind: Kind,
    step: &WalkArgs,
    adopted: &Adopted<'_>,
    rows: &Rows,
    crypto: &Crypto,
) -> Result<Exit> {
    let mut exit = Exit::Done;
    for (declared, plain) in adopted {
        let adoption = jobs(rows, crypto, declared, plain)?;
        let status = adoption.status().await?;
        let (what, total, job) = match kind {
            Kind::Backfill => (
                "encrypting plaintexts",
                status.plaintext_only,
                adoption.backfill(),
            ),
            Kind::Verify => (
                "comparing plaintexts",
                status.plaintext_only + status.both,
                adoption.verify(),
            ),
            Kind::Contract => (
                "contracting plaintexts",
                status.plaintext_only + status.both,
                adoption.contract(),
            ),
        };
        let work = Work {
            what: what.to_owned(),
            column: Some(name_of(declared)),
            total: Some(total),
            tells: true,
        };
        let report = follow_work(session.output, &work, step.paced(job).start()).await?;
        exit = exit.worse(exit_of(&report));
        if exit == Exit::Interrupted {
            break;
        }
    }
    Ok(exit)
}

/// How far an adoption is.
#[derive(Debug, Serialize)]
struct View {
    table: String,
    column: String,
    plaintext: String,
    until: String,
    plaintext_only: u64,
    both: u64,
    ciphertext_only: u64,
    contracted: bool,
}

async fn status(session: &Session, adopted: &Adopted<'_>, rows: &Rows, crypto: &Crypto) -> Result<Exit> {
    let mut views = Vec::with_capacity(adopted.len());
    for (declared, plain) in adopted {
        let status = jobs(rows, crypto, declared, plain)?.status().await?;
        views.push(View {
            table: declared.column.sql_table.clone(),
            column: declared.column.sql_column.clone(),
            plaintext: plain.sql_column.clone(),
            until: plain.until.clone(),
            plaintext_only: status.plaintext_only,
            both: status.both,
            ciphertext_only: status.ciphertext_only,
            contracted: status.contracted,
        });
    }
    let header = [
        "COLUMN",
        "PLAINTEXT",
        "UNTIL",
        "PLAINTEXT ONLY",
        "BOTH",
        "CIPHERTEXT ONLY",
        "CONTRACTED",
    ];
    session.output.list(header, &views, |view| {
        [
            format!("{}.{}", view.table, view.column),
            view.plaintext.clone(),
            view.until.clone(),
            view.plaintext_only.to_string(),
            view.both.to_string(),
            view.ciphertext_only.to_string(),
            if view.contracted { "yes" } else { "no" }.to_owned(),
        ]
    })?;
    for view in &views {
        let next = match (view.plaintext_only, view.both) {
            (0, 0) => "no plaintext is left: drop its column",
            (0, _) => "verify, deploy services that read the ciphertext alone, then contract",
            (_, _) if view.contracted => "plaintexts came after the contraction: find out what writes them",
            _ => "backfill",
        };
        tell(&format!("{}.{}: {next}", view.table, view.column));
    }
    Ok(Exit::Done)
}
