//! Encrypted columns: `[[column]]` entries, and their comparison with what `#[derive(Encrypt)]` says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use encx::record::{ContextSource, EncryptedColumn, RowIdKind};

use crate::document::{Node, Section, Value, inline, quoted, quoted_key};
use crate::error::ConfigError;
use crate::index::{indexes_of, indexes_toml};
use crate::plaintext::{DeclaredPlaintext, plaintext_of};
use crate::source::Origin;
use crate::units;

const KINDS: [RowIdKind; 4] = [
    RowIdKind::Bytes,
    RowIdKind::Integer,
    RowIdKind::Text,
    RowIdKind::Uuid,
];

/// A column that the file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeclaredColumn {
    /// The column, as jobs over rows take it.
    pub column: EncryptedColumn,
    /// The plaintext column that it takes the place of, if it is being adopted.
    pub plaintext: Option<DeclaredPlaintext>,
    /// Where it is declared.
    pub origin: Origin,
}

/// Reads all `[[column]]` entries.
///
/// # Errors
///
/// [`ConfigError::Value`] for an entry that cannot be used, such as one twice; [`ConfigError::UnknownKey`].
pub(crate) fn read(sections: Vec<Section>) -> Result<Vec<DeclaredColumn>, ConfigError> {
    let mut columns: Vec<DeclaredColumn> = Vec::new();
    for section in sections {
        let declared = column_of(section)?;
        let twice = columns
            .iter()
            .find(|other| key_of(&other.column) == key_of(&declared.column));
        if let Some(first) = twice {
            return Err(ConfigError::Value {
                what: format!(
                    "{} is declared twice, first by {}",
                    place_of(&declared.column),
                    first.origin
                ),
                origin: declared.origin,
                write: "it once".to_owned(),
            });
        }
        columns.push(declared);
    }
    Ok(columns)
}

fn column_of(mut section: Section) -> Result<DeclaredColumn, ConfigError> {
    let origin = section.origin();
    let table = section.needed_text("table", "`table = \"users\"`")?.value;
    let name = section.needed_text("column", "`column = \"ssn\"`")?.value;
    let sql_table = section.text("sql_table")?.map(|set| set.value);
    let sql_column = section.text("sql_column")?.map(|set| set.value);
    let mut column = EncryptedColumn::new(&table, &name).stored_in(
        sql_table.unwrap_or_else(|| table.clone()),
        sql_column.unwrap_or_else(|| name.clone()),
    );
    for step in section.texts("path")? {
        column = column.step(step);
    }
    let ids = match section.take("id") {
        Some(Node {
            line,
            value: value @ Value::Table(_),
        }) => vec![Node { line, value }],
        Some(Node {
            value: Value::List(list),
            ..
        }) if !list.is_empty() => list,
        other => {
            let what = other.map_or("it has no `id`".to_owned(), |node| {
                format!("its `id` is {}", node.value.kind())
            });
            return Err(ConfigError::Value {
                origin,
                what,
                write: "`id = { column = \"id\", kind = \"integer\" }`, or a list of such, the columns of the row's id".to_owned(),
            });
        }
    };
    for node in ids {
        let mut id = section.section_of("column.id".to_owned(), node)?;
        let name = id.needed_text("column", "`{ column = \"id\", kind = \"integer\" }`")?;
        let kind = id.needed_text("kind", "`kind = \"integer\"`, or `text`, `uuid`, `bytes`")?;
        id.finish()?;
        let known = KINDS.into_iter().find(|known| known.name() == kind.value);
        let Some(known) = known else {
            return Err(ConfigError::Value {
                origin: kind.origin,
                what: format!("`{}` is no kind of row ids", units::shown(&kind.value)),
                write: "`integer`, `text`, `uuid` or `bytes`".to_owned(),
            });
        };
        column = column.row_id(name.value, known);
    }
    let context = section.section("context")?;
    let context_origin = context.origin();
    column.context = pairs_of(context)?;
    if column.context.is_empty() {
        return Err(ConfigError::Value {
            origin: if column.context.is_empty() {
                origin
            } else {
                context_origin
            },
            what: "it has no `context`, which chooses the key".to_owned(),
            write: "`context = { tenantId = { column = \"tenant_id\" }, purpose = \"pii\" }`".to_owned(),
        });
    }
    for bound in section.texts("bound")? {
        column = column.bind(bound);
    }
    column.indexes = indexes_of(&mut section, &column, pairs_of)?;
    let plaintext = match section.take("plaintext") {
        None => None,
        Some(node) => {
            let section = section.section_of("column.plaintext".to_owned(), node)?;
            Some(plaintext_of(section, &column, KINDS)?)
        }
    };
    section.finish()?;
    Ok(DeclaredColumn {
        column,
        plaintext,
        origin,
    })
}

