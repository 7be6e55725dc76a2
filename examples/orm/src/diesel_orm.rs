//! An encrypted column with Diesel, as `Vec<u8>`.

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use encx::{Ciphertext, Crypto, EncryptionContext, Field};

diesel::table! {
    users (id) {
        id -> BigInt,
        ssn -> Binary, // Bytea on PostgreSQL
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = users)]
struct StoredUser {
    id: i64,
    ssn: Vec<u8>,
}

const SSN: Field = Field::new("users", "ssn");

/// Encrypts a social security number and inserts its row.
pub async fn insert(
    crypto: &Crypto,
    context: &EncryptionContext,
    connection: &mut SqliteConnection,
    id: i64,
    ssn: &str,
) -> anyhow::Result<()> {
    let sealed = crypto.encrypt(context, ssn, SSN.row(id)).await?;
    let user = StoredUser {
        id,
        ssn: sealed.into_bytes(),
    };
    diesel::insert_into(users::table)
        .values(user)
        .execute(connection)?;
    Ok(())
}

/// Reads a row and decrypts its social security number.
pub async fn ssn(
    crypto: &Crypto,
    context: &EncryptionContext,
    connection: &mut SqliteConnection,
    id: i64,
) -> anyhow::Result<String> {
    let user: StoredUser = users::table.find(id).first(connection)?;
    let sealed = Ciphertext::parse(user.ssn)?;
    let ssn = crypto.decrypt(context, &sealed, SSN.row(user.id)).await?;
    Ok(ssn.into_string()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::test_support::{TABLE, crypto};

    #[tokio::test]
    async fn a_column_is_encrypted_and_bound_to_its_row() -> anyhow::Result<()> {
        let mut connection = SqliteConnection::establish(":memory:")?;
        diesel::sql_query(TABLE).execute(&mut connection)?;
        let (crypto, context) = crypto().await?;
        insert(&crypto, &context, &mut connection, 7, "123-45-6789").await?;
        assert_eq!(ssn(&crypto, &context, &mut connection, 7).await?, "123-45-6789");

        let mut stored: StoredUser = users::table.find(7).first(&mut connection)?;
        assert_eq!(stored.ssn.len(), 11 + 90);
        stored.id = 8;
        diesel::insert_into(users::table)
            .values(stored)
            .execute(&mut connection)?;
        let copied = ssn(&crypto, &context, &mut connection, 8).await.unwrap_err();
        assert!(
            matches!(copied.downcast_ref(), Some(encx::Error::Decrypt { .. })),
            "{copied}"
        );
        crypto.shutdown().await;
        Ok(())
    }
}
