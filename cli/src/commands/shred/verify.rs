//! `encx shred verify`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use encx::jobs::JobError;
use encx::keys::{DataKeyId, KeyState};
use encx::record::EncryptedColumn;
use encx::store::{KeyRecord, KeyStore};
use encx::{Crypto, EncryptionContext, Error};
use encx_tables::Rows;
use serde::Serialize;

use crate::context::{Pair, describe, parse_pair};
use crate::exit::Exit;
use crate::output::tell;
use crate::receipts::{Receipt, Receipts, exact_moment};
use crate::record::now;
use crate::row_counts::RowCounts;
use crate::rows;
use crate::session::Session;

use super::state::{is_live, versions_of};

/// Rows of a column to try under each version.
const SAMPLE: u32 = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of receipts
    #[arg(long, value_name = "DIR")]
    receipts: PathBuf,
    /// Only receipts of contexts that contain this pair; repeatable
    #[arg(long = "context", short = 'c', value_name = "KEY=VALUE", value_parser = parse_pair)]
    context: Vec<Pair>,
}

/// The result for one receipt.
#[derive(Debug, Serialize)]
struct Checked {
    receipt: u32,
    context: std::collections::BTreeMap<String, String>,
    versions: usize,
    /// Rows that the check tried to decrypt.
    rows_tried: usize,
    findings: Vec<Finding>,
    /// Observations that are not findings.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Finding {
    kind: &'static str,
    what: String,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<Exit> {
    let receipts = Receipts::read(&args.receipts)?;
    let Some(digest) = receipts.digest() else {
        bail!("{} has no receipts", args.receipts.display());
    };
    tell(&format!(
        "{} receipts form a whole chain; the last one's digest is {digest}: compare it with the one that you noted elsewhere",
        receipts.list.len()
    ));
    let is_asked = |receipt: &&Receipt| {
        let has = |pair: &Pair| receipt.context.get(&pair.key) == Some(&pair.value);
        args.context.iter().all(has)
    };
    let store = session.store().await?;
    let opener = Opener::new(session).await?;
    let mut checked = Vec::new();
    for receipt in receipts.list.iter().filter(is_asked) {
        checked.push(check(&*store, &receipts, receipt, opener.as_ref()).await?);
    }
    if checked.is_empty() {
        bail!("no receipt is of such a context");
    }
    match opener {
        Some(opener) => opener.crypto.shutdown().await,
        None => tell("no column is declared: no row was tried to be opened"),
    }
    let header = [
        "RECEIPT",
        "CONTEXT",
        "VERSIONS",
        "ROWS TRIED",
        "FINDINGS",
        "NOTES",
    ];
    session.output.list(header, &checked, |of| {
        let findings: Vec<_> = of.findings.iter().map(|finding| finding.what.as_str()).collect();
        let or_none = |list: String| if list.is_empty() { "-".to_owned() } else { list };
        [
            of.receipt.to_string(),
            describe(&of.context),
            of.versions.to_string(),
            of.rows_tried.to_string(),
            or_none(findings.join("; ")),
            or_none(of.notes.join("; ")),
        ]
    })?;
    let findings: usize = checked.iter().map(|of| of.findings.len()).sum();
    if findings > 0 {
        tell(&format!(
            "{findings} findings: after a restore, `encx shred replay` destroys again what receipts list"
        ));
        return Ok(Exit::Finding);
    }
    Ok(Exit::Done)
}

async fn check(
    store: &dyn KeyStore,
    receipts: &Receipts,
    receipt: &Receipt,
    opener: Option<&Opener>,
) -> Result<Checked> {
    let context = receipt.encryption_context()?;
    let mut of = Checked {
        receipt: receipt.number,
        context: receipt.context.clone(),
        versions: receipt.versions.len(),
        rows_tried: 0,
        findings: Vec::new(),
        notes: Vec::new(),
    };
    let mut ids = Vec::with_capacity(receipt.versions.len());
    for version in &receipt.versions {
        ids.push(version.id.parse::<DataKeyId>()?);
    }
    let mut found = Vec::with_capacity(ids.len());
    for batch in ids.chunks(500) {
        found.extend(store.get(batch).await?);
    }
    for id in &ids {
        if let Some(finding) = about_version(*id, found.iter().find(|record| record.id == *id)) {
            of.findings.push(finding);
        }
    }
    about_others(&versions_of(store, &context).await?, receipts, receipt, &mut of);
    if !receipt.processes.complete && !is_completed(receipts, receipt) {
        match receipt.processes.serves_until.as_deref() {
            // All times have one format, so the order of texts is the order of times.
            Some(until) if *until < *exact_moment(now()) => {
                of.notes.push(format!("a process may have read until {until}"));
            }
            until => of.findings.push(Finding {
                kind: "incomplete",
                what: format!(
                    "a process may still read, until {}: run `encx shred run` again with its plan",
                    until.unwrap_or("a time that is not known")
                ),
            }),
        }
    }
    if let Some(opener) = opener {
        for id in ids {
            opener.try_rows(&context, id, &mut of).await?;
        }
    }
    Ok(of)
}

fn about_version(id: DataKeyId, record: Option<&KeyRecord>) -> Option<Finding> {
    let Some(record) = record else {
        return Some(Finding {
            kind: "missing",
            what: format!(
                "this key store has no version {id}, so nothing shows that its key is destroyed: is it the right one, or restored \
                 from a backup that is older than the key?"
            ),
        });
    };
    if record.state != KeyState::Destroyed {
        return Some(Finding {
            kind: "alive",
            what: format!("version {id} is {}", record.state),
        });
    }
    (!record.wraps.is_empty()).then(|| Finding {
        kind: "has-wraps",
        what: format!(
            "version {id} is destroyed and has wraps all the same: delete its rows of wrapped_keys"
        ),
    })
}

/// Notes versions created after the shredding, and reports older ones that a receipt should list.
fn about_others(versions: &[KeyRecord], receipts: &Receipts, receipt: &Receipt, of: &mut Checked) {
    let same = || {
        receipts
            .list
            .iter()
            .filter(|other| other.context == receipt.context)
    };
    let is_listed = |record: &KeyRecord| {
        let id = record.id.to_string();
        same().any(|other| other.versions.iter().any(|version| version.id == id))
    };
    let shredded_at = same()
        .filter(|other| other.replay_of.is_none())
        .filter_map(Receipt::shredded_at)
        .min();
    let others = versions
        .iter()
        .filter(|record| is_live(record) && !is_listed(record));
    for other in others {
        let (usage, version) = (other.usage.name(), other.version);
        if shredded_at.is_some_and(|at| other.created_at > at) {
            of.notes.push(format!(
                "revived since: version {version} ({usage}) is {}",
                other.state
            ));
        } else {
            of.findings.push(Finding {
                kind: "unlisted",
                what: format!(
                    "version {version} ({usage}, {}) is {} and older than the shredding",
                    other.id, other.state
                ),
            });
        }
    }
}

/// Tells whether a later receipt confirms that every process dropped the same versions.
fn is_completed(receipts: &Receipts, receipt: &Receipt) -> bool {
    receipts.list.iter().any(|later| {
        let lists = |id: &String| later.versions.iter().any(|version| version.id == *id);
        later.number > receipt.number
            && later.context == receipt.context
            && later.processes.complete
            && receipt.versions.iter().all(|version| lists(&version.id))
    })
}

/// Tries to decrypt rows.
struct Opener {
    counts: RowCounts,
    rows: Rows,
    columns: Vec<EncryptedColumn>,
    crypto: Crypto,
}

impl Opener {
    /// Counts the rows of the declared columns and opens a `Crypto`. `None` if no column is declared.
    async fn new(session: &Session) -> Result<Option<Self>> {
        let Some(counts) = RowCounts::take(session).await? else {
            return Ok(None);
        };
        let columns = session.settings.columns().iter();
        Ok(Some(Self {
            counts,
            rows: rows::connect(&session.settings).await?,
            columns: columns.map(|declared| declared.column.clone()).collect(),
            crypto: session.crypto().await?,
        }))
    }

    /// Tries to decrypt rows under a version.
    async fn try_rows(&self, context: &EncryptionContext, id: DataKeyId, of: &mut Checked) -> Result<()> {
        if self.counts.under([id]).is_empty() {
            return Ok(());
        }
        for column in self.columns.iter().cloned() {
            let tried = self
                .rows
                .try_open_under(&self.crypto, column, context, id, SAMPLE);
            for tried in tried.await? {
                of.rows_tried += 1;
                let what = match tried.opened {
                    Err(JobError::Encx(Error::Destroyed { .. } | Error::Shredded)) => continue,
                    // The version is a finding already.
                    Err(JobError::Encx(Error::UnknownKey { .. } | Error::NoKeys)) => continue,
                    Ok(()) => format!("{} opens under version {id}", tried.row),
                    Err(error) if error.is_retryable() => return Err(error.into()),
                    Err(error) => format!(
                        "{} is not refused because its key is destroyed: {error}",
                        tried.row
                    ),
                };
                of.findings.push(Finding { kind: "opens", what });
            }
        }
        Ok(())
    }
}
