//! Users' rows in PostgreSQL: read and written in batches.

use std::collections::HashMap;
use std::time::Duration;

use encx::record::RowIdKind;
use encx::store::OpenTransactions;
use encx_sqlx::__private::postgres_passing;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};
use uuid::Uuid;

use crate::cell::{Cell, Id};
use crate::error::RowsError;
use crate::layout::Change;
use crate::layout::{Layout, PlainKind, Read, Row, Unread, expected};
use crate::sql::{self, Columns, Dialect, Filter, SHORT, Write};

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// The types that a value of an encryption context is taken from.
const CONTEXT_TYPES: [&str; 6] = ["text", "varchar", "int2", "int4", "int8", "uuid"];

pub(crate) fn failed(error: sqlx::Error) -> RowsError {
    // serialization_failure, deadlock_detected: the same succeeds later.
    RowsError::database(error, |code| {
        postgres_passing(code) || matches!(code, "40001" | "40P01")
    })
}

/// Checks that the table has the columns that are described, of types that can be read.
pub(crate) async fn check(pool: &PgPool, layout: &Layout, contracts: bool) -> Result<(), RowsError> {
    let found = sqlx::query(sql::COLUMNS_OF_POSTGRES).bind(layout.table.as_str().to_owned());
    let found = found.fetch_all(pool).await.map_err(failed)?;
    let described = &layout.described;
    if found.is_empty() {
        let table = described.sql_table.clone();
        return Err(RowsError::NoSuchTable { table });
    }
    let mut columns = HashMap::new();
    for row in &found {
        let name: String = row.try_get("name").map_err(failed)?;
        let kind: String = row.try_get("type").map_err(failed)?;
        let required: bool = row.try_get("required").map_err(failed)?;
        columns.insert(name, (kind, required));
    }
    let require = |column: &str, types: &[&str], expected: &'static str| {
        let table = described.sql_table.clone();
        let column = column.to_owned();
        match columns.get(&column) {
            None => Err(RowsError::NoSuchColumn { table, column }),
            Some((found, _)) if !types.contains(&found.as_str()) => Err(RowsError::ColumnType {
                found: found.clone(),
                table,
                column,
                expected,
            }),
            Some((_, required)) => Ok(*required),
        }
    };
    for part in &described.row_id {
        require(&part.sql_column, types(part.kind), expected(part.kind))?;
    }
    for column in layout.context_columns() {
        require(column, &CONTEXT_TYPES, "text, varchar, an integer or uuid")?;
    }
    require(&described.sql_column, types(RowIdKind::Bytes), "bytea")?;
    if let Some(plain) = &layout.plain {
        let types = types(match plain.kind {
            PlainKind::Bytes => RowIdKind::Bytes,
            PlainKind::Integer => RowIdKind::Integer,
            PlainKind::Text => RowIdKind::Text,
            PlainKind::Uuid => RowIdKind::Uuid,
        });
        if require(&plain.name, types, plain.kind.expected())? && contracts {
            return Err(layout.not_null());
        }
    }
    Ok(())
}

fn types(kind: RowIdKind) -> &'static [&'static str] {
    match kind {
        RowIdKind::Bytes => &["bytea"],
        RowIdKind::Integer => &["int2", "int4", "int8"],
        RowIdKind::Text => &["text", "varchar"],
        RowIdKind::Uuid => &["uuid"],
        _ => &[],
    }
}

pub(crate) async fn page(
    pool: &PgPool,
    layout: &Layout,
    rows: Filter,
    which: Columns,
    between: (Option<&Id>, Option<&Id>),
    limit: u32,
) -> Result<Vec<Read>, RowsError> {
    let statement = sql::page(Dialect::Postgres, layout, rows, which, between);
    let mut query = sqlx::query(sql::safe(statement)).bind(i64::from(limit));
    let (after, upto) = between;
    for cell in after.into_iter().chain(upto).flat_map(|id| &id.0) {
        query = match cell.clone() {
            Cell::Bytes(value) | Cell::Raw(value) => query.bind(value),
            Cell::Integer(value) => query.bind(value),
            // No type that an id may have is one.
            Cell::Real(bits) => query.bind(f64::from_bits(bits)),
            Cell::Text(value) => query.bind(value),
            Cell::Uuid(value) => query.bind(value),
        };
    }
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row, which)).collect()
}

/// Reads the heads, or the ids alone, of rows at random.
pub(crate) async fn sample(
    pool: &PgPool,
    layout: &Layout,
    which: Columns,
    limit: u32,
) -> Result<Vec<Read>, RowsError> {
    let statement = sql::sample(Dialect::Postgres, layout, which);
    let query = sqlx::query(sql::safe(statement)).bind(i64::from(limit));
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row, which)).collect()
}

