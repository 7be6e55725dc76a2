//! An encrypted column with sqlx's `query!` and `query_as!`, which check SQL at compile time.

use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use sqlx::sqlite::SqlitePool;

struct StoredUser {
    id: i64,
    ssn: Ciphertext,
}

const SSN: Field = Field::new("users", "ssn");

/// Encrypts a social security number and inserts its row.
pub async fn insert(
    crypto: &Crypto,
    context: &EncryptionContext,
    pool: &SqlitePool,
    id: i64,
    ssn: &str,
) -> anyhow::Result<()> {
    let sealed = crypto.encrypt(context, ssn, SSN.row(id)).await?;
    sqlx::query!("INSERT INTO users (id, ssn) VALUES ($1, $2)", id, sealed)
        .execute(pool)
        .await?;
    Ok(())
}

/// Reads a row and decrypts its social security number.
pub async fn ssn(
    crypto: &Crypto,
    context: &EncryptionContext,
    pool: &SqlitePool,
    id: i64,
) -> anyhow::Result<String> {
    let sql = sqlx::query_as!(
        StoredUser,
        r#"SELECT id, ssn AS "ssn: Ciphertext" FROM users WHERE id = $1"#,
        id
    );
    let user = sql.fetch_one(pool).await?;
    let ssn = crypto.decrypt(context, &user.ssn, SSN.row(user.id)).await?;
    Ok(ssn.into_string()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use sqlx::sqlite::SqlitePoolOptions;

    use crate::test_support::{TABLE, crypto};

    #[tokio::test]
    async fn a_column_is_encrypted_and_bound_to_its_row() -> anyhow::Result<()> {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect("sqlite::memory:")
            .await?;
        sqlx::query(TABLE).execute(&pool).await?;
        let (crypto, context) = crypto().await?;
        insert(&crypto, &context, &pool, 7, "123-45-6789").await?;
        assert_eq!(ssn(&crypto, &context, &pool, 7).await?, "123-45-6789");

        let copy = "INSERT INTO users (id, ssn) SELECT 8, ssn FROM users WHERE id = 7";
        sqlx::query(copy).execute(&pool).await?;
        let copied = ssn(&crypto, &context, &pool, 8).await.unwrap_err();
        assert!(
            matches!(copied.downcast_ref(), Some(encx::Error::Decrypt { .. })),
            "{copied}"
        );
        crypto.shutdown().await;
        Ok(())
    }
}
