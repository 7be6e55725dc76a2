//! The statements that walk over users' tables: static text, quoted names and placeholders.

use encx::RowIdKind;
use sqlx::AssertSqlSafe;

use super::layout::{Layout, PlainKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// Which rows a walk looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Those that have a ciphertext.
    Encrypted,
    /// Those that have a plaintext and no ciphertext.
    NotYetEncrypted,
    /// Those that have a plaintext.
    Plain,
}

/// What is written over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// A ciphertext over another.
    Cipher,
    /// A ciphertext where there was none, beside a plaintext.
    FirstCipher,
    /// NULL over a plaintext, beside a ciphertext.
    NoPlain,
}

/// Lets sqlx run a statement that was put together here.
///
/// It holds text of this file, names that [`Ident`](super::ident::Ident) quoted, and placeholders.
pub(super) fn safe(statement: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement)
}

/// The columns that become a [`Row`](super::layout::Row): `k0`.., `x0`.., `c`, `p`. Of the ciphertext only the header if `head`.
fn columns(dialect: Dialect, layout: &Layout, head: bool) -> String {
    let mut columns = Vec::new();
    for (place, (ident, kind)) in layout.ids.iter().zip(&layout.kinds).enumerate() {
        let cast = cast(dialect, *kind);
        columns.push(format!("(t.{}){cast} AS k{place}", ident.as_str()));
    }
    let text = match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => "::text",
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => "",
    };
    for (place, ident) in layout.context.iter().enumerate() {
        columns.push(format!("(t.{}){text} AS x{place}", ident.as_str()));
    }
    let cipher = layout.cipher.as_str();
    columns.push(if head {
        format!("substr(t.{cipher}, 1, 18) AS c")
    } else {
        format!("t.{cipher} AS c")
    });
    if let Some(plain) = layout.plain.as_ref().filter(|_| !head) {
        columns.push(format!(
            "{} AS p",
            plain_value(dialect, plain.ident.as_str(), plain.kind)
        ));
    }
    columns.join(", ")
}

/// A plaintext as it is read and compared: byte by byte, whatever the column's collation calls equal.
fn plain_value(dialect: Dialect, ident: &str, kind: PlainKind) -> String {
    match (dialect, kind) {
        #[cfg(feature = "postgres")]
        (Dialect::Postgres, PlainKind::Text) => format!("((t.{ident})::text COLLATE \"C\")"),
        #[cfg(feature = "postgres")]
        (Dialect::Postgres, kind) => format!("((t.{ident}){})", plain_type(kind)),
        #[cfg(feature = "sqlite")]
        (Dialect::Sqlite, _) => format!("t.{ident} COLLATE BINARY"),
    }
}

/// The type in which PostgreSQL takes and gives a plaintext.
#[cfg(feature = "postgres")]
fn plain_type(kind: PlainKind) -> &'static str {
    match kind {
        PlainKind::Bytes => "::bytea",
        PlainKind::Integer => "::bigint",
        PlainKind::Text => "::text",
        PlainKind::Uuid => "::uuid",
    }
}

/// Makes PostgreSQL take and give a part of a row's id in the one width that is bound; other databases have no types.
fn cast(dialect: Dialect, kind: RowIdKind) -> &'static str {
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => match kind {
            RowIdKind::Bytes => "::bytea",
            RowIdKind::Integer => "::bigint",
            RowIdKind::Uuid => "::uuid",
            _ => "::text",
        },
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let _ = kind;
            ""
        }
    }
}

fn filter(layout: &Layout, filter: Filter) -> String {
    let cipher = layout.cipher.as_str();
    let plain = layout.plain.as_ref().map_or("", |plain| plain.ident.as_str());
    match filter {
        Filter::Encrypted => format!("t.{cipher} IS NOT NULL"),
        Filter::NotYetEncrypted => format!("t.{cipher} IS NULL AND t.{plain} IS NOT NULL"),
        Filter::Plain => format!("t.{plain} IS NOT NULL"),
    }
}

/// Reads rows in the order of their ids. Binds the limit; then, if asked for, the id behind which to begin; then the
/// one to end with.
pub(super) fn page(dialect: Dialect, layout: &Layout, rows: Filter, after: bool, upto: bool) -> String {
    let names: Vec<_> = layout
        .ids
        .iter()
        .map(|ident| format!("t.{}", ident.as_str()))
        .collect();
    let names = names.join(", ");
    let mut next = 2;
    let mut bound = |comparison: &str| {
        let bounds: Vec<_> = layout
            .kinds
            .iter()
            .map(|kind| {
                let bound = format!("${next}{}", cast(dialect, *kind));
                next += 1;
                bound
            })
            .collect();
        format!(" AND ({names}) {comparison} ({})", bounds.join(", "))
    };
    let after = if after { bound(">") } else { String::new() };
    let upto = if upto { bound("<=") } else { String::new() };
    // A row whose id is NULL, which SQLite allows, can be bound to nothing.
    let whole: String = layout
        .ids
        .iter()
        .map(|ident| format!(" AND t.{} IS NOT NULL", ident.as_str()))
        .collect();
    format!(
        "SELECT {} FROM {} AS t WHERE {}{whole}{after}{upto} ORDER BY {names} LIMIT $1",
        columns(dialect, layout, true),
        layout.table.as_str(),
        filter(layout, rows),
    )
}

