//! The statements that walk over users' tables: static text, quoted names and placeholders.

use encx::limits::MAX_PAIR_CHARS;
use encx::record::RowIdKind;
use sqlx::AssertSqlSafe;

use crate::cell::{Cell, Id};
use crate::layout::{HEADER, Layout, PlainKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// Which columns of a row are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// All that a [`Row`](crate::layout::Row) has.
    All,
    /// All but the values themselves: of a ciphertext only the header, and how long the values are.
    Head,
    /// The row's id alone.
    Id,
    /// As [`Head`](Self::Head), but of a ciphertext that is no longer than [`SHORT`] all of it. For walks without plaintexts.
    Short,
}

/// Up to how many bytes a ciphertext is read with its head: for most values one statement is enough then, and a page of ten
/// thousand takes 10 MiB.
pub(crate) const SHORT: u64 = 1024;

/// How many characters of a value are read for an encryption context: more than any pair may have.
const CONTEXT_CHARS: usize = MAX_PAIR_CHARS + 1;

/// Which rows a walk looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Those that have a ciphertext.
    Encrypted,
    /// Those that have a plaintext and no ciphertext.
    NotYetEncrypted,
    /// Those that have a plaintext.
    Plain,
}

/// What is written over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// A ciphertext over another.
    Cipher,
    /// A ciphertext where there was none, beside a plaintext.
    FirstCipher,
    /// NULL over a plaintext, beside a ciphertext.
    NoPlain,
}

/// Lets sqlx run a statement that was put together here.
///
/// It holds text of this file, names that [`Ident`](crate::ident::Ident) quoted, and placeholders.
pub(crate) fn safe(statement: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement)
}

/// The columns that become a [`Row`](crate::layout::Row): `k0`.., `x0`.., `c`, `p`; in a head `size` instead of `p`, and in
/// SQLite the types of both, `ct` and `pt`. They are read by their places: finding them by name takes as long as decrypting.
fn columns(dialect: Dialect, layout: &Layout, which: Columns) -> String {
    let mut columns = Vec::new();
    for (place, (ident, kind)) in layout.ids.iter().zip(&layout.kinds).enumerate() {
        let (ident, cast) = (ident.as_str(), cast(dialect, *kind));
        columns.push(match dialect {
            // As bytes: the server sends no text that it cannot turn into UTF-8.
            #[cfg(feature = "postgres")]
            Dialect::Postgres if which == Columns::Id && cast == "::text" => format!(
                "convert_to((t.{ident})::text, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END) \
                 AS k{place}"
            ),
            _ => format!("(t.{ident}){cast} AS k{place}"),
        });
    }
    if which == Columns::Id {
        return columns.join(", ");
    }
    for (place, ident) in layout.context.iter().enumerate() {
        let ident = ident.as_str();
        let value = match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => format!("left((t.{ident})::text, {CONTEXT_CHARS})"),
            // Not cut short where it is an integer, which would make text of it.
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => format!(
                "CASE WHEN typeof(t.{ident}) IN ('text', 'blob') THEN substr(t.{ident}, 1, {CONTEXT_CHARS}) \
                 ELSE t.{ident} END"
            ),
        };
        columns.push(format!("{value} AS x{place}"));
    }
    let cipher = layout.cipher.as_str();
    let plain = layout.plain.as_ref();
    if which == Columns::All {
        columns.push(format!("t.{cipher} AS c"));
        if let Some(plain) = plain {
            let value = plain_value(dialect, plain.ident.as_str(), plain.kind);
            columns.push(format!("{value} AS p"));
        }
        return columns.join(", ");
    }
    let plain = plain.map(|plain| (plain.ident.as_str(), plain.kind));
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            let head = format!("substr(t.{cipher}, 1, {HEADER})");
            columns.push(match which {
                Columns::Short => {
                    format!(
                        "CASE WHEN octet_length(t.{cipher}) <= {SHORT} THEN t.{cipher} ELSE {head} END AS c"
                    )
                }
                _ => format!("{head} AS c"),
            });
            let plain = plain.map_or("0".to_owned(), |(ident, kind)| match kind {
                PlainKind::Bytes => format!("coalesce(octet_length((t.{ident})::bytea), 0)"),
                PlainKind::Text => format!("coalesce(octet_length((t.{ident})::text), 0)"),
                PlainKind::Integer | PlainKind::Uuid => "16".to_owned(),
            });
            columns.push(format!(
                "(coalesce(octet_length(t.{cipher}), 0) + {plain})::bigint AS size"
            ));
        }
        // What is no blob is not read, however long it is: its type is enough to refuse it.
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let head = format!("substr(t.{cipher}, 1, {HEADER})");
            let head = match which {
                Columns::Short => {
                    format!("CASE WHEN octet_length(t.{cipher}) <= {SHORT} THEN t.{cipher} ELSE {head} END")
                }
                _ => head,
            };
            columns.push(format!(
                "CASE typeof(t.{cipher}) WHEN 'blob' THEN {head} END AS c"
            ));
            // Text that begins like this was bound as text by a client, and is no plaintext.
            columns.push(format!(
                "CASE WHEN typeof(t.{cipher}) = 'text' AND substr(t.{cipher}, 1, 1) = char(1) THEN 'text that begins as a ciphertext' \
                 ELSE typeof(t.{cipher}) END AS ct"
            ));
            let mut size = format!("coalesce(octet_length(t.{cipher}), 0)");
            if let Some((ident, _)) = plain {
                columns.push(format!("typeof(t.{ident}) AS pt"));
                size.push_str(&format!(" + coalesce(octet_length(t.{ident}), 0)"));
            }
            columns.push(format!("{size} AS size"));
        }
    }
    columns.join(", ")
}