/// Reads the pairs of an encryption context.
fn pairs_of(mut section: Section) -> Result<Vec<(String, ContextSource)>, ConfigError> {
    let mut pairs = Vec::new();
    for (key, node) in section.take_all() {
        let source = match node.value {
            Value::Text(value) => ContextSource::Value(value),
            Value::Table(_) => {
                let mut source = section.section_of(format!("column.context.{key}"), node)?;
                let of = source
                    .needed_text("column", "`{ column = \"tenant_id\" }`")?
                    .value;
                source.finish()?;
                ContextSource::Column(of)
            }
            other => {
                return Err(ConfigError::Value {
                    origin: section.origin_at(&key, node.line),
                    what: format!("it is {}", other.kind()),
                    write: "a text that all rows share, or `{ column = \"tenant_id\" }`".to_owned(),
                });
            }
        };
        pairs.push((key, source));
    }
    Ok(pairs)
}

/// Writes columns as `[[column]]` entries of `encx.toml`, such as those of `User::encx_columns()`.
///
/// Adoptions are not part of a column's description: add `plaintext` by hand.
///
/// ```
/// use encx::record::{EncryptedColumn, IndexColumn, RowIdKind};
///
/// let ssn = EncryptedColumn::new("users", "ssn")
///     .row_id("id", RowIdKind::Integer)
///     .context_column("tenantId", "tenant_id")
///     .context_value("purpose", "pii")
///     .index(IndexColumn::new("ssn_index", "trim", 20));
/// assert_eq!(
///     encx_config::columns_toml(&[ssn]),
///     r#"[[column]]
/// table = "users"
/// column = "ssn"
/// id = { column = "id", kind = "integer" }
/// context = { tenantId = { column = "tenant_id" }, purpose = "pii" }
/// index = { column = "ssn_index", normalizer = "trim", bits = 20 }
/// "#
/// );
/// ```
#[must_use]
pub fn columns_toml(columns: &[EncryptedColumn]) -> String {
    let entries: Vec<_> = columns.iter().map(|column| column_toml(column, false)).collect();
    entries.join("\n")
}

/// `sorted`: with the context's pairs and the indexes in an order that does not depend on how they were declared.
fn column_toml(column: &EncryptedColumn, sorted: bool) -> String {
    let mut toml = String::from("[[column]]\n");
    let mut line = |key: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(toml, "{key} = {value}");
    };
    line("table", &quoted(&column.table));
    line("column", &quoted(&column.column));
    if column.sql_table != column.table {
        line("sql_table", &quoted(&column.sql_table));
    }
    if column.sql_column != column.column {
        line("sql_column", &quoted(&column.sql_column));
    }
    let list = |names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
        format!("[{}]", names.join(", "))
    };
    if !column.path.is_empty() {
        line("path", &list(&column.path));
    }
    let ids: Vec<_> = column
        .row_id
        .iter()
        .map(|id| {
            format!(
                "{{ column = {}, kind = {} }}",
                quoted(&id.sql_column),
                quoted(id.kind.name())
            )
        })
        .collect();
    match ids.as_slice() {
        [id] => line("id", id),
        ids => line("id", &format!("[{}]", ids.join(", "))),
    }
    line("context", &pairs_toml(&column.context, sorted));
    if !column.bound.is_empty() {
        line("bound", &list(&column.bound));
    }
    if let Some(indexes) = indexes_toml(&column.indexes, sorted, |pairs| pairs_toml(pairs, sorted)) {
        line("index", &indexes);
    }
    toml
}

