//! Shredding receipts, and whether the versions they list are still destroyed.

use encx::keys::{DataKeyId, KeyState};
use encx::store::{KeyStore, StoreError};

use super::data::ReceiptFacts;
use crate::context::describe;
use crate::receipts::{Receipt, Receipts};

/// Versions looked up at once.
const BATCH: usize = 1000;

/// Looks up the versions of every receipt.
///
/// # Cancellation
///
/// May be dropped at any time.
pub(super) async fn look_up(
    store: &dyn KeyStore,
    receipts: &Receipts,
) -> Result<Vec<ReceiptFacts>, StoreError> {
    let mut facts = Vec::with_capacity(receipts.list.len());
    for receipt in &receipts.list {
        // A later receipt of the same context may have waited for the missing processes.
        let mut later = receipts
            .list
            .iter()
            .filter(|later| later.number >= receipt.number);
        let is_complete = later.any(|later| later.context == receipt.context && later.processes.complete);
        facts.push(ReceiptFacts {
            number: receipt.number.into(),
            context: describe(&receipt.context),
            shredded_at: receipt.shredded_at.clone(),
            versions: receipt.versions.len() as u64,
            is_complete,
            not_destroyed: not_destroyed(store, receipt).await?,
            reason: receipt.reason.clone(),
        });
    }
    Ok(facts)
}

/// Counts listed versions that the key store has in another state, as after a restore.
async fn not_destroyed(store: &dyn KeyStore, receipt: &Receipt) -> Result<u64, StoreError> {
    let ids: Vec<DataKeyId> = receipt
        .versions
        .iter()
        .filter_map(|version| version.id.parse().ok())
        .collect();
    let mut count = 0;
    for ids in ids.chunks(BATCH) {
        let records = store.get(ids).await?;
        let others = records
            .iter()
            .filter(|record| record.state != KeyState::Destroyed);
        count += others.count() as u64;
    }
    Ok(count)
}