/// Reads rows by their ids, in the same order; `None` for one that is gone.
pub(crate) async fn fetch(
    pool: &PgPool,
    layout: &Layout,
    ids: &[&Id],
) -> Result<Vec<Option<Read>>, RowsError> {
    let query = bind_ids(sqlx::query(sql::safe(sql::many(layout))), layout, ids);
    let found = query.fetch_all(pool).await.map_err(failed)?;
    let mut rows = vec![None; ids.len()];
    // One after the other is given up as soon as it is read.
    for row in found {
        if let Some(place) = place(&row, ids.len())? {
            rows[place] = Some(read(layout, &row, Columns::All)?);
        }
    }
    Ok(rows)
}

/// Writes rows, and says of each whether it was still what it was when it was read.
pub(crate) async fn write(
    pool: &PgPool,
    layout: &Layout,
    write: Write,
    changes: &[Change],
) -> Result<Vec<bool>, RowsError> {
    let ids: Vec<_> = changes.iter().map(|change| &change.row.id).collect();
    let mut query = bind_ids(
        sqlx::query(sql::safe(sql::write_many(layout, write))),
        layout,
        &ids,
    );
    let old = || {
        changes
            .iter()
            .map(|change| change.row.cipher.clone())
            .collect::<Vec<_>>()
    };
    let new = || {
        changes
            .iter()
            .map(|change| change.cipher.clone())
            .collect::<Vec<_>>()
    };
    query = match write {
        Write::Cipher => query.bind(old()).bind(new()),
        Write::FirstCipher => bind_plain(query, layout, changes).bind(new()),
        Write::NoPlain => bind_plain(query.bind(old()), layout, changes),
    };
    let written = query.fetch_all(pool).await.map_err(failed)?;
    let mut done = vec![false; changes.len()];
    for row in &written {
        if let Some(place) = place(row, changes.len())? {
            done[place] = true;
        }
    }
    Ok(done)
}

pub(crate) async fn count(pool: &PgPool, layout: &Layout, key: &[u8; 16]) -> Result<i64, RowsError> {
    let query = sqlx::query_scalar(sql::safe(sql::count(Dialect::Postgres, layout)));
    query.bind(&key[..]).fetch_one(pool).await.map_err(failed)
}

/// Reads the ids of at most `limit` rows under a data key.
pub(crate) async fn under(
    pool: &PgPool,
    layout: &Layout,
    key: &[u8; 16],
    limit: u32,
) -> Result<Vec<Read>, RowsError> {
    let query = sqlx::query(sql::safe(sql::under(Dialect::Postgres, layout)));
    let query = query.bind(&key[..]).bind(i64::from(limit));
    let found = query.fetch_all(pool).await.map_err(failed)?;
    found.iter().map(|row| read(layout, row, Columns::Id)).collect()
}

pub(crate) async fn census(pool: &PgPool, layout: &Layout) -> Result<Vec<(Vec<u8>, i64)>, RowsError> {
    let query = sqlx::query_as(sql::safe(sql::census(Dialect::Postgres, layout)));
    query.fetch_all(pool).await.map_err(failed)
}

/// Finds the oldest transactions that are open in this database.
pub(crate) async fn open_transactions(pool: &PgPool) -> Result<OpenTransactions, RowsError> {
    // Sessions before prepared transactions: one that is prepared between the two is then seen twice, and not missed.
    let found = sqlx::query(sql::OPEN_TRANSACTIONS).fetch_one(pool).await;
    let found = found.map_err(failed)?;
    if found.try_get("standby").map_err(failed)? {
        return Err(RowsError::Standby);
    }
    let sessions: i64 = found.try_get("hidden").map_err(failed)?;
    if sessions > 0 {
        return Err(RowsError::HiddenSessions { sessions });
    }
    let prepared = sqlx::query(sql::PREPARED_TRANSACTIONS).fetch_one(pool).await;
    let age = |micros: Option<i64>| micros.map(|micros| Duration::from_micros(micros.max(0).unsigned_abs()));
    Ok(OpenTransactions::new(
        age(found.try_get("oldest").map_err(failed)?),
        age(prepared.map_err(failed)?.try_get("oldest").map_err(failed)?),
    ))
}

