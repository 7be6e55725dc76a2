//! Users' rows in SQLite: read row by row, which costs nothing there, and written in short transactions.

use std::collections::HashMap;
use std::time::Duration;

use encx::store::OpenTransactions;
use encx_sqlx::__private::{SQLITE_BEGIN, sqlite_passing};
use sqlx::error::DatabaseError;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Row as _, Sqlite, TypeInfo, ValueRef};

use crate::cell::{Cell, Id};
use crate::error::{BLOB, RowsError};
use crate::ident::Ident;
use crate::layout::Change;
use crate::layout::{Layout, PlainKind, Read, Row, Unread};
use crate::sql::{self, Columns, Dialect, Filter, SHORT, Write};

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

pub(crate) fn failed(error: sqlx::Error) -> RowsError {
    RowsError::database(error, sqlite_passing)
}

/// Checks that the table has the columns that are described. What they hold, each row says.
pub(crate) async fn check(pool: &SqlitePool, layout: &Layout, contracts: bool) -> Result<(), RowsError> {
    let described = &layout.described;
    let found = match Ident::split(&described.sql_table) {
        (None, table) => sqlx::query(sql::COLUMNS_OF_SQLITE).bind(table),
        (Some(schema), table) => sqlx::query(sql::COLUMNS_OF_SQLITE_SCHEMA)
            .bind(table)
            .bind(schema),
    };
    let found = found.fetch_all(pool).await.map_err(failed)?;
    let table = || described.sql_table.clone();
    if found.is_empty() {
        return Err(RowsError::NoSuchTable { table: table() });
    }
    let mut columns = HashMap::new();
    for row in &found {
        // SQLite's names do not tell ASCII's cases apart.
        let name: String = row.try_get("name").map_err(failed)?;
        let required: bool = row.try_get("required").map_err(failed)?;
        columns.insert(name.to_ascii_lowercase(), required);
    }
    let ids = described.row_id.iter().map(|part| part.sql_column.as_str());
    let plain = layout.plain.as_ref().map(|plain| plain.name.as_str());
    let all = ids
        .chain(layout.context_columns())
        .chain([&*described.sql_column])
        .chain(plain);
    for column in all {
        match columns.get(&column.to_ascii_lowercase()) {
            None => {
                return Err(RowsError::NoSuchColumn {
                    table: table(),
                    column: column.to_owned(),
                });
            }
            Some(true) if contracts && Some(column) == plain => return Err(layout.not_null()),
            Some(_) => {}
        }
    }
    Ok(())
}

pub(crate) async fn page(
    pool: &SqlitePool,
    layout: &Layout,
    rows: Filter,
    which: Columns,
    between: (Option<&Id>, Option<&Id>),
    limit: u32,
) -> Result<Vec<Read>, RowsError> {
    let statement = sql::page(Dialect::Sqlite, layout, rows, which, between);
    let query = sqlx::query(sql::safe(statement)).bind(i64::from(limit));
    let (after, upto) = between;
    let query = after.into_iter().chain(upto).fold(query, bind_id);
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row, which)).collect()
}

/// Reads the heads, or the ids alone, of rows at random.
pub(crate) async fn sample(
    pool: &SqlitePool,
    layout: &Layout,
    which: Columns,
    limit: u32,
) -> Result<Vec<Read>, RowsError> {
    let statement = sql::sample(Dialect::Sqlite, layout, which);
    let query = sqlx::query(sql::safe(statement)).bind(i64::from(limit));
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row, which)).collect()
}

/// Reads rows by their ids, in the same order; `None` for one that is gone.
pub(crate) async fn fetch(
    pool: &SqlitePool,
    layout: &Layout,
    ids: &[&Id],
) -> Result<Vec<Option<Read>>, RowsError> {
    let statement = sql::one(layout);
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let query = bind_id(sqlx::query(sql::safe(statement.clone())), id);
        let found = query.fetch_optional(&mut *connection).await.map_err(failed)?;
        rows.push(found.map(|row| read(layout, &row, Columns::All)).transpose()?);
    }
    Ok(rows)
}

