//! Quoted names of tables and columns: the only place where a name becomes part of a statement.

use crate::error::RowsError;

/// A name in double quotes, with embedded quotes doubled.
///
/// Both databases read everything between the quotes literally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ident(String);

impl Ident {
    /// Quotes a column name.
    pub(crate) fn column(name: &str) -> Result<Self, RowsError> {
        if name.is_empty() || name.contains('\0') {
            let what = format!("{name:?} is no name of a column");
            return Err(RowsError::Description { what });
        }
        Ok(Self(quoted(name)))
    }

    /// Quotes a table name, with its schema if it has one: `users`, `app.users`.
    ///
    /// A part that contains a dot or begins with a quote is written in double quotes: `app."odd.name"`.
    pub(crate) fn table(name: &str) -> Result<Self, RowsError> {
        let parts = parts(name).filter(|parts| (1..=2).contains(&parts.len()));
        let parts = parts.filter(|parts| parts.iter().all(|part| !part.is_empty() && !part.contains('\0')));
        let Some(parts) = parts else {
            let what = format!("{name:?} is no name of a table, nor of a schema and a table");
            return Err(RowsError::Description { what });
        };
        let parts: Vec<_> = parts.iter().map(|part| quoted(part)).collect();
        Ok(Self(parts.join(".")))
    }

    /// Writes a table name as in descriptions: the inverse of [`split`](Self::split).
    pub(crate) fn joined(schema: Option<&str>, table: &str) -> String {
        let part = |name: &str| match name.contains('.') || name.starts_with('"') {
            true => quoted(name),
            false => name.to_owned(),
        };
        match schema {
            Some(schema) => format!("{}.{}", part(schema), part(table)),
            None => part(table),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Splits a table name into its schema, if any, and its own name, both unquoted.
    pub(crate) fn split(name: &str) -> (Option<String>, String) {
        let mut parts = parts(name).unwrap_or_default();
        let table = parts.pop().unwrap_or_default();
        (parts.pop(), table)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Splits a name at dots outside double quotes.
fn parts(name: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = name;
    loop {
        let part = match rest.strip_prefix('"') {
            Some(within) => {
                let (part, behind) = unquoted(within)?;
                rest = behind;
                part
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let part = rest[..end].to_owned();
                rest = &rest[end..];
                part
            }
        };
        parts.push(part);
        if rest.is_empty() {
            return Some(parts);
        }
        rest = rest.strip_prefix('.')?;
    }
}

/// Reads up to the closing quote; also returns the rest.
fn unquoted(within: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = within;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                part.push('"');
                rest = more;
            }
            None => return Some((part, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        let columns = [
            ("ssn", r#""ssn""#),
            ("order", r#""order""#),
            ("a\"b", r#""a""b""#),
            ("x\"; DROP TABLE users; --", r#""x""; DROP TABLE users; --""#),
            ("größe", "\"größe\""),
            ("a.b", r#""a.b""#),
        ];
        for (name, quoted) in columns {
            assert_eq!(Ident::column(name).unwrap().as_str(), quoted);
        }
        let tables = [
            ("users", r#""users""#),
            ("app.users", r#""app"."users""#),
            ("\"odd.name\"", r#""odd.name""#),
            ("app.\"odd\"\".name\"", r#""app"."odd"".name""#),
            ("users; DROP TABLE x", r#""users; DROP TABLE x""#),
        ];
        for (name, quoted) in tables {
            assert_eq!(Ident::table(name).unwrap().as_str(), quoted);
        }
        for name in ["", "a.b.c", "a.", ".a", "\"open", "\"a\"b", "a.\"\"", "a\0b"] {
            assert!(Ident::table(name).is_err(), "{name:?}");
        }
        for (schema, table) in [(None, "users"), (Some("app"), "a.b"), (Some("\"x"), "y\"z")] {
            let joined = Ident::joined(schema, table);
            assert_eq!(
                Ident::split(&joined),
                (schema.map(str::to_owned), table.to_owned())
            );
        }
        for name in ["", "a\0b"] {
            assert!(Ident::column(name).is_err(), "{name:?}");
        }
    }
}
