//! The tables of SQLite, as the code that both databases share uses them.

use std::sync::atomic::Ordering;

use encx_core::store::StoreError;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Sqlite, Transaction};

use super::error::store_error;
use super::sql::shared_work::STATEMENTS;
use super::statement::execute;
use super::{SqliteTables, current};
use crate::shared_work::{Statements, Tables, Value, Write};

impl Tables for SqliteTables {
    type Row = SqliteRow;
    type Write = Transaction<'static, Sqlite>;
    const STATEMENTS: Statements = STATEMENTS;

    /// Before each statement: SQLite has no specific error code for a missing table.
    async fn ready(&self) -> Result<(), StoreError> {
        if !self.migrated.load(Ordering::Relaxed) {
            self.found().await?.check(current())?;
            self.migrated.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn read(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let mut connection = self.connections.acquire().await?;
        let rows = bound(statement, values).fetch_all(&mut *connection).await;
        rows.map_err(store_error)
    }

    async fn begin(&self) -> Result<Self::Write, StoreError> {
        self.connections.begin().await
    }
}

impl Write for Transaction<'static, Sqlite> {
    type Row = SqliteRow;

    async fn row(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<SqliteRow>, StoreError> {
        let row = bound(statement, values).fetch_optional(&mut **self).await;
        row.map_err(store_error)
    }

    async fn run(&mut self, statement: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        execute(&mut **self, bound(statement, values)).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        Transaction::commit(self).await.map_err(store_error)
    }
}

fn bound<'v>(statement: &'static str, values: &[Value<'v>]) -> Query<'v, Sqlite, SqliteArguments> {
    let query = sqlx::query(statement);
    values.iter().fold(query, |query, value| match *value {
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Id(id) => query.bind(id.as_uuid().as_bytes().to_vec()),
        Value::Integer(number) => query.bind(number),
        Value::OptionalText(text) => query.bind(text),
        Value::Text(text) => query.bind(text),
    })
}
