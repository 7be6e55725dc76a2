//! Checks the processes that use the key store: their heartbeats, and their version of encx.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use encx::store::{KeyStore, ProcessRecord, Timestamp};

use crate::doctor::finding::{Check, Code, subject};
use crate::record::moment;

/// Processes send a heartbeat every 10 seconds.
const SILENT_FOR: Duration = Duration::from_secs(300);

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) async fn check(store: &dyn KeyStore, found: &mut Check) -> Result<()> {
    let Some(registry) = store.processes() else {
        found.not_checked("this key store has no registry of processes");
        return Ok(());
    };
    let list = registry.list_processes().await?;
    judge(&list.processes, list.now, found);
    Ok(())
}

fn judge(processes: &[ProcessRecord], now: Timestamp, found: &mut Check) {
    let (heard, silent): (Vec<_>, Vec<_>) = processes
        .iter()
        .partition(|process| process.seen_at.plus(SILENT_FOR) >= now);
    if let Some(last) = silent.iter().map(|process| process.seen_at).max() {
        let names = names(&silent);
        found.warning(
            Code::ProcessSilent,
            subject("process", &names, count(&names)),
            format!(
                "last heard of {}, and never signed off: `encx keys destroy` waits until it can serve no key any more",
                moment(last)
            ),
            "see whether it hangs or was killed; what was killed is forgotten an hour after its keys have expired",
        );
    }
    let mut others: BTreeMap<&str, Vec<&ProcessRecord>> = BTreeMap::new();
    for process in heard {
        let version = process
            .info
            .version
            .as_deref()
            .unwrap_or("that does not say its version");
        if version != OWN_VERSION {
            others.entry(version).or_default().push(process);
        }
    }
    for (version, processes) in others {
        let names = names(&processes);
        found.warning(
            Code::ProcessVersion,
            subject("process", &names, count(&names)),
            format!("it runs encx {version}, and this program is {OWN_VERSION}"),
            "deploy one version everywhere, and install that of the services here",
        );
    }
}

fn names(processes: &[&ProcessRecord]) -> Vec<String> {
    processes
        .iter()
        .map(|process| process.info.name.clone())
        .collect()
}

fn count(names: &[String]) -> u64 {
    u64::try_from(names.len()).unwrap_or(u64::MAX)
}