/// A plaintext as it is read and compared: byte by byte, regardless of the column's collation.
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

/// The placeholder of a part of a row's id, in the type that the database compares it as.
fn bound(dialect: Dialect, kind: RowIdKind, cell: &Cell, place: usize) -> String {
    match (dialect, cell) {
        // Drivers bind no text but UTF-8. Only a database whose encoding is SQL_ASCII has other text.
        #[cfg(feature = "postgres")]
        (Dialect::Postgres, Cell::Raw(_)) => format!("convert_from(${place}, 'SQL_ASCII')"),
        // Without the plus SQLite would turn the column's numbers into text to compare them.
        #[cfg(feature = "sqlite")]
        (Dialect::Sqlite, Cell::Raw(_)) => format!("+CAST(${place} AS TEXT)"),
        _ => format!("${place}{}", cast(dialect, kind)),
    }
}

/// Reads rows in the order of their ids. Binds the limit; then, if asked for, the id behind which to begin; then the
/// one to end with.
pub(crate) fn page(
    dialect: Dialect,
    layout: &Layout,
    rows: Filter,
    which: Columns,
    (after, upto): (Option<&Id>, Option<&Id>),
) -> String {
    let names: Vec<_> = layout
        .ids
        .iter()
        .map(|ident| format!("t.{}", ident.as_str()))
        .collect();
    let names = names.join(", ");
    let mut next = 2;
    let mut bounds = |comparison: &str, id: &Id| {
        let mut bounds = Vec::with_capacity(id.0.len());
        for (kind, cell) in layout.kinds.iter().zip(&id.0) {
            bounds.push(bound(dialect, *kind, cell, next));
            next += 1;
        }
        format!(" AND ({names}) {comparison} ({})", bounds.join(", "))
    };
    let after = after.map_or(String::new(), |id| bounds(">", id));
    let upto = upto.map_or(String::new(), |id| bounds("<=", id));
    format!(
        "SELECT {} FROM {} AS t WHERE {}{}{after}{upto} ORDER BY {names} LIMIT $1",
        columns(dialect, layout, which),
        layout.table.as_str(),
        filter(layout, rows),
        has_id(layout),
    )
}

/// Leaves out rows whose id is NULL, which SQLite allows: they can be bound to nothing.
fn has_id(layout: &Layout) -> String {
    let ids = layout.ids.iter();
    ids.map(|ident| format!(" AND t.{} IS NOT NULL", ident.as_str()))
        .collect()
}