fn bind_ids<'q>(query: Statement<'q>, layout: &Layout, ids: &[&Id]) -> Statement<'q> {
    let kinds = layout.kinds.iter().enumerate();
    kinds.fold(query, |query, (place, kind)| {
        bind_all(query, *kind, ids.iter().map(|id| id.0.get(place)))
    })
}

fn bind_plain<'q>(query: Statement<'q>, layout: &Layout, changes: &[Change]) -> Statement<'q> {
    let kind = match layout.plain.as_ref().map(|plain| plain.kind) {
        Some(PlainKind::Bytes) => RowIdKind::Bytes,
        Some(PlainKind::Integer) => RowIdKind::Integer,
        Some(PlainKind::Uuid) => RowIdKind::Uuid,
        Some(PlainKind::Text) | None => RowIdKind::Text,
    };
    bind_all(
        query,
        kind,
        changes.iter().map(|change| change.row.plain.as_ref()),
    )
}

/// Binds the values of a column as an array; NULL, which equals nothing, for what is of another type.
fn bind_all<'q, 'a>(
    query: Statement<'q>,
    kind: RowIdKind,
    cells: impl Iterator<Item = Option<&'a Cell>>,
) -> Statement<'q> {
    macro_rules! bind {
        ($kind:ident) => {
            query.bind(
                cells
                    .map(|cell| match cell {
                        Some(Cell::$kind(value)) => Some(value.clone()),
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            )
        };
    }
    match kind {
        RowIdKind::Bytes => bind!(Bytes),
        RowIdKind::Integer => bind!(Integer),
        RowIdKind::Uuid => bind!(Uuid),
        _ => bind!(Text),
    }
}

fn place(row: &PgRow, len: usize) -> Result<Option<usize>, RowsError> {
    let number: i64 = row.try_get("n").map_err(failed)?;
    let place = usize::try_from(number - 1).ok();
    Ok(place.filter(|place| *place < len))
}

/// Reads a row, or says why that one cannot be read.
fn read(layout: &Layout, row: &PgRow, which: Columns) -> Result<Read, RowsError> {
    let mut id = Vec::with_capacity(layout.ids.len());
    for (place, kind) in layout.kinds.iter().enumerate() {
        id.push(match kind {
            RowIdKind::Bytes => Cell::Bytes(row.try_get(place).map_err(failed)?),
            RowIdKind::Integer => Cell::Integer(row.try_get(place).map_err(failed)?),
            RowIdKind::Uuid => Cell::Uuid(row.try_get::<Uuid, _>(place).map_err(failed)?),
            _ => {
                let bytes = row.try_get_raw(place).map_err(failed)?;
                let bytes = bytes.as_bytes().map_err(sqlx::Error::Decode).map_err(failed)?;
                String::from_utf8(bytes.to_vec()).map_or_else(|odd| Cell::Raw(odd.into_bytes()), Cell::Text)
            }
        });
    }
    let mut read = Row {
        id: Id(id),
        context: Vec::with_capacity(layout.context.len()),
        cipher: None,
        plain: None,
        size: 0,
        whole: which == Columns::All,
    };
    Ok(match fill(layout, row, which, &mut read) {
        Ok(()) => Ok(read),
        Err(error) => Err(Unread {
            id: read.id,
            error: error.into(),
        }),
    })
}

fn fill(layout: &Layout, row: &PgRow, which: Columns, read: &mut Row) -> Result<(), RowsError> {
    if which == Columns::Id {
        return Ok(());
    }
    let cipher = layout.ids.len() + layout.context.len();
    for place in layout.ids.len()..cipher {
        read.context.push(row.try_get(place).map_err(failed)?);
    }
    read.cipher = row.try_get(cipher).map_err(failed)?;
    // Its size, or the plaintext.
    let next = cipher + 1;
    if matches!(which, Columns::Head | Columns::Short) {
        read.size = u64::try_from(row.try_get::<i64, _>(next).map_err(failed)?).unwrap_or(0);
        read.whole = which == Columns::Short && read.size <= SHORT;
        return Ok(());
    }
    if let Some(plain) = &layout.plain {
        read.plain = match plain.kind {
            PlainKind::Bytes => row
                .try_get::<Option<_>, _>(next)
                .map_err(failed)?
                .map(Cell::Bytes),
            PlainKind::Integer => row
                .try_get::<Option<_>, _>(next)
                .map_err(failed)?
                .map(Cell::Integer),
            PlainKind::Text => row.try_get::<Option<_>, _>(next).map_err(failed)?.map(Cell::Text),
            PlainKind::Uuid => row.try_get::<Option<_>, _>(next).map_err(failed)?.map(Cell::Uuid),
        };
    }
    Ok(())
}
