//! Rows of declared columns: the last verification, and the census.

use std::collections::BTreeMap;

use anyhow::Result;
use encx::keys::{DataKeyId, KeyState};
use encx::record::EncryptedColumn;
use encx::store::{JobStatus, JobStore, KeyStore};
use encx_tables::Rows;

use super::data::{ColumnFacts, FaultFacts, RowsFacts, VerifiedFacts};
use super::told::{NOT_ASKED, NOT_RECORDED, Told};
use crate::columns::rotation_job_name;
use crate::exit;
use crate::record::moment;

/// Keys looked up at once.
const BATCH: usize = 1000;

/// Rows named for each kind of fault.
const EXAMPLES: usize = 5;

/// Census states of keys that the key store does not have, and of values that name no key.
pub(super) const MISSING: &str = "missing";
pub(super) const NO_KEY: &str = "no key";

/// Shown for a column that no job has verified.
pub(super) const NEVER: &str = "never";

/// Looks up a column. `rows` opens its tables for a census; `None` skips the census.
///
/// # Cancellation
///
/// May be dropped at any time.
pub(super) async fn column(
    store: &dyn KeyStore,
    column: &EncryptedColumn,
    rows: Option<&Result<Rows>>,
) -> ColumnFacts {
    let census = match rows {
        None => Told::Missing(NOT_ASKED),
        Some(Err(error)) => Told::Failed(exit::describe(error)),
        Some(Ok(rows)) => Told::of(
            census(store, column, rows)
                .await
                .map_err(|error| exit::describe(&error)),
        ),
    };
    ColumnFacts {
        table: column.sql_table.clone(),
        column: column.sql_column.clone(),
        census,
        verified: match store.jobs() {
            None => Told::Missing(NOT_RECORDED),
            Some(jobs) => last_verify(jobs, column).await,
        },
    }
}

async fn last_verify(jobs: &dyn JobStore, column: &EncryptedColumn) -> Told<VerifiedFacts> {
    if !column.bound.is_empty() {
        return Told::Missing("not possible: the column is bound to other columns");
    }
    let name = match Rows::verify_job_name(column) {
        Ok(name) => name,
        Err(error) => return Told::Failed(error.to_string()),
    };
    let mut last: Option<JobStatus> = None;
    for name in [name, rotation_job_name("verify", column)] {
        match jobs.job(&name).await {
            Ok(Some(job))
                if last
                    .as_ref()
                    .is_none_or(|last| last.completed_at < job.completed_at) =>
            {
                last = Some(job);
            }
            Ok(_) => {}
            Err(error) => return Told::Failed(error.to_string()),
        }
    }
    last.map_or(Told::Missing(NEVER), |job| Told::Known(verified(&job)))
}

fn verified(job: &JobStatus) -> VerifiedFacts {
    let faults = job.faults.iter().map(|(kind, fault)| FaultFacts {
        kind: kind.to_owned(),
        rows: fault.items,
        examples: fault.examples.iter().take(EXAMPLES).cloned().collect(),
    });
    VerifiedFacts {
        is_complete: job.finished,
        at: job.completed_at.map(moment),
        opened: job.tally.changed.saturating_add(job.tally.unchanged),
        failed: job.tally.failed,
        faults: faults.collect(),
    }
}

/// Counts rows by the state of their key. Looks up `BATCH` keys at a time.
async fn census(store: &dyn KeyStore, column: &EncryptedColumn, rows: &Rows) -> Result<Vec<RowsFacts>> {
    let mut by_state: BTreeMap<&'static str, u64> = BTreeMap::new();
    let counts = rows.census([column.clone()])?.count().await?;
    for counts in counts.chunks(BATCH) {
        let ids: Vec<DataKeyId> = counts.iter().filter_map(|count| count.key).collect();
        let records = store.get(&ids).await?;
        let states: BTreeMap<_, _> = records.iter().map(|record| (record.id, record.state)).collect();
        for count in counts {
            let state = match count.key {
                None => NO_KEY,
                Some(id) => states.get(&id).copied().map_or(MISSING, KeyState::name),
            };
            *by_state.entry(state).or_default() += count.rows;
        }
    }
    let in_order = KeyState::ALL
        .map(KeyState::name)
        .into_iter()
        .chain([MISSING, NO_KEY]);
    Ok(in_order
        .filter_map(|state| {
            let rows = *by_state.get(state)?;
            Some(RowsFacts { state, rows })
        })
        .collect())
}
