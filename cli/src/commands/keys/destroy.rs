//! `encx keys destroy`.

use std::time::Duration;

use anyhow::Result;
use encx::keys::Destruction;
use encx::store::StoreError;

use crate::commands::keys::change::{Found, Id, would, write};
use crate::confirm::Change;
use crate::exit::{Exit, Refused};
use crate::output::tell;
use crate::record::{KeyView, moment};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    id: Id,
    /// Suspend the version for this long before it is destroyed [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    quarantine: Option<Duration>,
    /// Destroy without a quarantine, for this reason
    #[arg(long, value_name = "REASON", conflicts_with = "quarantine")]
    without_quarantine: Option<String>,
    /// Destroy although encx.toml declares no column whose rows could be counted
    #[arg(long)]
    without_census: bool,
    /// Destroy the version and all data under it without counting rows, for this reason
    #[arg(long, value_name = "REASON", conflicts_with_all = ["quarantine", "without_quarantine", "without_census"])]
    with_data: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let mut found = Found::new(session, &args.id, args.change.because.as_deref()).await?;
    let what = format!("destroy {}", found.name());
    let may_become = |to| found.record.state.may_become(to, found.record.suspended_from);
    if !may_become(encx::keys::KeyState::Destroyed) && found.record.state != encx::keys::KeyState::Destroyed {
        let advice = "rotate first, so that another version encrypts";
        return Err(Refused(format!("cannot {what}: it is {}; {advice}", found.record.state)).into());
    }
    if let Some(reason) = &args.with_data {
        if args.change.dry_run {
            return would(&format!("{what} and all that it encrypted"));
        }
        args.change.confirm(&format!(
            "{what} AND ALL THAT IT ENCRYPTED; this cannot be taken back"
        ))?;
        let (context, id) = (&found.context, found.record.id);
        let gone = found.manager.destroy_with_data(context, id, reason).await?;
        write(session.output, &KeyView::new(&gone, None))?;
        return Ok(Exit::Done);
    }
    match session.census().await? {
        Some(census) => found.manager = found.manager.with_census(census),
        None if args.without_census => {}
        None => {
            return Err(Refused(
                "encx.toml declares no encrypted columns, so nothing can tell whether a row still needs this version: declare them \
                 as [[column]], or say --without-census"
                    .to_owned(),
            )
            .into());
        }
    }
    if args.change.dry_run {
        return would(&what);
    }
    args.change.confirm(&format!(
        "{what}; once it is destroyed, what it encrypted cannot be read again"
    ))?;
    if let Some(length) = args.quarantine {
        found.manager = found.manager.quarantine(length);
    }
    if let Some(reason) = args.without_quarantine {
        found.manager = found.manager.without_quarantine(reason);
    }
    finish(session, &found).await
}

async fn finish(session: &Session, found: &Found) -> Result<Exit> {
    tell("waiting for every process to follow the last change, for at most a minute");
    match found.manager.destroy(&found.context, found.record.id).await? {
        Destruction::Destroyed(record) => {
            write(session.output, &KeyView::new(&record, None))?;
            Ok(Exit::Done)
        }
        Destruction::Quarantined { record, until } => {
            write(session.output, &KeyView::new(&record, None))?;
            tell(&format!(
                "suspended until {}: watch for reads that are refused, and call this again then",
                moment(until)
            ));
            Ok(Exit::Finding)
        }
        Destruction::AwaitingProcesses(processes) => {
            for silent in &processes.silent {
                tell(&format!(
                    "process {} has not followed yet, last heard of {}",
                    silent.process.name,
                    moment(silent.seen_at)
                ));
            }
            tell("nothing was destroyed: call this again when these processes have followed or ended");
            Ok(Exit::Finding)
        }
        Destruction::AwaitingTransactions { .. } => {
            tell(
                "transactions that began before the suspension are still open: call this again when they have ended",
            );
            Ok(Exit::Finding)
        }
        // A step that this program does not know must not count as the last one.
        _ => Err(StoreError::Unsupported {
            what: "this step of a destruction",
        }
        .into()),
    }
}
