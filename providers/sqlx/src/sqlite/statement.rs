//! Runs statements, and encodes what is bound to them.

use encx_core::key::Scope;
use encx_core::store::{KeyRecord, StoreError};
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Executor, Sqlite};

use super::error::store_error;
use super::sql;
use crate::row::records_of;

/// Reads the time, in microseconds.
pub(super) async fn now<'c, E>(executor: E) -> Result<i64, StoreError>
where
    E: Executor<'c, Database = Sqlite>,
{
    sqlx::query_scalar(sql::NOW)
        .fetch_one(executor)
        .await
        .map_err(store_error)
}

/// Returns the latest time of any record up to a point in time, in microseconds.
pub(super) async fn last_change<'c, E>(executor: E, until: i64) -> Result<i64, StoreError>
where
    E: Executor<'c, Database = Sqlite>,
{
    sqlx::query_scalar(sql::LAST_CHANGE)
        .bind(until)
        .fetch_one(executor)
        .await
        .map_err(store_error)
}

pub(super) async fn execute<'c, E>(
    executor: E,
    query: Query<'_, Sqlite, SqliteArguments>,
) -> Result<u64, StoreError>
where
    E: Executor<'c, Database = Sqlite>,
{
    let done = query.execute(executor).await.map_err(store_error)?;
    Ok(done.rows_affected())
}

pub(super) async fn records<'c, E>(
    executor: E,
    query: Query<'_, Sqlite, SqliteArguments>,
) -> Result<Vec<KeyRecord>, StoreError>
where
    E: Executor<'c, Database = Sqlite>,
{
    let rows = query.fetch_all(executor).await.map_err(store_error)?;
    records_of(&rows)
}

pub(super) fn list_of(scopes: &[Scope]) -> String {
    json_list(scopes.iter().map(|scope| hex(scope.as_bytes())))
}

/// Encodes a JSON array of texts that need no escaping: hex and names of states. SQLite cannot bind arrays.
pub(super) fn json_list(items: impl Iterator<Item = String>) -> String {
    let mut list = String::from("[");
    for item in items {
        if list.len() > 1 {
            list.push(',');
        }
        list.push('"');
        list.push_str(&item);
        list.push('"');
    }
    list.push(']');
    list
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
