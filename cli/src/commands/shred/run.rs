//! `encx shred run`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use encx::keys::KeyState;
use encx::store::{KeyRecord, KeyStore};

use crate::commands::keys::would;
use crate::confirm::Change;
use crate::context::describe;
use crate::exit::{Exit, Refused};
use crate::output::tell;
use crate::receipts::{ReceiptFolder, Receipts, write_whole};
use crate::session::Session;

use super::done::{Done, processes_of, versions_of as destroyed_versions, write};
use super::planned::{Plan, PlannedContext};
use super::state::versions_of;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan that `encx shred plan --out` wrote
    plan: PathBuf,
    /// The folder of receipts; created if missing
    #[arg(long, value_name = "DIR")]
    receipts: PathBuf,
    /// Wait at most this long, per context, for every process to drop its keys
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let text = std::fs::read(&args.plan)
        .with_context(|| format!("the plan {} could not be read", args.plan.display()))?;
    let plan = Plan::parse(&text)?;
    let Some(reason) = &args.change.because else {
        bail!("say why, with --because: the audit log and the receipts keep it");
    };
    let store = session.store().await?;
    if args.change.dry_run {
        let receipts = match args.receipts.exists() {
            true => Receipts::read(&args.receipts)?,
            false => Receipts::default(),
        };
        let left = unfinished(&*store, &plan, &receipts, false).await?;
        return would(&what(&left));
    }
    let mut folder = ReceiptFolder::open(&args.receipts)?;
    // Once this file exists, the plan's versions are being destroyed and may be in any state.
    let begun = folder.own_file(&format!("run-{}", plan.digest));
    let left = unfinished(&*store, &plan, &folder.receipts, begun.exists()).await?;
    if left.is_empty() {
        tell("every context of the plan is destroyed and has its receipt");
        return Ok(Exit::Done);
    }
    args.change.confirm(&format!(
        "{}; WHAT THEY ENCRYPTED CANNOT BE READ AGAIN, and this cannot be taken back",
        what(&left)
    ))?;
    if !begun.exists() {
        write_whole(&args.receipts, &begun, plan.made_at.as_bytes())
            .with_context(|| format!("{} could not be written", begun.display()))?;
    }
    let manager = session.manager(Some(reason)).await?;
    let mut is_complete = true;
    for of in left {
        let context = of.encryption_context()?;
        let shredded = manager.shred(&context, args.patience).await?;
        let done = Done {
            context,
            versions: destroyed_versions(&shredded),
            processes: processes_of(&shredded.processes),
            reason: reason.clone(),
            keks: of.keks.clone(),
            rows: of.rows.clone(),
            replay_of: None,
        };
        let receipt = done.receipt(&*store).await?;
        is_complete &= receipt.processes.complete;
        let file = folder.add(receipt.clone())?;
        write(session.output, &receipt, &file)?;
    }
    if !is_complete {
        tell(
            "the keys are destroyed, and a process may still read: run this again later, and receipts that are complete follow",
        );
        return Ok(Exit::Finding);
    }
    // A file that cannot be removed is harmless.
    let _ = std::fs::remove_file(&begun);
    if let Some(digest) = folder.receipts.digest() {
        tell(&format!(
            "note elsewhere that the last receipt's digest is {digest}"
        ));
    }
    Ok(Exit::Done)
}

fn what(left: &[&PlannedContext]) -> String {
    let versions: usize = left.iter().map(|of| of.versions.len()).sum();
    format!(
        "destroy {versions} versions, all that {} contexts have",
        left.len()
    )
}

/// Lists the contexts without a complete receipt. Refuses an outdated plan.
async fn unfinished<'p>(
    store: &dyn KeyStore,
    plan: &'p Plan,
    receipts: &Receipts,
    is_begun: bool,
) -> Result<Vec<&'p PlannedContext>> {
    if let Some(context) = plan.left_out(store).await? {
        return Err(outdated(&format!("{} has a key now", describe(&context.to_map()))).into());
    }
    let mut left = Vec::new();
    for of in &plan.contexts {
        let versions = versions_of(store, &of.encryption_context()?).await?;
        if has_receipt(of, receipts) && is_destroyed(of, &versions) {
            continue;
        }
        check(of, &versions, is_begun)?;
        left.push(of);
    }
    Ok(left)
}

fn has_receipt(of: &PlannedContext, receipts: &Receipts) -> bool {
    receipts.list.iter().any(|receipt| {
        let lists = |id: &String| receipt.versions.iter().any(|version| version.id == *id);
        receipt.context == of.context
            && receipt.processes.complete
            && of.versions.iter().all(|version| lists(&version.id))
    })
}

fn is_destroyed(of: &PlannedContext, versions: &[KeyRecord]) -> bool {
    let mut planned = versions.iter().filter(|version| of.has(version.id));
    planned.all(|version| version.state == KeyState::Destroyed)
}

/// Refuses a context that differs from the plan.
fn check(of: &PlannedContext, versions: &[KeyRecord], is_begun: bool) -> Result<(), Refused> {
    let name = describe(&of.context);
    if let Some(new) = versions.iter().find(|version| !of.has(version.id)) {
        return Err(outdated(&format!(
            "{name} has version {} ({})",
            new.version, new.id
        )));
    }
    if versions.len() < of.versions.len() {
        return Err(outdated(&format!("{name} has {} versions", versions.len())));
    }
    if is_begun || is_destroyed(of, versions) {
        return Ok(());
    }
    let is_planned = |record: &&KeyRecord| of.versions.iter().any(|version| version.is(record));
    match versions.iter().find(|record| !is_planned(record)) {
        Some(changed) => Err(outdated(&format!(
            "version {} of {name} was changed and is {}",
            changed.version, changed.state
        ))),
        None => Ok(()),
    }
}

fn outdated(what: &str) -> Refused {
    Refused(format!(
        "{what}, other than in the plan: nothing was destroyed; make another with `encx shred plan`"
    ))
}
