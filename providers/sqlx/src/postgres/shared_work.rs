//! The tables of PostgreSQL, as the code that both databases share uses them.

use std::sync::atomic::Ordering;

use encx_core::store::StoreError;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use super::PostgresTables;
use super::database::Transaction;
use super::sql::shared_work::STATEMENTS;
use crate::shared_work::{Statements, Tables, Value, Write};

impl Tables for PostgresTables {
    type Row = PgRow;
    type Write = Transaction;
    const STATEMENTS: Statements = STATEMENTS;

    async fn ready(&self) -> Result<(), StoreError> {
        if let Some(Err(unfit)) = &self.listen {
            return Err(unfit.clone());
        }
        if !self.migrated.load(Ordering::Relaxed) {
            self.check().await?;
            self.migrated.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn read(&self, statement: &'static str, values: &[Value<'_>]) -> Result<Vec<PgRow>, StoreError> {
        self.database.fetch(bound(statement, values)).await
    }

    async fn begin(&self) -> Result<Transaction, StoreError> {
        self.database.begin_write().await
    }
}

impl Write for Transaction {
    type Row = PgRow;

    async fn row(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<PgRow>, StoreError> {
        self.fetch_one(bound(statement, values)).await
    }

    async fn run(&mut self, statement: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        Transaction::run(self, bound(statement, values)).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        Transaction::commit(self).await
    }
}

pub(super) fn bound<'v>(statement: &'static str, values: &[Value<'v>]) -> Query<'v, Postgres, PgArguments> {
    let query = sqlx::query(statement);
    values.iter().fold(query, |query, value| match *value {
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Id(id) => query.bind(id.as_uuid()),
        Value::Integer(number) => query.bind(number),
        Value::OptionalText(text) => query.bind(text),
        Value::Text(text) => query.bind(text),
    })
}