/// Reads rows that have a ciphertext at random. Binds how many.
pub(crate) fn sample(dialect: Dialect, layout: &Layout, which: Columns) -> String {
    format!(
        "SELECT {} FROM {} AS t WHERE {}{} ORDER BY random() LIMIT $1",
        columns(dialect, layout, which),
        layout.table.as_str(),
        filter(layout, Filter::Encrypted),
        has_id(layout),
    )
}

/// Reads one row by its id, which is bound.
#[cfg(feature = "sqlite")]
pub(crate) fn one(layout: &Layout) -> String {
    format!(
        "SELECT {} FROM {} AS t WHERE {}",
        columns(Dialect::Sqlite, layout, Columns::All),
        layout.table.as_str(),
        same_id(layout, 1),
    )
}

/// Writes one row. Binds its id, then the old ciphertext or plaintext, as far as the write compares them, then the new.
#[cfg(feature = "sqlite")]
pub(crate) fn write_one(layout: &Layout, write: Write) -> String {
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
pub(crate) fn many(layout: &Layout) -> String {
    format!(
        "SELECT {}, s.n FROM unnest({}) WITH ORDINALITY AS s({}, n) JOIN {} AS t ON {}",
        columns(Dialect::Postgres, layout, Columns::All),
        arrays(layout, &[]),
        id_names(layout),
        layout.table.as_str(),
        joined(layout, "s"),
    )
}

/// Writes many rows, and returns the places of those that were written. Binds arrays: the ids' parts, the old ciphertexts
/// or plaintexts, as far as the write compares them, and the new.
///
/// Leaves out rows that another session has locked. So it never holds one lock while it waits for another, and causes no
/// deadlock.
///
/// Values are compared by `IS NOT DISTINCT FROM`, which cannot be hashed: with `=` the planner may join by the values, and
/// then reads those of the whole table. What is bound is never NULL, except for a value of another type, which no row has.
#[cfg(feature = "postgres")]
pub(crate) fn write_many(layout: &Layout, write: Write) -> String {
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
            format!("t.{cipher} IS NOT DISTINCT FROM s.o"),
            format!("{cipher} = s.v"),
        ),
        Write::FirstCipher => (
            vec![plain_type, "::bytea"],
            "p, v",
            format!("{plain} IS NOT DISTINCT FROM s.p AND t.{cipher} IS NULL"),
            format!("{cipher} = s.v"),
        ),
        Write::NoPlain => (
            vec!["::bytea", plain_type],
            "o, p",
            format!("t.{cipher} IS NOT DISTINCT FROM s.o AND {plain} IS NOT DISTINCT FROM s.p"),
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
pub(crate) fn key_of(dialect: Dialect, layout: &Layout) -> String {
    let cipher = layout.cipher.as_str();
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => format!("substring(t.{cipher} FROM 3 FOR 16)"),
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => format!("substr(t.{cipher}, 3, 16)"),
    }
}

/// Says, in SQLite, whether the row holds a ciphertext as something other than a blob, and gives its bytes that name the
/// key: a client may have bound text, and the row needs its key all the same.
///
/// Numbers and text come before blobs, so that the index on [`key_of`] answers this too.
#[cfg(feature = "sqlite")]
fn odd_key_of(layout: &Layout) -> (String, String) {
    let (key, cipher) = (key_of(Dialect::Sqlite, layout), layout.cipher.as_str());
    let bytes = format!("substr(CAST(t.{cipher} AS BLOB), 3, 16)");
    (format!("{key} < x''"), bytes)
}

/// Counts the rows under a data key, whose id is bound as 16 bytes.
pub(crate) fn count(dialect: Dialect, layout: &Layout) -> String {
    let (table, key) = (layout.table.as_str(), key_of(dialect, layout));
    let count = format!("SELECT count(*) FROM {table} AS t WHERE {key} = $1");
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => count,
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let (is_odd, odd) = odd_key_of(layout);
            format!("SELECT ({count}) + (SELECT count(*) FROM {table} AS t WHERE {is_odd} AND {odd} = $1)")
        }
    }
}

