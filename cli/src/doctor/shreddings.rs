//! Checks that versions listed in receipts are still destroyed, as after a restore.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use encx::keys::{DataKeyId, KeyState};
use encx::store::KeyStore;

use crate::context;
use crate::doctor::finding::{Check, Code, subject};
use crate::exit::describe;
use crate::receipts::Receipts;

/// Versions read at once.
const BATCH: usize = 500;

pub(crate) async fn check(store: &dyn KeyStore, folder: &Path, found: &mut Check) -> Result<()> {
    let receipts = match Receipts::read(folder) {
        Ok(receipts) => receipts,
        Err(error) => {
            found.error(
                Code::ReceiptsUnreadable,
                folder.display().to_string(),
                describe(&error.into()),
                "restore the folder of receipts from its copy: what it does not tell cannot be destroyed again",
            );
            return Ok(());
        }
    };
    if receipts.list.is_empty() {
        found.not_checked(format!("{} has no receipts", folder.display()));
        return Ok(());
    }
    // A context may have several receipts.
    let mut destroyed: BTreeMap<DataKeyId, String> = BTreeMap::new();
    for receipt in &receipts.list {
        let context = context::describe(&receipt.context);
        let ids = receipt
            .versions
            .iter()
            .filter_map(|version| version.id.parse().ok());
        destroyed.extend(ids.map(|id: DataKeyId| (id, context.clone())));
    }
    let ids: Vec<_> = destroyed.keys().copied().collect();
    let mut undone: BTreeMap<&str, u64> = BTreeMap::new();
    for batch in ids.chunks(BATCH) {
        for record in store.get(batch).await? {
            if record.state != KeyState::Destroyed
                && let Some(context) = destroyed.get(&record.id)
            {
                *undone.entry(context).or_default() += 1;
            }
        }
    }
    if undone.is_empty() {
        return Ok(());
    }
    let versions: u64 = undone.values().sum();
    let contexts: Vec<_> = undone.keys().map(|context| (*context).to_owned()).collect();
    let count = u64::try_from(contexts.len()).unwrap_or(u64::MAX);
    found.error(
        Code::ShreddingUndone,
        subject("encryption context", &contexts, count),
        format!(
            "{versions} of its versions were destroyed, as receipts say, and can be used again, as after a restored backup"
        ),
        format!("`encx shred replay --receipts {}`", folder.display()),
    );
    Ok(())
}
