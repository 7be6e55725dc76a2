//! The result of a shredding, from which the receipt is made.

use std::path::Path;

use anyhow::Result;
use encx::keys::{DestroyedVersion, ProcessReport, ShredReceipt};
use encx::store::{AuditQuery, KeyRecord, KeyStore};
use encx::{EncryptionContext, Error};
use serde_json::json;

use crate::context::describe;
use crate::output::{Output, tell};
use crate::receipts::{Counted, Kek, Processes, Receipt, Version, exact_moment};
use crate::record::moment;

use super::state::survives;

/// What a shredding destroyed, and why.
pub(super) struct Done {
    pub(super) context: EncryptionContext,
    pub(super) versions: Vec<Version>,
    pub(super) processes: Processes,
    pub(super) reason: String,
    pub(super) keks: Vec<Kek>,
    pub(super) rows: Option<Vec<Counted>>,
    pub(super) replay_of: Option<u32>,
}

impl Done {
    /// Makes the receipt. The folder assigns its number.
    pub(super) async fn receipt(self, store: &dyn KeyStore) -> Result<Receipt> {
        let by = match self.versions.first() {
            Some(version) => who_destroyed(store, version).await?,
            None => None,
        };
        // All times have one format, so the greatest text is the latest time.
        let at = self.versions.iter().map(|version| &version.destroyed_at).max();
        Ok(Receipt {
            format: String::new(),
            number: 0,
            previous: None,
            replay_of: self.replay_of,
            context: self.context.to_map(),
            reason: self.reason,
            by,
            shredded_at: at.cloned().unwrap_or_default(),
            survives: survives(&self.keks, self.rows.is_some()),
            versions: self.versions,
            processes: self.processes,
            keks: self.keks,
            rows: self.rows,
        })
    }
}

/// Lists the versions that the library destroyed.
pub(super) fn versions_of(receipt: &ShredReceipt) -> Vec<Version> {
    let version = |of: &DestroyedVersion| Version {
        id: of.id.to_string(),
        usage: of.usage.name().to_owned(),
        version: of.version.get(),
        destroyed_at: exact_moment(of.destroyed_at),
    };
    receipt.versions.iter().map(version).collect()
}

/// Describes a destroyed version.
pub(super) fn version_of(record: &KeyRecord) -> Version {
    Version {
        id: record.id.to_string(),
        usage: record.usage.name().to_owned(),
        version: record.version.get(),
        destroyed_at: exact_moment(record.destroyed_at.unwrap_or(record.changed_at)),
    }
}

/// Describes which processes may still read, and prints each.
pub(super) fn processes_of(processes: &Result<ProcessReport, Error>) -> Processes {
    match processes {
        Ok(report) => {
            for silent in &report.silent {
                tell(&format!(
                    "process {} has not dropped the keys yet, last heard of {}; it may read until {}",
                    silent.process.name,
                    moment(silent.seen_at),
                    moment(silent.serves_until)
                ));
            }
            Processes {
                complete: report.is_complete(),
                serves_until: report.serves_until().map(exact_moment),
                unknown: None,
            }
        }
        Err(error) => {
            tell(&format!("whether a process may still read is not known: {error}"));
            Processes {
                complete: false,
                serves_until: None,
                unknown: Some(error.to_string()),
            }
        }
    }
}

/// Writes the result for a context.
pub(super) fn write(output: Output, receipt: &Receipt, file: &Path) -> Result<()> {
    let file = file.display().to_string();
    if output.is_json() {
        let line = json!({ "event": "shredded", "file": file, "receipt": receipt });
        return output.text(&line.to_string());
    }
    let versions = receipt.versions.len();
    let context = describe(&receipt.context);
    let text = format!("{context}: {versions} versions are destroyed; receipt {file}");
    output.text(&crate::output::printable(&text))
}

/// Finds in the audit log who destroyed a version: database user and application.
async fn who_destroyed(store: &dyn KeyStore, version: &Version) -> Result<Option<String>> {
    let (Some(log), Ok(id)) = (store.audit(), version.id.parse()) else {
        return Ok(None);
    };
    let (mut query, mut by) = (AuditQuery::new(1000).key(id), None);
    loop {
        let page = log.audit_page(&query).await?;
        for entry in page.entries {
            if entry.to == encx::keys::KeyState::Destroyed {
                let names: Vec<_> = entry.db_user.into_iter().chain(entry.application).collect();
                by = Some(names.join("/")).filter(|names| !names.is_empty());
            }
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(by),
        }
    }
}