/// Writes rows in one transaction, and says of each whether it was still what it was when it was read.
pub(crate) async fn write(
    pool: &SqlitePool,
    layout: &Layout,
    write: Write,
    changes: &[Change],
) -> Result<Vec<bool>, RowsError> {
    let statement = sql::write_one(layout, write);
    // To begin as a reader and to become a writer would fail at once if another writes.
    let mut transaction = pool.begin_with(SQLITE_BEGIN).await.map_err(failed)?;
    let mut done = Vec::with_capacity(changes.len());
    for change in changes {
        let query = bind_id(sqlx::query(sql::safe(statement.clone())), &change.row.id);
        let (old, plain) = (change.row.cipher.clone(), change.row.plain.clone());
        let query = match write {
            Write::Cipher => query.bind(old).bind(change.cipher.clone()),
            Write::FirstCipher => bind_cell(query, plain).bind(change.cipher.clone()),
            Write::NoPlain => bind_cell(query.bind(old), plain),
        };
        let written = query.execute(&mut *transaction).await.map_err(failed)?;
        done.push(written.rows_affected() == 1);
    }
    transaction.commit().await.map_err(failed)?;
    Ok(done)
}

pub(crate) async fn count(pool: &SqlitePool, layout: &Layout, key: &[u8; 16]) -> Result<i64, RowsError> {
    let query = sqlx::query_scalar(sql::safe(sql::count(Dialect::Sqlite, layout)));
    query.bind(key.to_vec()).fetch_one(pool).await.map_err(failed)
}

/// Reads the ids of at most `limit` rows under a data key.
pub(crate) async fn under(
    pool: &SqlitePool,
    layout: &Layout,
    key: &[u8; 16],
    limit: u32,
) -> Result<Vec<Read>, RowsError> {
    let query = sqlx::query(sql::safe(sql::under(Dialect::Sqlite, layout)));
    let query = query.bind(key.to_vec()).bind(i64::from(limit));
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row, Columns::Id)).collect()
}

pub(crate) async fn census(pool: &SqlitePool, layout: &Layout) -> Result<Vec<(Vec<u8>, i64)>, RowsError> {
    let query = sqlx::query_as(sql::safe(sql::census(Dialect::Sqlite, layout)));
    query.fetch_all(pool).await.map_err(failed)
}

/// Waits for the turn to write: when it comes, no other transaction is open that has written.
pub(crate) async fn open_transactions(pool: &SqlitePool) -> Result<OpenTransactions, RowsError> {
    match pool.begin_with(SQLITE_BEGIN).await {
        Ok(transaction) => {
            transaction.rollback().await.map_err(failed)?;
            Ok(OpenTransactions::NONE)
        }
        Err(error) if is_busy(&error) => Ok(OpenTransactions::new(Some(Duration::MAX), None)),
        Err(error) => Err(failed(error)),
    }
}

/// Tells whether another connection had its turn to write for longer than `busy_timeout`.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    // The low byte is the primary code: SQLITE_BUSY, SQLITE_LOCKED.
    let code = code.and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

fn bind_id<'q>(query: Statement<'q>, id: &Id) -> Statement<'q> {
    id.0.iter()
        .fold(query, |query, cell| bind_cell(query, Some(cell.clone())))
}