/// Reads one row by its id, which is bound.
#[cfg(feature = "sqlite")]
pub(super) fn one(layout: &Layout) -> String {
    format!(
        "SELECT {} FROM {} AS t WHERE {}",
        columns(Dialect::Sqlite, layout, false),
        layout.table.as_str(),
        same_id(layout, 1),
    )
}

/// Writes one row. Binds its id, then the old ciphertext or plaintext, as far as the write compares them, then the new.
#[cfg(feature = "sqlite")]
pub(super) fn write_one(layout: &Layout, write: Write) -> String {
    let (cipher, first) = (layout.cipher.as_str(), layout.ids.len() + 1);
    let (table, same_id) = (layout.table.as_str(), same_id(layout, 1));
    let plain = |place: usize| {
        layout.plain.as_ref().map_or(String::new(), |plain| {
            let value = plain_value(Dialect::Sqlite, plain.ident.as_str(), plain.kind);
            format!("{value} = ${place}")
        })
    };
    match write {
        Write::Cipher => format!(
            "UPDATE {table} AS t SET {cipher} = ${} WHERE {same_id} AND t.{cipher} = ${first}",
            first + 1
        ),
        Write::FirstCipher => format!(
            "UPDATE {table} AS t SET {cipher} = ${} WHERE {same_id} AND {} AND t.{cipher} IS NULL",
            first + 1,
            plain(first),
        ),
        Write::NoPlain => format!(
            "UPDATE {table} AS t SET {} = NULL WHERE {same_id} AND t.{cipher} = ${first} AND {}",
            layout.plain.as_ref().map_or("", |plain| plain.ident.as_str()),
            plain(first + 1),
        ),
    }
}

#[cfg(feature = "sqlite")]
fn same_id(layout: &Layout, first: usize) -> String {
    let same = layout.ids.iter().enumerate();
    let same: Vec<_> = same
        .map(|(place, ident)| format!("t.{} = ${}", ident.as_str(), first + place))
        .collect();
    same.join(" AND ")
}

/// The arrays that a statement over many rows binds: the ids' parts, and more of these types.
#[cfg(feature = "postgres")]
fn arrays(layout: &Layout, more: &[&str]) -> String {
    let ids = layout.kinds.iter().map(|kind| cast(Dialect::Postgres, *kind));
    let types = ids.chain(more.iter().copied());
    let arrays: Vec<_> = types
        .enumerate()
        .map(|(place, cast)| format!("${}{cast}[]", place + 1))
        .collect();
    arrays.join(", ")
}

#[cfg(feature = "postgres")]
fn id_names(layout: &Layout) -> String {
    let names: Vec<_> = (0..layout.ids.len()).map(|place| format!("k{place}")).collect();
    names.join(", ")
}

#[cfg(feature = "postgres")]
fn joined(layout: &Layout, with: &str) -> String {
    let same = layout.ids.iter().enumerate();
    let same: Vec<_> = same
        .map(|(place, ident)| format!("t.{} = {with}.k{place}", ident.as_str()))
        .collect();
    same.join(" AND ")
}

/// Reads rows by their ids, which are bound as arrays; `n` is their place in them, from 1.
#[cfg(feature = "postgres")]
pub(super) fn many(layout: &Layout) -> String {
    format!(
        "SELECT s.n, {} FROM unnest({}) WITH ORDINALITY AS s({}, n) JOIN {} AS t ON {}",
        columns(Dialect::Postgres, layout, false),
        arrays(layout, &[]),
        id_names(layout),
        layout.table.as_str(),
        joined(layout, "s"),
    )
}

/// Writes many rows, and returns the places of those that were written. Binds arrays: the ids' parts, the old ciphertexts
/// or plaintexts, as far as the write compares them, and the new.
///
/// It waits for nobody: a row that somebody has locked is left out. So it never holds one lock while it waits for
/// another, and nobody else's transaction ends in a deadlock because of it.
#[cfg(feature = "postgres")]
pub(super) fn write_many(layout: &Layout, write: Write) -> String {
    let cipher = layout.cipher.as_str();
    let plain = layout.plain.as_ref();
    let plain_type = plain.map_or("::text", |plain| plain_type(plain.kind));
    let plain_ident = plain.map_or("", |plain| plain.ident.as_str());
    let plain = plain.map_or(String::new(), |plain| {
        plain_value(Dialect::Postgres, plain.ident.as_str(), plain.kind)
    });
    let (types, names, same, set): (Vec<&str>, &str, _, _) = match write {
        Write::Cipher => (
            vec!["::bytea", "::bytea"],
            "o, v",
            format!("t.{cipher} = s.o"),
            format!("{cipher} = s.v"),
        ),
        Write::FirstCipher => (
            vec![plain_type, "::bytea"],
            "p, v",
            format!("{plain} = s.p AND t.{cipher} IS NULL"),
            format!("{cipher} = s.v"),
        ),
        Write::NoPlain => (
            vec!["::bytea", plain_type],
            "o, p",
            format!("t.{cipher} = s.o AND {plain} = s.p"),
            format!("{plain_ident} = NULL"),
        ),
    };
    let (table, ids) = (layout.table.as_str(), id_names(layout));
    let (joined, arrays) = (joined(layout, "s"), arrays(layout, &types));
    format!(
        "WITH free AS MATERIALIZED (
             SELECT s.* FROM unnest({arrays}) WITH ORDINALITY AS s({ids}, {names}, n)
             JOIN {table} AS t ON {joined} AND {same}
             FOR NO KEY UPDATE OF t SKIP LOCKED)
         UPDATE {table} AS t SET {set} FROM free AS s WHERE {joined} AND {same} RETURNING s.n"
    )
}

