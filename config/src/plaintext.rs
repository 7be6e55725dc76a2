//! The plaintext column that an encrypted one takes the place of, while it is adopted.

use encx::record::{EncryptedColumn, RowIdKind};

use crate::document::Section;
use crate::error::ConfigError;
use crate::units;

/// The plaintext column beside an encrypted one, for an adoption.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeclaredPlaintext {
    /// The plaintext column's name in SQL.
    pub sql_column: String,
    /// What it holds.
    pub kind: RowIdKind,
    /// The last day on which plaintexts are trusted, as `YYYY-MM-DD` in UTC.
    pub until: String,
}

/// Reads `plaintext = { column = "ssn_plain", kind = "text", until = "2027-03-31" }` of a column.
pub(crate) fn plaintext_of(
    mut section: Section,
    column: &EncryptedColumn,
    kinds: [RowIdKind; 4],
) -> Result<DeclaredPlaintext, ConfigError> {
    let refused = |origin, what: String, write: &str| ConfigError::Value {
        origin,
        what,
        write: write.to_owned(),
    };
    let name = section.needed_text("column", "`column = \"ssn_plain\"`, the plaintext column in SQL")?;
    if name.value == column.sql_column {
        let what = format!("`{}` is the encrypted column", units::shown(&name.value));
        return Err(refused(name.origin, what, "the column that holds plaintexts"));
    }
    if !column.bound.is_empty() {
        let what = "the column is bound to others, which no adoption of a column can do".to_owned();
        let write = "no `plaintext`, and have the service encrypt these rows";
        return Err(refused(section.origin(), what, write));
    }
    let kind = section.needed_text("kind", "`kind = \"text\"`, or `integer`, `uuid`, `bytes`")?;
    let Some(known) = kinds.into_iter().find(|known| known.name() == kind.value) else {
        let what = format!("`{}` is no kind of plaintexts", units::shown(&kind.value));
        return Err(refused(kind.origin, what, "`text`, `integer`, `uuid` or `bytes`"));
    };
    let until = section.needed_text(
        "until",
        "`until = \"2027-03-31\"`, the last day on which plaintexts are trusted",
    )?;
    if !is_day(&until.value) {
        let what = format!("`{}` is no day", units::shown(&until.value));
        return Err(refused(
            until.origin,
            what,
            "a day as YYYY-MM-DD, such as `2027-03-31`",
        ));
    }
    section.finish()?;
    Ok(DeclaredPlaintext {
        sql_column: name.value,
        kind: known,
        until: until.value,
    })
}

fn is_day(text: &str) -> bool {
    // What is written again as it was read is a day of the calendar.
    let read = humantime::parse_rfc3339(&format!("{text}T00:00:00Z"));
    read.is_ok_and(|day| {
        humantime::format_rfc3339_seconds(day)
            .to_string()
            .strip_suffix("T00:00:00Z")
            == Some(text)
    })
}
