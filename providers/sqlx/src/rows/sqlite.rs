//! Users' rows in SQLite: read row by row, which costs nothing there, and written in short transactions.

use std::collections::HashMap;
use std::time::Duration;

use encx::OpenTransactions;
use sqlx::error::DatabaseError;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Row as _, Sqlite, TypeInfo, ValueRef};

use super::cell::{Cell, Id};
use super::ident::Ident;
use super::layout::{Layout, PlainKind, Row};
use super::sql::{self, Dialect, Filter, Write};
use super::{Change, RowsError};
use crate::sqlite::{BEGIN, is_passing};

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

fn failed(error: sqlx::Error) -> RowsError {
    RowsError::database(error, is_passing)
}

/// Checks that the table has the columns that are described. What they hold, each row says.
pub(super) async fn check(pool: &SqlitePool, layout: &Layout, contracts: bool) -> Result<(), RowsError> {
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

pub(super) async fn page(
    pool: &SqlitePool,
    layout: &Layout,
    rows: Filter,
    (after, upto): (Option<&Id>, Option<&Id>),
    limit: u32,
) -> Result<Vec<Row>, RowsError> {
    let statement = sql::page(Dialect::Sqlite, layout, rows, after.is_some(), upto.is_some());
    let query = sqlx::query(sql::safe(statement)).bind(i64::from(limit));
    let query = after.into_iter().chain(upto).fold(query, bind_id);
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row)).collect()
}

/// Reads rows by their ids, in the same order; `None` for one that is gone.
pub(super) async fn fetch(
    pool: &SqlitePool,
    layout: &Layout,
    ids: &[&Id],
) -> Result<Vec<Option<Row>>, RowsError> {
    let statement = sql::one(layout);
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let query = bind_id(sqlx::query(sql::safe(statement.clone())), id);
        let found = query.fetch_optional(&mut *connection).await.map_err(failed)?;
        rows.push(found.map(|row| read(layout, &row)).transpose()?);
    }
    Ok(rows)
}

/// Writes rows in one transaction, and says of each whether it was still what it was when it was read.
pub(super) async fn write(
    pool: &SqlitePool,
    layout: &Layout,
    write: Write,
    changes: &[Change],
) -> Result<Vec<bool>, RowsError> {
    let statement = sql::write_one(layout, write);
    // To begin as a reader and to become a writer would fail at once if another writes.
    let mut transaction = pool.begin_with(BEGIN).await.map_err(failed)?;
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

pub(super) async fn count(pool: &SqlitePool, layout: &Layout, key: &[u8; 16]) -> Result<i64, RowsError> {
    let query = sqlx::query_scalar(sql::safe(sql::count(Dialect::Sqlite, layout)));
    query.bind(key.to_vec()).fetch_one(pool).await.map_err(failed)
}

pub(super) async fn census(pool: &SqlitePool, layout: &Layout) -> Result<Vec<(Vec<u8>, i64)>, RowsError> {
    let query = sqlx::query_as(sql::safe(sql::census(Dialect::Sqlite, layout)));
    query.fetch_all(pool).await.map_err(failed)
}

/// Waits for the turn to write: when it comes, no other transaction is open that has written.
pub(super) async fn open_transactions(pool: &SqlitePool) -> Result<OpenTransactions, RowsError> {
    match pool.begin_with(BEGIN).await {
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
        Some(Cell::Bytes(value)) => query.bind(value),
        Some(Cell::Integer(value)) => query.bind(value),
        Some(Cell::Text(value)) => query.bind(value),
        Some(Cell::Uuid(value)) => query.bind(value.as_bytes().to_vec()),
    }
}

fn read(layout: &Layout, row: &SqliteRow) -> Result<Row, RowsError> {
    let described = &layout.described;
    let mut id = Vec::with_capacity(layout.ids.len());
    for (place, part) in described.row_id.iter().enumerate() {
        let value = cell(layout, row, &format!("k{place}"), &part.sql_column)?;
        id.push(value.ok_or_else(|| mistyped(layout, &part.sql_column, "NULL", "a value"))?);
    }
    let mut context = Vec::with_capacity(layout.context.len());
    for (place, column) in layout.context_columns().enumerate() {
        let value = cell(layout, row, &format!("x{place}"), column)?;
        let text = value.map(|value| {
            let kind = value.type_name();
            let unfit = || mistyped(layout, column, kind, "text, an integer or a UUID");
            value.to_context().ok_or_else(unfit)
        });
        context.push(text.transpose()?);
    }
    let cipher = match cell(layout, row, "c", &described.sql_column)? {
        None => None,
        Some(Cell::Bytes(bytes)) => Some(bytes),
        Some(other) => {
            return Err(mistyped(
                layout,
                &described.sql_column,
                other.type_name(),
                "a blob",
            ));
        }
    };
    let mut plain = None;
    if let Some(column) = layout.plain.as_ref().filter(|_| row.try_column("p").is_ok()) {
        plain = cell(layout, row, "p", &column.name)?;
        let fits = match (&plain, column.kind) {
            (None, _)
            | (Some(Cell::Bytes(_)), PlainKind::Bytes)
            | (Some(Cell::Integer(_)), PlainKind::Integer)
            | (Some(Cell::Text(_)), PlainKind::Text) => true,
            (Some(value), PlainKind::Uuid) => value.as_uuid().is_some(),
            (Some(_), _) => false,
        };
        if let Some(other) = plain.as_ref().filter(|_| !fits) {
            return Err(mistyped(
                layout,
                &column.name,
                other.type_name(),
                column.kind.expected(),
            ));
        }
    }
    Ok(Row {
        id: Id(id),
        context,
        cipher,
        plain,
    })
}

/// Reads a value by the type that it has in this row.
fn cell(layout: &Layout, row: &SqliteRow, name: &str, column: &str) -> Result<Option<Cell>, RowsError> {
    let value = row.try_get_raw(name).map_err(failed)?;
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.type_info().name().to_owned();
    Ok(Some(match kind.as_str() {
        "BLOB" => Cell::Bytes(row.try_get_unchecked(name).map_err(failed)?),
        "INTEGER" => Cell::Integer(row.try_get_unchecked(name).map_err(failed)?),
        "TEXT" => Cell::Text(row.try_get_unchecked(name).map_err(failed)?),
        _ => return Err(mistyped(layout, column, &kind, "a blob, an integer or text")),
    }))
}

fn mistyped(layout: &Layout, column: &str, found: &str, expected: &'static str) -> RowsError {
    RowsError::ColumnType {
        table: layout.described.sql_table.clone(),
        column: column.to_owned(),
        found: found.to_owned(),
        expected,
    }
}