/// Reads the ids of some rows under a data key, whose id is bound as 16 bytes; then the limit.
pub(crate) fn under(dialect: Dialect, layout: &Layout) -> String {
    let ids = layout.ids.iter();
    let whole: String = ids
        .map(|ident| format!(" AND t.{} IS NOT NULL", ident.as_str()))
        .collect();
    format!(
        "SELECT {} FROM {} AS t WHERE {} = $1{whole} LIMIT $2",
        columns(dialect, layout, Columns::Id),
        layout.table.as_str(),
        key_of(dialect, layout),
    )
}

/// Counts the rows under every data key.
pub(crate) fn census(dialect: Dialect, layout: &Layout) -> String {
    let (key, table) = (key_of(dialect, layout), layout.table.as_str());
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            let cipher = layout.cipher.as_str();
            format!(
                "SELECT {key} AS key, count(*) AS rows FROM {table} AS t WHERE t.{cipher} IS NOT NULL GROUP BY 1 ORDER BY 1"
            )
        }
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            let (is_odd, odd) = odd_key_of(layout);
            format!(
                "SELECT key, sum(rows) AS rows FROM (
                     SELECT {key} AS key, count(*) AS rows FROM {table} AS t WHERE {key} >= x'' GROUP BY 1
                     UNION ALL
                     SELECT {odd}, count(*) FROM {table} AS t WHERE {is_odd} GROUP BY 1)
                 GROUP BY 1 ORDER BY 1"
            )
        }
    }
}

/// How long ago the oldest transaction of another session on this database began, in microseconds. A row without the
/// time of its session's start is hidden from this role, and a session that tracks no activities shows no transaction.
/// Autovacuum writes no rows, and a WAL sender neither.
#[cfg(feature = "postgres")]
pub(crate) const OPEN_TRANSACTIONS: &str = "
    SELECT pg_catalog.pg_is_in_recovery() AS standby,
           count(*) FILTER (WHERE backend_start IS NULL OR state = 'disabled') AS hidden,
           (extract(epoch FROM clock_timestamp() - min(xact_start)) * 1000000)::bigint AS oldest
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND backend_type IS DISTINCT FROM 'autovacuum worker' AND backend_type IS DISTINCT FROM 'walsender'";

/// How long ago the oldest transaction was prepared on this database that is still so, in microseconds.
#[cfg(feature = "postgres")]
pub(crate) const PREPARED_TRANSACTIONS: &str = "
    SELECT (extract(epoch FROM clock_timestamp() - min(prepared)) * 1000000)::bigint AS oldest
    FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()";

/// Names the columns of a table, their types, and whether they may be NULL. $1 the table's quoted name.
#[cfg(feature = "postgres")]
pub(crate) const COLUMNS_OF_POSTGRES: &str = "
    SELECT a.attname::text AS name, coalesce(b.typname, y.typname)::text AS type, a.attnotnull AS required
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type b ON y.typtype = 'd' AND b.oid = y.typbasetype
    WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";

/// Names the columns of a table, and whether they may be NULL. $1 the table's name.
#[cfg(feature = "sqlite")]
pub(crate) const COLUMNS_OF_SQLITE: &str =
    "SELECT name, \"notnull\" <> 0 AS required FROM pragma_table_xinfo($1)";

/// The same of a table in a schema, $2.
#[cfg(feature = "sqlite")]
pub(crate) const COLUMNS_OF_SQLITE_SCHEMA: &str =
    "SELECT name, \"notnull\" <> 0 AS required FROM pragma_table_xinfo($1, $2)";

#[cfg(test)]
mod tests {
    use encx::record::EncryptedColumn;

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
            r#"SELECT (SELECT count(*) FROM "users" AS t WHERE substr(t."ssn", 3, 16) = $1) + (SELECT count(*) FROM "users" AS t WHERE substr(t."ssn", 3, 16) < x'' AND substr(CAST(t."ssn" AS BLOB), 3, 16) = $1)"#
        );
    }
}