fn pairs_toml(pairs: &[(String, ContextSource)], sorted: bool) -> String {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(key, source)| match source {
            ContextSource::Column(name) => format!("{} = {{ column = {} }}", quoted_key(key), quoted(name)),
            ContextSource::Value(value) => format!("{} = {}", quoted_key(key), quoted(value)),
            other => format!("{} = {}", quoted_key(key), quoted(&format!("{other:?}"))),
        })
        .collect();
    if sorted {
        pairs.sort();
    }
    inline(&pairs)
}

/// What makes a column another one: two entries with the same are one column.
fn key_of(column: &EncryptedColumn) -> (&str, &str) {
    (&column.sql_table, &column.sql_column)
}

fn place_of(column: &EncryptedColumn) -> String {
    format!("`{}.{}`", column.sql_table, column.sql_column)
}

/// Compares declared columns with those of structs, in the tables that the structs have. Returns what differs.
pub(crate) fn difference(declared: &[DeclaredColumn], derived: &[EncryptedColumn]) -> Option<String> {
    let of_file: BTreeMap<_, _> = declared
        .iter()
        .map(|declared| (key_of(&declared.column), declared))
        .collect();
    let of_structs: BTreeMap<_, _> = derived.iter().map(|column| (key_of(column), column)).collect();
    let mut text = String::new();
    for (key, column) in &of_structs {
        let wanted = column_toml(column, true);
        match of_file.get(key) {
            None => {
                let _ = writeln!(
                    text,
                    "{} is not declared; add:\n\n{}",
                    place_of(column),
                    indented("+ ", &wanted)
                );
            }
            Some(declared) => {
                let found = column_toml(&declared.column, true);
                if found != wanted {
                    let _ = writeln!(
                        text,
                        "{}, declared by {}, differs from the struct:\n\n{}",
                        place_of(column),
                        declared.origin,
                        lines_that_differ(&found, &wanted)
                    );
                }
            }
        }
    }
    for (key, declared) in &of_file {
        let is_of_structs = of_structs.keys().any(|(table, _)| *table == key.0);
        if is_of_structs && !of_structs.contains_key(key) {
            let (place, origin) = (place_of(&declared.column), &declared.origin);
            let _ = writeln!(
                text,
                "{place}, declared by {origin}, is in no struct that was given; remove it"
            );
        }
    }
    (!text.is_empty()).then_some(text)
}

fn indented(with: &str, text: &str) -> String {
    text.lines().map(|line| format!("    {with}{line}\n")).collect()
}

/// Shows lines of the file with `-` and those of the struct with `+`, and the others as they are.
fn lines_that_differ(found: &str, wanted: &str) -> String {
    let mut text = String::new();
    for line in found.lines() {
        let sign = if wanted.lines().any(|other| other == line) {
            "  "
        } else {
            "- "
        };
        text.push_str(&indented(sign, line));
        let key = line.split(" = ").next();
        let other = wanted
            .lines()
            .find(|other| other.split(" = ").next() == key && *other != line);
        if let Some(other) = other {
            text.push_str(&indented("+ ", other));
        }
    }
    let keys: Vec<_> = found.lines().map(|line| line.split(" = ").next()).collect();
    for line in wanted
        .lines()
        .filter(|line| !keys.contains(&line.split(" = ").next()))
    {
        text.push_str(&indented("+ ", line));
    }
    text
}
