//! `encx shred replay`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use encx::EncryptionContext;
use encx::keys::{KeyManager, KeyState};
use encx::store::{KeyRecord, KeyStore};

use crate::commands::keys::would;
use crate::confirm::Change;
use crate::context::describe;
use crate::exit::Exit;
use crate::output::tell;
use crate::receipts::{ReceiptFolder, Receipts, Version};
use crate::row_counts::RowCounts;
use crate::session::Session;

use super::done::{Done, processes_of, version_of, versions_of as destroyed_versions, write};
use super::state::{is_live, keks_of, versions_of};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of receipts
    #[arg(long, value_name = "DIR")]
    receipts: PathBuf,
    /// Wait at most this long, per context, for every process to drop its keys
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    change: Change,
}

/// A shredded context in a restored key store.
struct Restored {
    context: EncryptionContext,
    /// The receipt to replay.
    replay_of: u32,
    /// Live versions that receipts list.
    alive: Vec<KeyRecord>,
    /// Destroyed versions that receipts list, but whose second destruction no receipt records.
    unreported: Vec<KeyRecord>,
    /// Whether there are live versions that no receipt lists: these stay.
    has_others: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let Some(reason) = &args.change.because else {
        bail!("say why, with --because: the audit log and the receipts keep it");
    };
    let store = session.store().await?;
    let receipts = Receipts::read(&args.receipts)?;
    if receipts.list.is_empty() {
        bail!("{} has no receipts", args.receipts.display());
    }
    let (restored, with_wraps) = restored(&*store, &receipts).await?;
    for id in &with_wraps {
        tell(&format!(
            "version {id} is destroyed and has wraps all the same: delete its rows of wrapped_keys"
        ));
    }
    let blocked = if with_wraps.is_empty() {
        Exit::Done
    } else {
        Exit::Finding
    };
    if restored.is_empty() {
        tell("every version that the receipts list is destroyed, or not there");
        return Ok(blocked);
    }
    for of in &restored {
        tell(&format!(
            "{}: {} versions of receipt {} are alive again{}",
            describe(&of.context.to_map()),
            of.alive.len(),
            of.replay_of,
            if of.has_others {
                "; those that were made since stay"
            } else {
                ""
            }
        ));
    }
    let alive: usize = restored.iter().map(|of| of.alive.len()).sum();
    let what = format!("destroy {alive} versions of {} contexts again", restored.len());
    if args.change.dry_run {
        would(&what)?;
        return Ok(Exit::Finding);
    }
    args.change.confirm(&what)?;
    let mut folder = ReceiptFolder::open(&args.receipts)?;
    let counts = RowCounts::take(session).await?;
    let manager = session.manager(Some(reason)).await?;
    let mut is_complete = true;
    for of in restored {
        let listed: Vec<_> = of.alive.iter().chain(&of.unreported).cloned().collect();
        let rows = counts
            .as_ref()
            .map(|counts| counts.under(listed.iter().map(|version| version.id)));
        let keks = keks_of(&of.alive);
        let (versions, processes) = destroy(&manager, &*store, &of, args.patience).await?;
        let done = Done {
            context: of.context,
            versions,
            processes,
            reason: reason.clone(),
            keks,
            rows,
            replay_of: Some(of.replay_of),
        };
        let receipt = done.receipt(&*store).await?;
        is_complete &= receipt.processes.complete;
        let file = folder.add(receipt.clone())?;
        write(session.output, &receipt, &file)?;
    }
    if !is_complete {
        tell("the keys are destroyed, and a process may still read for a while");
        return Ok(Exit::Finding);
    }
    Ok(blocked)
}

/// Finds versions that receipts list and that are alive, and the ids of destroyed versions with wraps.
async fn restored(store: &dyn KeyStore, receipts: &Receipts) -> Result<(Vec<Restored>, Vec<String>)> {
    let mut contexts = BTreeMap::new();
    for receipt in &receipts.list {
        contexts.insert(&receipt.context, receipt.encryption_context()?);
    }
    let (mut restored, mut with_wraps) = (Vec::new(), Vec::new());
    for (pairs, context) in contexts {
        let of_context: Vec<_> = receipts
            .list
            .iter()
            .filter(|receipt| receipt.context == *pairs)
            .collect();
        // For each version, the destruction times in the receipts that list it.
        let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for version in of_context.iter().flat_map(|receipt| &receipt.versions) {
            listed
                .entry(&version.id)
                .or_default()
                .insert(&version.destroyed_at);
        }
        let (mut alive, mut unreported, mut has_others) = (Vec::new(), Vec::new(), false);
        for record in versions_of(store, &context).await? {
            match listed.get(&*record.id.to_string()) {
                None => has_others |= is_live(&record),
                Some(_) if is_live(&record) => alive.push(record),
                Some(_) if !record.wraps.is_empty() => with_wraps.push(record.id.to_string()),
                Some(times) if times.contains(&*version_of(&record).destroyed_at) => {}
                Some(_) => unreported.push(record),
            }
        }
        if alive.is_empty() && unreported.is_empty() {
            continue;
        }
        let names = |version: &Version| {
            let is = |record: &KeyRecord| record.id.to_string() == version.id;
            alive.iter().chain(&unreported).any(is)
        };
        let original = of_context
            .iter()
            .rev()
            .find(|receipt| receipt.replay_of.is_none() && receipt.versions.iter().any(names));
        restored.push(Restored {
            replay_of: original.map_or(0, |receipt| receipt.number),
            context,
            alive,
            unreported,
            has_others,
        });
    }
    Ok((restored, with_wraps))
}

/// Destroys the live versions. Returns the destroyed versions that no receipt records, and the processes.
async fn destroy(
    manager: &KeyManager,
    store: &dyn KeyStore,
    of: &Restored,
    patience: Duration,
) -> Result<(Vec<Version>, crate::receipts::Processes)> {
    if !of.has_others {
        let shredded = manager.shred(&of.context, patience).await?;
        return Ok((destroyed_versions(&shredded), processes_of(&shredded.processes)));
    }
    for record in &of.alive {
        let manager = manager.clone().for_usage(record.usage);
        if !record
            .state
            .may_become(KeyState::Destroyed, record.suspended_from)
        {
            manager
                .set_state(&of.context, record.id, KeyState::Suspended)
                .await?;
        }
        manager
            .destroy_with_data(
                &of.context,
                record.id,
                format!("replay of receipt {}", of.replay_of),
            )
            .await?;
    }
    let processes = manager.await_processes(patience).await;
    let is_of = |id| {
        of.alive
            .iter()
            .chain(&of.unreported)
            .any(|record| record.id == id)
    };
    let mut now = versions_of(store, &of.context).await?;
    now.retain(|record| is_of(record.id));
    Ok((now.iter().map(version_of).collect(), processes_of(&processes)))
}
