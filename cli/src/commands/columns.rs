//! `encx columns`: compares the columns in encx.toml with the database.

use std::collections::BTreeMap;

use anyhow::Result;
use encx::record::{ContextSource, EncryptedColumn, RowIdKind};
use encx_config::{DeclaredColumn, columns_toml};
use encx_tables::{Rows, RowsError, SealedColumn};
use serde::Serialize;

use crate::columns::name_of;
use crate::exit::Exit;
use crate::output::{printable, tell};
use crate::rows;
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the encrypted columns that encx.toml declares
    List,
    /// Find declared columns that are gone or differ, and undeclared columns with ciphertexts; exit 3 on any
    Check,
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit> {
    match command {
        Command::List => list(session),
        Command::Check => check(session).await,
    }
}

/// A declared column.
#[derive(Debug, Serialize)]
struct View {
    table: String,
    column: String,
    id: Vec<String>,
    /// Pairs of the encryption context; a value in braces names a column of the row.
    context: BTreeMap<String, String>,
    /// The columns of its blind indexes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    indexes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bound: Vec<String>,
}

impl View {
    fn new(declared: &DeclaredColumn) -> Self {
        let column = &declared.column;
        let pair = |(key, source): &(String, ContextSource)| {
            let value = match source {
                ContextSource::Column(name) => format!("{{{name}}}"),
                ContextSource::Value(value) => value.clone(),
                _ => "?".to_owned(),
            };
            (key.clone(), value)
        };
        Self {
            table: column.sql_table.clone(),
            column: column.sql_column.clone(),
            id: column.row_id.iter().map(|id| id.sql_column.clone()).collect(),
            context: column.context.iter().map(pair).collect(),
            indexes: column
                .indexes
                .iter()
                .map(|index| index.sql_column.clone())
                .collect(),
            plaintext: declared.plaintext.as_ref().map(|plain| plain.sql_column.clone()),
            bound: column.bound.clone(),
        }
    }
}

fn list(session: &Session) -> Result<Exit> {
    let views: Vec<_> = session.settings.columns().iter().map(View::new).collect();
    let header = ["COLUMN", "ID", "CONTEXT", "INDEX", "PLAINTEXT", "BOUND TO"];
    session.output.list(header, &views, |view| {
        let dash = || "-".to_owned();
        let list = |names: &[String]| match names {
            [] => dash(),
            names => names.join(", "),
        };
        [
            format!("{}.{}", view.table, view.column),
            view.id.join(", "),
            crate::context::describe(&view.context),
            list(&view.indexes),
            view.plaintext.clone().unwrap_or_else(dash),
            list(&view.bound),
        ]
    })?;
    if views.is_empty() {
        tell("encx.toml declares no columns: `encx columns check` finds columns of ciphertexts");
    }
    Ok(Exit::Done)
}

/// A difference between encx.toml and the database.
#[derive(Debug, Serialize)]
struct Finding {
    table: String,
    column: String,
    /// `gone`, `differs` or `undeclared`.
    kind: &'static str,
    finding: String,
    /// The `[[column]]` to paste into encx.toml.
    #[serde(skip_serializing_if = "Option::is_none")]
    declare: Option<String>,
}

async fn check(session: &Session) -> Result<Exit> {
    let declared = session.settings.columns();
    let store = session.store().await?;
    let rows = rows::connect(&session.settings).await?;
    let mut findings = Vec::new();
    for declared in declared {
        findings.extend(compare(&rows, declared).await?);
    }
    let sealed = rows.sealed_columns(&*store).await?;
    let is_declared = |found: &&SealedColumn| declared.iter().any(|declared| found.is(&declared.column));
    findings.extend(sealed.iter().filter(|found| !is_declared(found)).map(undeclared));
    if findings.is_empty() {
        tell(&format!("all well with {} declared columns", declared.len()));
        return Ok(Exit::Done);
    }
    session.output.list(["COLUMN", "FINDING"], &findings, |finding| {
        let name = format!("{}.{}", finding.table, finding.column);
        [name, finding.finding.clone()]
    })?;
    if !session.output.is_json() {
        let entries = findings.iter().filter_map(|finding| finding.declare.as_deref());
        let entries: Vec<_> = entries.map(printable).collect();
        if !entries.is_empty() {
            tell("to declare columns, add this to encx.toml, and correct `id` and `context`:");
            session.output.text(&format!("\n{}", entries.join("\n")))?;
        }
    }
    Ok(Exit::Finding)
}

async fn compare(rows: &Rows, declared: &DeclaredColumn) -> Result<Option<Finding>> {
    let error = match rows.check_column(&declared.column).await {
        Ok(()) => return Ok(None),
        Err(error) => error,
    };
    let kind = match error {
        RowsError::NoSuchTable { .. } | RowsError::NoSuchColumn { .. } => "gone",
        RowsError::ColumnType { .. } | RowsError::Description { .. } => "differs",
        error => return Err(error.into()),
    };
    Ok(Some(Finding {
        table: declared.column.sql_table.clone(),
        column: declared.column.sql_column.clone(),
        kind,
        finding: format!("{} declares {}, and {error}", declared.origin, name_of(declared)),
        declare: None,
    }))
}

fn undeclared(found: &SealedColumn) -> Finding {
    let entry = EncryptedColumn::new(&found.table, &found.column)
        .row_id("id", RowIdKind::Integer)
        .context_column("tenantId", "tenant_id");
    let known = match found.known_keys {
        0 => "of no key that this key store has".to_owned(),
        known if known == found.sealed => "of keys of this key store".to_owned(),
        known => format!("{known} of them of keys of this key store"),
    };
    Finding {
        table: found.table.clone(),
        column: found.column.clone(),
        kind: "undeclared",
        finding: format!(
            "is not declared, and {} of {} values look like ciphertexts, {known}: a rotation would leave them out",
            found.sealed, found.looked_at
        ),
        declare: Some(columns_toml(&[entry])),
    }
}
