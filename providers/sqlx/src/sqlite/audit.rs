//! Lists the audit log.

use async_trait::async_trait;
use encx_core::store::{AuditLog, AuditPage, AuditQuery, StoreError, Timestamp};
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use super::SqliteKeyStore;
use super::error::store_error;
use super::sql;
use crate::audit::page_of;
use crate::shared_work::Tables as _;

#[async_trait]
impl AuditLog for SqliteKeyStore {
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.tables.ready().await?;
        let mut connection = self.tables.connections.acquire().await?;
        let rows = audit_query(query).fetch_all(&mut *connection).await;
        page_of(&rows.map_err(store_error)?, query)
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
