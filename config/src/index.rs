//! Blind indexes of `[[column]]` entries.

use encx::record::{ContextSource, EncryptedColumn, IndexColumn};
use encx::search::IndexField;

use crate::document::{Node, Section, Value, inline, quoted};
use crate::error::ConfigError;
use crate::units;

/// The normalisers that settings can name; others are functions of the program.
const NORMALIZERS: [&str; 6] = ["case-fold", "email", "exact", "lowercase", "phone", "trim"];

/// Reads the blind indexes of a column: a table, or a list of them.
///
/// # Errors
///
/// [`ConfigError::Value`] for an index that cannot be used, such as one in the encrypted column; [`ConfigError::UnknownKey`].
pub(crate) fn indexes_of(
    section: &mut Section,
    column: &EncryptedColumn,
    pairs_of: impl Fn(Section) -> Result<Vec<(String, ContextSource)>, ConfigError>,
) -> Result<Vec<IndexColumn>, ConfigError> {
    let nodes = match section.take("index") {
        None => return Ok(Vec::new()),
        Some(Node {
            value: Value::List(list),
            ..
        }) => list,
        Some(one) => vec![one],
    };
    let mut indexes: Vec<IndexColumn> = Vec::new();
    for node in nodes {
        let section = section.section_of("column.index".to_owned(), node)?;
        let origin = section.origin();
        let index = index_of(section, &pairs_of)?;
        let sql = &index.sql_column;
        let what = if *sql == column.sql_column {
            Some(format!("`{}` is the encrypted column", units::shown(sql)))
        } else if indexes.iter().any(|other| other.sql_column == *sql) {
            Some(format!(
                "`{}` has another index of this column",
                units::shown(sql)
            ))
        } else {
            None
        };
        if let Some(what) = what {
            return Err(ConfigError::Value {
                origin,
                what,
                write: "a column of its own for each index".to_owned(),
            });
        }
        indexes.push(index);
    }
    Ok(indexes)
}

fn index_of(
    mut section: Section,
    pairs_of: impl Fn(Section) -> Result<Vec<(String, ContextSource)>, ConfigError>,
) -> Result<IndexColumn, ConfigError> {
    let sql_column = section
        .needed_text("column", "`column = \"email_index\"`, the index's column in SQL")?
        .value;
    let name = section.text("name")?.map(|set| set.value).unwrap_or_default();
    let normalizer = normalizer_of(&mut section)?;
    let mut index = IndexColumn::new(sql_column, normalizer, bits_of(&mut section)?).named(name);
    for node in tables_of(&mut section, "with")? {
        let mut part = section.section_of("column.index.with".to_owned(), node)?;
        let column = part
            .needed_text(
                "column",
                "`{ column = \"born\" }`, a further column of the index, by its name in the AAD",
            )?
            .value;
        let normalizer = normalizer_of(&mut part)?;
        part.finish()?;
        index = index.with(column, normalizer);
    }
    if index.with.len() >= IndexField::MAX_PARTS {
        return Err(ConfigError::Value {
            origin: section.origin(),
            what: format!("it is over {} columns", index.with.len() + 1),
            write: format!("at most {}", IndexField::MAX_PARTS),
        });
    }
    let context = section.section("context")?;
    index.context = pairs_of(context)?;
    section.finish()?;
    Ok(index)
}

/// Removes and returns a table, or a list of tables.
fn tables_of(section: &mut Section, key: &str) -> Result<Vec<Node>, ConfigError> {
    match section.take(key) {
        None => Ok(Vec::new()),
        Some(Node {
            value: Value::List(list),
            ..
        }) => Ok(list),
        Some(one) => Ok(vec![one]),
    }
}

fn normalizer_of(section: &mut Section) -> Result<String, ConfigError> {
    match section.text("normalizer")? {
        None => Ok("exact".to_owned()),
        Some(set) if NORMALIZERS.contains(&set.value.as_str()) || set.value.starts_with("custom/") => {
            Ok(set.value)
        }
        Some(set) => {
            let known: Vec<_> = NORMALIZERS.iter().map(|known| format!("`{known}`")).collect();
            Err(ConfigError::Value {
                origin: set.origin,
                what: format!("`{}` is no normaliser", units::shown(&set.value)),
                write: format!(
                    "one of {}, or `custom/NAME` for a function of your own",
                    known.join(", ")
                ),
            })
        }
    }
}

fn bits_of(section: &mut Section) -> Result<u16, ConfigError> {
    let (least, most) = (IndexField::MIN_BITS, IndexField::MAX_BITS);
    match section.take("bits") {
        Some(Node {
            value: Value::Number(number),
            line,
        }) => {
            let origin = section.origin_at("bits", line);
            let read = units::integer(&number, least.into(), most.into());
            let read = read.map_err(|refused| ConfigError::Value {
                origin,
                what: refused.what,
                write: refused.write,
            })?;
            Ok(u16::try_from(read).unwrap_or(most))
        }
        _ => Err(ConfigError::Value {
            origin: section.origin(),
            what: "it has no number of `bits`".to_owned(),
            write: format!("`bits = 32`, from {least} to {most}"),
        }),
    }
}

/// Writes blind indexes as the value of `index`; `sorted`: in an order that does not depend on how they were declared.
pub(crate) fn indexes_toml(
    indexes: &[IndexColumn],
    sorted: bool,
    pairs_toml: impl Fn(&[(String, ContextSource)]) -> String,
) -> Option<String> {
    let mut written: Vec<_> = indexes
        .iter()
        .map(|index| {
            let mut of = vec![format!("column = {}", quoted(&index.sql_column))];
            if !index.name.is_empty() {
                of.push(format!("name = {}", quoted(&index.name)));
            }
            of.push(format!("normalizer = {}", quoted(&index.normalizer)));
            if !index.with.is_empty() {
                let parts = index.with.iter().map(|part| {
                    inline(&[
                        format!("column = {}", quoted(&part.column)),
                        format!("normalizer = {}", quoted(&part.normalizer)),
                    ])
                });
                of.push(format!("with = [{}]", parts.collect::<Vec<_>>().join(", ")));
            }
            of.push(format!("bits = {}", index.bits));
            if !index.context.is_empty() {
                of.push(format!("context = {}", pairs_toml(&index.context)));
            }
            inline(&of)
        })
        .collect();
    if sorted {
        written.sort();
    }
    match written.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        all => Some(format!("[{}]", all.join(", "))),
    }
}
