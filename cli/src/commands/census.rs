//! `encx census`: counts the rows under each data key, by declared column.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use encx::keys::KeyState;
use encx::store::{KeyRecord, KeyStore};
use encx_tables::KeyCount;
use serde::Serialize;

use crate::columns::ColumnArgs;
use crate::context::describe;
use crate::exit::Exit;
use crate::output::tell;
use crate::rows;
use crate::session::Session;

/// Keys looked up and written at once.
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    columns: ColumnArgs,
}

/// Rows of a column under one key.
#[derive(Debug, Serialize)]
struct View {
    table: String,
    column: String,
    rows: u64,
    /// `None` for values that are not ciphertexts.
    key: Option<String>,
    /// The key's state; `missing` if the key store does not have the key, `edited` if its row's context was edited,
    /// `none` for values without a key.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<BTreeMap<String, String>>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let declared = args.columns.of(&session.settings)?;
    let store = session.store().await?;
    let rows = rows::connect(&session.settings).await?;
    let (mut lost, mut unkeyed, mut is_first) = (0, 0, true);
    // One column at a time, so memory holds one column's counts.
    for declared in declared {
        let counts = rows.census([declared.column.clone()])?.count().await?;
        for counts in counts.chunks(PAGE) {
            let views = views(&*store, counts).await?;
            for view in &views {
                match (&view.key, view.state) {
                    (None, _) => unkeyed += view.rows,
                    (_, "missing" | "edited" | "destroyed") => lost += view.rows,
                    _ => {}
                }
            }
            write(session, &views, is_first)?;
            is_first = false;
        }
    }
    if is_first {
        tell("these columns have no values");
    }
    if lost > 0 {
        tell(&format!(
            "{lost} rows are under keys that are missing or destroyed, and cannot be read: restore the key store's rows from a backup"
        ));
    }
    if unkeyed > 0 {
        tell(&format!(
            "{unkeyed} rows hold no ciphertext: `encx verify` says what they are"
        ));
    }
    Ok(match lost + unkeyed {
        0 => Exit::Done,
        _ => Exit::Finding,
    })
}

async fn views(store: &dyn KeyStore, counts: &[KeyCount]) -> Result<Vec<View>> {
    let ids: Vec<_> = counts.iter().filter_map(|count| count.key).collect();
    let records = store.get(&ids).await?;
    let records: HashMap<_, _> = records.iter().map(|record| (record.id, record)).collect();
    let view = |count: &KeyCount| {
        let record = count.key.and_then(|key| records.get(&key));
        View {
            table: count.table.clone(),
            column: count.column.clone(),
            rows: count.rows,
            key: count.key.map(|key| key.to_string()),
            state: match (count.key, record) {
                (None, _) => "none",
                (Some(_), None) => "missing",
                (Some(_), Some(record)) => state_of(record),
            },
            version: record.map(|record| record.version.get()),
            context: record.map(|record| record.context.clone()),
        }
    };
    Ok(counts.iter().map(view).collect())
}

/// Returns the key's state, or `edited` if its row's context was edited: such a key decrypts no rows.
fn state_of(record: &KeyRecord) -> &'static str {
    match record.verified_context() {
        Ok(_) => KeyState::name(record.state),
        Err(_) => "edited",
    }
}

fn write(session: &Session, views: &[View], is_first: bool) -> Result<()> {
    if views.is_empty() && !is_first {
        return Ok(());
    }
    let header = ["COLUMN", "ROWS", "KEY", "STATE", "VERSION", "CONTEXT"];
    session.output.list(header, views, |view| {
        let dash = || "-".to_owned();
        [
            format!("{}.{}", view.table, view.column),
            view.rows.to_string(),
            view.key.clone().unwrap_or_else(|| "no ciphertext".to_owned()),
            view.state.to_owned(),
            view.version.map_or_else(dash, |version| version.to_string()),
            view.context.as_ref().map_or_else(dash, describe),
        ]
    })
}
