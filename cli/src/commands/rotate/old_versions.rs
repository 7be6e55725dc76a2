//! The old versions: which of them rows still use, and which may be destroyed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use encx::keys::{KeyState, KeyUsage};
use encx::store::{KeyQuery, KeyRecord, Timestamp};
use serde_json::json;

use crate::context::describe;
use crate::output::{columns, tell};
use crate::record::moment;
use crate::row_counts::{RowCounts, describe_rows};

use super::report::Told;
use super::stages::Stages;

const PAGE: u32 = 1000;

/// Versions listed in text output.
const TOLD: usize = 50;

/// How long `encx keys destroy` suspends a version.
const QUARANTINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Lists the old versions of data keys. Rows under them keep the rotation from being done.
pub(super) async fn list(stages: &Stages<'_>, told: &mut Told) -> Result<()> {
    let counts = RowCounts::take(stages.session).await;
    let counts = match counts {
        Ok(counts) => counts,
        Err(error) if told.is_done() => return Err(error),
        // A missing column cannot be counted. An earlier stage reported it.
        Err(error) => {
            tell(&format!(
                "rows under old versions were not counted: {}",
                crate::exit::describe(&error)
            ));
            None
        }
    };
    // Undeclared columns may need any version.
    let is_known = told.is_done() && counts.is_some();
    let now = stages.session.manager(None).await?.time_of_store().await?;
    let mut left: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let (mut lines, mut more, mut free) = (Vec::new(), 0, 0);
    let states = [KeyState::Deactivated, KeyState::Suspended, KeyState::Compromised];
    let mut query = states
        .into_iter()
        .fold(KeyQuery::new(PAGE).usage(KeyUsage::Data), KeyQuery::state);
    loop {
        let page = stages.store.page(&query).await?;
        for record in &page.records {
            let rows = counts.as_ref().map(|counts| counts.under([record.id]));
            for count in rows.iter().flatten() {
                let sum = left
                    .entry((count.table.clone(), count.column.clone()))
                    .or_default();
                *sum = (sum.0 + count.rows, sum.1 + 1);
            }
            let may_go = is_known && rows.as_ref().is_some_and(Vec::is_empty);
            free += u64::from(may_go);
            told.event(&json!({
                "event": "old_version",
                "id": record.id.to_string(),
                "context": record.context,
                "version": record.version.get(),
                "state": record.state.name(),
                "rows": rows,
                "may_be_destroyed": may_go,
                "destroyed_at_the_earliest": may_go.then(|| moment(earliest(record, now))),
                "command": may_go.then(|| command(record)),
            }))?;
            if lines.len() < TOLD {
                lines.push([
                    describe(&record.context),
                    record.version.to_string(),
                    record.state.name().to_owned(),
                    describe_rows(rows.as_deref()),
                    if may_go {
                        moment(earliest(record, now))
                    } else {
                        "-".to_owned()
                    },
                    if may_go {
                        command(record)
                    } else {
                        "keep it".to_owned()
                    },
                ]);
            } else {
                more += 1;
            }
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    if !told.output.is_json() && !lines.is_empty() {
        let header = [
            "CONTEXT",
            "VERSION",
            "STATE",
            "ROWS",
            "DESTROYED NOT BEFORE",
            "NEXT",
        ];
        told.output.text(&columns(Some(header), lines))?;
    }
    if more > 0 {
        tell(&format!("{more} more old versions: --format json lists all"));
    }
    if free > 0 {
        tell(&format!(
            "{free} old versions are used by no row: the first `encx keys destroy` suspends one for 24 hours, in which a read that needs \
             it shows; a second call then destroys it. Streams and files that are encrypted are not counted"
        ));
    }
    if stages.dry_run {
        return Ok(());
    }
    for ((table, column), (rows, versions)) in left {
        told.not_done(format!(
            "{rows} rows of {table}.{column} are still under {versions} old versions"
        ));
    }
    Ok(())
}

fn command(record: &KeyRecord) -> String {
    format!("encx keys destroy {}", record.id)
}

/// Returns when a version can be destroyed if `encx keys destroy` is called now.
fn earliest(record: &KeyRecord, now: Timestamp) -> Timestamp {
    match record.state {
        // Its quarantine began with its last change.
        KeyState::Suspended | KeyState::Compromised => record.changed_at.plus(QUARANTINE).max(now),
        _ => now.plus(QUARANTINE),
    }
}
