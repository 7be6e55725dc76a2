//! `encx report`: the report for auditors, as HTML or JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tempfile::Builder;

use crate::exit::Exit;
use crate::output::{columns, tell};
use crate::receipts::{ReceiptError, Receipts};
use crate::report::{Asked, Level, Report, gather, page};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the report as one self-contained HTML file; `-` for stdout
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Count the rows of the declared columns by key; reads these tables
    #[arg(long)]
    census: bool,
    /// Show the shredding receipts in this folder, and check that the versions they list are still destroyed
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,
    /// Show usage and cost for this many days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=400))]
    days: u32,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let is_stdout = args.html.as_deref() == Some(Path::new("-"));
    if is_stdout && session.output.is_json() {
        bail!("stdout takes one of both: give --html a file, or leave --format json out");
    }
    let receipts = match args.receipts.as_deref().map(Receipts::read) {
        // A missing folder is wrong usage, not a finding.
        Some(Err(error @ ReceiptError::Io { .. })) => return Err(error.into()),
        read => read,
    };
    let crypto = session.lazy_crypto().await?;
    let asked = Asked {
        days: args.days,
        census: args.census,
        receipts,
    };
    let gathered = tokio::select! {
        gathered = Box::pin(gather(session, &crypto, asked)) => Some(gathered),
        _ = tokio::signal::ctrl_c() => None,
    };
    // After a failure too: `keys destroy` waits for processes that did not sign off.
    crypto.shutdown().await;
    let Some(gathered) = gathered else {
        return Ok(Exit::Interrupted);
    };
    let report = gathered?;
    match &args.html {
        Some(_) if is_stdout => session.output.text(&page(&report))?,
        Some(file) => {
            write(file, &page(&report)).with_context(|| format!("could not write {}", file.display()))?;
            tell(&format!("{}: {}", file.display(), in_short(&report)));
        }
        None => {}
    }
    if args.html.is_none() || session.output.is_json() {
        session.output.object(&report, || summary(&report))?;
    }
    Ok(Exit::Done)
}

/// Replaces the file atomically, so a reader never sees a part.
fn write(file: &Path, page: &str) -> Result<()> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = Builder::new();
    builder.prefix(".encx-report-");
    // As for other new files, the umask decides who may read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder)?;
    temporary.write_all(page.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}

fn summary(report: &Report) -> String {
    let rows = report.summary.iter().map(|check| {
        [
            check.topic.to_owned(),
            check.level.name().to_owned(),
            check.says.clone(),
        ]
    });
    columns(Some(["TOPIC", "STATUS", "FOUND"]), rows)
}

fn in_short(report: &Report) -> String {
    let count = |level| report.summary.iter().filter(|check| check.level == level).count();
    format!(
        "{} topics in order, {} need attention, {} have findings, {} are not known",
        count(Level::InOrder),
        count(Level::Attention),
        count(Level::Finding),
        count(Level::NotKnown)
    )
}
