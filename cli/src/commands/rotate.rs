//! `encx rotate --everything`: rotates every context and re-encrypts every row.

mod campaign;
mod old_versions;
mod report;
mod stages;

use std::time::Duration;

use anyhow::{Result, bail};
use encx_config::DeclaredColumn;
use encx_tables::Rows;

use crate::confirm::Change;
use crate::exit::Exit;
use crate::output::tell;
use crate::record::moment;
use crate::rows;
use crate::session::Session;

use self::campaign::Campaign;
use self::report::Told;
use self::stages::{Ended, Stages};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rotate the keys of all contexts, then re-encrypt and verify every row of the declared columns. `encx keys
    /// rotate` rotates one context
    #[arg(long, required = true)]
    everything: bool,
    /// Begin a new rotation although the last one is not done
    #[arg(long)]
    restart: bool,
    /// Wait at most this long for every process to follow the rotation
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Process at most this many keys, then rows, per second
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    throttle: Option<u32>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let Some(reason) = &args.change.because else {
        bail!("say why, with --because: the audit log keeps it");
    };
    let columns = session.settings.columns();
    let rows: Option<Rows> = match columns.is_empty() {
        true => None,
        false => Some(rows::connect(&session.settings).await?),
    };
    let store = session.store().await?;
    let manager = session.manager(Some(reason)).await?;
    let campaign = match args.change.dry_run {
        true => Campaign::look(&*store, &manager, args.restart).await?,
        false => Campaign::open(&*store, &manager, args.restart).await?,
    };
    let since = moment(campaign.before);
    tell(&match campaign.goes_on {
        true => format!(
            "going on with the rotation that began at {since} and was not done; --restart begins another"
        ),
        false => format!("rotating every key that became active before {since}"),
    });
    let stages = Stages {
        session,
        store: &*store,
        campaign: &campaign,
        throttle: args.throttle,
        dry_run: args.change.dry_run,
    };
    let mut told = Told::new(session.output);
    let ended = through(&stages, &mut told, &manager, (rows, columns), args.patience).await?;
    if let Ended::Early(exit) = ended {
        return Ok(exit);
    }
    if args.change.dry_run {
        return told.dry_run_result();
    }
    if told.is_done() {
        campaign.finish(&*store).await?;
    }
    told.result()
}

/// Runs the stages and collects what keeps the rotation from being done.
async fn through(
    stages: &Stages<'_>,
    told: &mut Told,
    manager: &encx::keys::KeyManager,
    (rows, columns): (Option<Rows>, &[DeclaredColumn]),
    patience: Duration,
) -> Result<Ended> {
    let walked = stages.columns(told, rows.as_ref(), columns).await?;
    if let Some(early) = stages.rotate(told, manager).await? {
        return Ok(early);
    }
    if !stages.dry_run {
        if let Some(early) = stages.processes(told, manager, patience).await? {
            return Ok(early);
        }
        if let Some(rows) = &rows
            && let Some(early) = stages.rows(told, rows, &walked).await?
        {
            return Ok(early);
        }
    }
    told.stage(6, "old versions", "counting rows under old versions")?;
    tokio::select! {
        listed = old_versions::list(stages, told) => listed?,
        _ = tokio::signal::ctrl_c() => return Ok(Ended::Early(Exit::Interrupted)),
    }
    Ok(Ended::AtTheEnd)
}