/// The bytes of a ciphertext that name its data key, as an index on them has them.
pub(super) fn key_of(dialect: Dialect, layout: &Layout) -> String {
    let cipher = layout.cipher.as_str();
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => format!("substring(t.{cipher} FROM 3 FOR 16)"),
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => format!("substr(t.{cipher}, 3, 16)"),
    }
}

/// Counts the rows under a data key, whose id is bound as 16 bytes.
pub(super) fn count(dialect: Dialect, layout: &Layout) -> String {
    let key = key_of(dialect, layout);
    format!(
        "SELECT count(*) FROM {} AS t WHERE {key} = $1",
        layout.table.as_str()
    )
}

/// Counts the rows under every data key.
pub(super) fn census(dialect: Dialect, layout: &Layout) -> String {
    let (key, cipher) = (key_of(dialect, layout), layout.cipher.as_str());
    format!(
        "SELECT {key} AS key, count(*) AS rows FROM {} AS t WHERE t.{cipher} IS NOT NULL GROUP BY 1 ORDER BY 1",
        layout.table.as_str()
    )
}

/// How long ago the oldest transaction of another session on this database began, in microseconds. A row without the
/// time of its session's start is hidden from this role, and a session that tracks no activities shows no transaction.
/// Autovacuum writes no rows, and a WAL sender neither.
#[cfg(feature = "postgres")]
pub(super) const OPEN_TRANSACTIONS: &str = "
    SELECT pg_catalog.pg_is_in_recovery() AS standby,
           count(*) FILTER (WHERE backend_start IS NULL OR state = 'disabled') AS hidden,
           (extract(epoch FROM clock_timestamp() - min(xact_start)) * 1000000)::bigint AS oldest
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND backend_type IS DISTINCT FROM 'autovacuum worker' AND backend_type IS DISTINCT FROM 'walsender'";

/// How long ago the oldest transaction was prepared on this database that is still so, in microseconds.
#[cfg(feature = "postgres")]
pub(super) const PREPARED_TRANSACTIONS: &str = "
    SELECT (extract(epoch FROM clock_timestamp() - min(prepared)) * 1000000)::bigint AS oldest
    FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()";

/// Names the columns of a table, their types, and whether they may be NULL. $1 the table's quoted name.
#[cfg(feature = "postgres")]
pub(super) const COLUMNS_OF_POSTGRES: &str = "
    SELECT a.attname::text AS name, coalesce(b.typname, y.typname)::text AS type, a.attnotnull AS required
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type b ON y.typtype = 'd' AND b.oid = y.typbasetype
    WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";

/// Names the columns of a table, and whether they may be NULL. $1 the table's name.
#[cfg(feature = "sqlite")]
pub(super) const COLUMNS_OF_SQLITE: &str =
    "SELECT name, \"notnull\" <> 0 AS required FROM pragma_table_xinfo($1)";

/// The same of a table in a schema, $2.
#[cfg(feature = "sqlite")]
pub(super) const COLUMNS_OF_SQLITE_SCHEMA: &str =
    "SELECT name, \"notnull\" <> 0 AS required FROM pragma_table_xinfo($1, $2)";

#[cfg(test)]
mod tests {
    use encx::EncryptedColumn;

    use super::*;

    /// `tests/rows/census.rs` shows that a query like this uses the index that [`Rows::census`](crate::Rows::census) names.
    #[test]
    fn a_count_says_what_the_index_has() {
        let column = EncryptedColumn::new("users", "ssn").row_id("id", RowIdKind::Integer);
        let layout = Layout::new(column.context_value("purpose", "pii")).unwrap();
        #[cfg(feature = "postgres")]
        assert_eq!(
            count(Dialect::Postgres, &layout),
            r#"SELECT count(*) FROM "users" AS t WHERE substring(t."ssn" FROM 3 FOR 16) = $1"#
        );
        #[cfg(feature = "sqlite")]
        assert_eq!(
            count(Dialect::Sqlite, &layout),
            r#"SELECT count(*) FROM "users" AS t WHERE substr(t."ssn", 3, 16) = $1"#
        );
    }
}
