//! API tokens in PostgreSQL.

use encx_tables::Rows;
use sqlx::postgres::PgPool;

#[path = "code.rs"]
mod code;

#[test]
fn postgres_tokens_cannot_be_changed() {
    crate::common::postgres::on_a_database(|database| async move {
        let pool = database.pool().await;
        let table = super::TABLE.replace("blob", "bytea");
        sqlx::query(sqlx::AssertSqlSafe(table))
            .execute(&pool)
            .await
            .unwrap();
        super::tokens_cannot_be_changed!(pool, Rows::postgres);
    });
}
