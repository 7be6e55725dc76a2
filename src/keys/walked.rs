//! Shared by jobs over all keys: pages in id order, and the outcome of a key.

use encx_core::key::DataKeyId;
use encx_core::store::{KeyQuery, KeyRecord, KeyStore, StoreError};

use crate::error::Error;
use crate::jobs::{JobError, WalkOutcome, WalkPage};

/// Reads a query's keys after `after` and up to `upto`.
pub(super) async fn page(
    store: &dyn KeyStore,
    mut query: KeyQuery,
    after: Option<&[u8]>,
    upto: Option<&[u8]>,
) -> Result<WalkPage<KeyRecord>, JobError> {
    if let Some(after) = after {
        query = query.after(position(after)?);
    }
    let upto = upto.map(position).transpose()?;
    let page = store.page(&query).await?;
    let mut records = page.records;
    let read = records.len();
    records.retain(|record| upto.is_none_or(|upto| record.id <= upto));
    let reached = records.len() < read;
    let next = page
        .next
        .filter(|next| !reached && upto.is_none_or(|upto| *next < upto));
    Ok(WalkPage::new(records, next.map(|next| next.to_bytes().to_vec())))
}

/// Names a key in reports.
pub(super) fn name(record: &KeyRecord) -> String {
    format!("data key {}", record.id)
}

/// Reports a key that could not be changed: retryable or failed.
pub(super) fn not_now_or_never(record: KeyRecord, error: Error) -> WalkOutcome<KeyRecord> {
    let (what, error) = (name(&record), JobError::from(error));
    if error.is_retryable() {
        let item = record;
        WalkOutcome::Retry { item, what, error }
    } else {
        WalkOutcome::Failed { what, error }
    }
}

fn position(bytes: &[u8]) -> Result<DataKeyId, JobError> {
    let id: Option<DataKeyId> = bytes
        .try_into()
        .ok()
        .and_then(|bytes| DataKeyId::from_bytes(bytes).ok());
    id.ok_or_else(|| {
        let what = "the job's position is no key id; give the job a name of its own".to_owned();
        Error::from(StoreError::Corrupt { what }).into()
    })
}
