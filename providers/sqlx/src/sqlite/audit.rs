//! Lists the audit log.

use async_trait::async_trait;
use encx_core::store::{AuditLog, AuditPage, AuditQuery, StoreError, Timestamp};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite};

use super::SqliteKeyStore;
use super::error::store_error;
use super::sql;
use crate::audit::{RawEntry, readable};
use crate::shared_work::unreadable;

#[async_trait]
impl AuditLog for SqliteKeyStore {
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.ready().await?;
        let mut connection = self.connections.acquire().await?;
        let rows = audit_query(query).fetch_all(&mut *connection).await;
        let rows = rows.map_err(store_error)?;
        let rows = rows
            .iter()
            .map(|row| Ok::<_, StoreError>((number(row)?, readable(raw_entry(row)))));
        Ok(AuditPage::of_rows(rows.collect::<Result<_, _>>()?, query.limit))
    }
}

/// Picks the statement for a query's most selective filter, and binds the other filters.
pub(super) fn audit_query(query: &AuditQuery) -> Query<'static, Sqlite, SqliteArguments> {
    let statement = match (query.key, query.scope) {
        (Some(_), _) => sql::AUDIT_PAGE_OF_KEY,
        (None, Some(_)) => sql::AUDIT_PAGE_OF_SCOPE,
        (None, None) => sql::AUDIT_PAGE,
    };
    sqlx::query(statement)
        .bind(query.after.unwrap_or(i64::MIN))
        .bind(i64::from(query.limit).saturating_add(1))
        .bind(query.since.map(Timestamp::as_micros))
        .bind(query.until.map(Timestamp::as_micros))
        .bind(query.scope.map(|scope| scope.as_bytes().to_vec()))
        .bind(query.key.map(|key| key.to_bytes().to_vec()))
}

fn number(row: &SqliteRow) -> Result<i64, StoreError> {
    row.try_get("seq").map_err(|_| unreadable("audit log", "seq"))
}

fn raw_entry(row: &SqliteRow) -> Result<RawEntry, StoreError> {
    macro_rules! column {
        ($name:literal as $kind:ty) => {
            row.try_get::<$kind, _>($name)
                .map_err(|_| unreadable("audit log", $name))?
        };
    }
    Ok(RawEntry {
        number: number(row)?,
        at: Timestamp::from_micros(column!("at" as i64)),
        key: column!("key_id" as Vec<u8>),
        scope: column!("scope" as Vec<u8>),
        what: column!("what" as String),
        from: column!("from_state" as Option<String>),
        to: column!("to_state" as String),
        reason: column!("reason" as Option<String>),
        application: column!("application" as String),
        db_user: None,
    })
}