fn bind_cell(query: Statement<'_>, cell: Option<Cell>) -> Statement<'_> {
    match cell {
        None => query.bind(None::<String>),
        Some(Cell::Bytes(value) | Cell::Raw(value)) => query.bind(value),
        Some(Cell::Integer(value)) => query.bind(value),
        Some(Cell::Real(bits)) => query.bind(f64::from_bits(bits)),
        Some(Cell::Text(value)) => query.bind(value),
        Some(Cell::Uuid(value)) => query.bind(value.as_bytes().to_vec()),
    }
}

/// Reads a row, or says why that one cannot be read: of what type a value is, each row of SQLite says for itself.
fn read(layout: &Layout, row: &SqliteRow, which: Columns) -> Result<Read, RowsError> {
    let mut id = Vec::with_capacity(layout.ids.len());
    for (place, part) in layout.described.row_id.iter().enumerate() {
        // The statement leaves NULL out.
        let null = || layout.mistyped(&part.sql_column, "NULL", "a value");
        id.push(cell(row, place)?.ok_or_else(null)?);
    }
    let id = Id(id);
    let mut read = Row {
        id,
        context: Vec::with_capacity(layout.context.len()),
        cipher: None,
        plain: None,
        size: 0,
        whole: which == Columns::All,
    };
    let filled = match which {
        Columns::All => context(layout, row, &mut read).and_then(|()| values(layout, row, &mut read)),
        Columns::Head | Columns::Short => {
            context(layout, row, &mut read).and_then(|()| head(layout, row, which, &mut read))
        }
        Columns::Id => Ok(()),
    };
    Ok(match filled {
        Ok(()) => Ok(read),
        Err(error) => Err(Unread {
            id: read.id,
            error: error.into(),
        }),
    })
}

fn context(layout: &Layout, row: &SqliteRow, read: &mut Row) -> Result<(), RowsError> {
    for (place, column) in layout.context_columns().enumerate() {
        let value = cell(row, layout.ids.len() + place)?;
        let text = value.map(|value| {
            let kind = value.type_name();
            let unfit = || layout.mistyped(column, kind, "text, an integer or a UUID");
            value.to_context().ok_or_else(unfit)
        });
        read.context.push(text.transpose()?);
    }
    Ok(())
}

/// Reads the header of a ciphertext, and refuses values by their types alone.
fn head(layout: &Layout, row: &SqliteRow, which: Columns, read: &mut Row) -> Result<(), RowsError> {
    let cipher = layout.ids.len() + layout.context.len();
    let (of_cipher, mut size) = (cipher + 1, cipher + 2);
    let kind: &str = row.try_get(of_cipher).map_err(failed)?;
    if !matches!(kind, "blob" | "null") {
        return Err(layout.mistyped(&layout.described.sql_column, kind, BLOB));
    }
    if let Some(plain) = &layout.plain {
        let kind: &str = row.try_get(size).map_err(failed)?;
        size += 1;
        let fits = match plain.kind {
            PlainKind::Bytes => kind == "blob",
            PlainKind::Integer => kind == "integer",
            PlainKind::Text => kind == "text",
            PlainKind::Uuid => matches!(kind, "blob" | "text"),
        };
        if !fits && kind != "null" {
            return Err(layout.mistyped(&plain.name, kind, plain.kind.expected()));
        }
    }
    read.cipher = row.try_get(cipher).map_err(failed)?;
    read.size = u64::try_from(row.try_get::<i64, _>(size).map_err(failed)?).unwrap_or(0);
    read.whole = which == Columns::Short && read.size <= SHORT;
    Ok(())
}

/// Reads the values themselves.
fn values(layout: &Layout, row: &SqliteRow, read: &mut Row) -> Result<(), RowsError> {
    let cipher = layout.ids.len() + layout.context.len();
    read.cipher = match cell(row, cipher)? {
        None => None,
        Some(Cell::Bytes(bytes)) => Some(bytes),
        Some(other) => {
            let column = &layout.described.sql_column;
            return Err(layout.mistyped(column, other.type_name(), BLOB));
        }
    };
    if let Some(plain) = &layout.plain {
        read.plain = cell(row, cipher + 1)?;
        let fits = match (&read.plain, plain.kind) {
            (None, _)
            | (Some(Cell::Bytes(_)), PlainKind::Bytes)
            | (Some(Cell::Integer(_)), PlainKind::Integer)
            | (Some(Cell::Text(_)), PlainKind::Text) => true,
            (Some(value), PlainKind::Uuid) => value.as_uuid().is_some(),
            (Some(_), _) => false,
        };
        if let Some(other) = read.plain.as_ref().filter(|_| !fits) {
            return Err(layout.mistyped(&plain.name, other.type_name(), plain.kind.expected()));
        }
    }
    Ok(())
}

/// Reads a value by the type that it has in this row.
fn cell(row: &SqliteRow, place: usize) -> Result<Option<Cell>, RowsError> {
    let value = row.try_get_raw(place).map_err(failed)?;
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.type_info();
    Ok(Some(match kind.name() {
        "BLOB" => Cell::Bytes(row.try_get_unchecked(place).map_err(failed)?),
        "INTEGER" => Cell::Integer(row.try_get_unchecked(place).map_err(failed)?),
        "REAL" => Cell::Real(row.try_get_unchecked::<f64, _>(place).map_err(failed)?.to_bits()),
        // There is no other type.
        _ => {
            let bytes = row.try_get_unchecked(place).map_err(failed)?;
            String::from_utf8(bytes).map_or_else(|odd| Cell::Raw(odd.into_bytes()), Cell::Text)
        }
    }))
}
