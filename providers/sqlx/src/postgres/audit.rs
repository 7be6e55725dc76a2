//! Lists the audit log.

use async_trait::async_trait;
use encx_core::store::{AuditLog, AuditPage, AuditQuery, StoreError};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::PostgresKeyStore;
use super::moment::Moment;
use super::sql;
use crate::audit::{RawEntry, readable};
use crate::shared_work::unreadable;

#[async_trait]
impl AuditLog for PostgresKeyStore {
    async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.ready().await?;
        let rows = self.database.fetch(audit_query(query)).await?;
        let rows = rows
            .iter()
            .map(|row| Ok::<_, StoreError>((number(row)?, readable(raw_entry(row)))));
        Ok(AuditPage::of_rows(rows.collect::<Result<_, _>>()?, query.limit))
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

fn number(row: &PgRow) -> Result<i64, StoreError> {
    row.try_get("seq").map_err(|_| unreadable("audit log", "seq"))
}

fn raw_entry(row: &PgRow) -> Result<RawEntry, StoreError> {
    macro_rules! column {
        ($name:literal as $kind:ty) => {
            row.try_get::<$kind, _>($name)
                .map_err(|_| unreadable("audit log", $name))?
        };
    }
    Ok(RawEntry {
        number: number(row)?,
        at: column!("at" as Moment).0,
        key: column!("key_id" as Uuid).as_bytes().to_vec(),
        scope: column!("scope" as Vec<u8>),
        what: column!("what" as String),
        from: column!("from_state" as Option<String>),
        to: column!("to_state" as String),
        reason: column!("reason" as Option<String>),
        application: column!("application" as String),
        db_user: Some(column!("db_user" as String)),
    })
}
