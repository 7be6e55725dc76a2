//! API tokens in SQLite: the same code, with its pool.

use encx_tables::Rows;
use sqlx::sqlite::SqlitePool as PgPool;

#[allow(clippy::duplicate_mod, reason = "both databases run the same code")]
#[path = "code.rs"]
mod code;

#[test]
fn sqlite_tokens_cannot_be_changed() {
    encx_testkit::block_on(async {
        let pool = PgPool::connect("sqlite::memory:").await.unwrap();
        let table = super::TABLE.replace("uuid", "blob").replace("bigint", "integer");
        sqlx::query(sqlx::AssertSqlSafe(table))
            .execute(&pool)
            .await
            .unwrap();
        super::tokens_cannot_be_changed!(pool, Rows::sqlite);
    });
}
