//! Lists the audit log.

use async_trait::async_trait;
use encx_core::store::{AuditLog, AuditPage, AuditQuery, StoreError};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::PostgresKeyStore;
use super::moment::Moment;
use super::sql;
use crate::audit::page_of;
use crate::shared_work::Tables as _;

#[async_trait]
impl AuditLog for PostgresKeyStore {
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.tables.ready().await?;
        page_of(&self.tables.database.fetch(audit_query(query)).await?, query)
    }
}

/// Picks the statement for a query's most selective filter, and binds the other filters.
pub(super) fn audit_query(query: &AuditQuery) -> Query<'static, Postgres, PgArguments> {
    let scope = query.scope.map(|scope| scope.as_bytes().to_vec());
    let statement = match (query.key, &scope) {
        (Some(_), _) => sql::AUDIT_PAGE_OF_KEY,
        (None, Some(_)) => sql::AUDIT_PAGE_OF_SCOPE,
        (None, None) => sql::AUDIT_PAGE,
    };
    let bound = sqlx::query(statement)
        .bind(query.after.unwrap_or(i64::MIN))
        .bind(i64::from(query.limit).saturating_add(1))
        .bind(query.since.map(Moment))
        .bind(query.until.map(Moment));
    match (query.key, scope) {
        (Some(key), scope) => bound.bind(scope).bind(Uuid::from(key)),
        (None, Some(scope)) => bound.bind(scope),
        // Planned for these times: the number of entries between them decides which index is best.
        (None, None) => bound.persistent(false),
    }
}
