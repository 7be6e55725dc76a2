//! An encrypted column with SeaORM, as `Vec<u8>`.

use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, DatabaseConnection, EntityTrait};

mod user {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub ssn: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

const SSN: Field = Field::new("users", "ssn");

/// Encrypts a social security number and inserts its row.
pub async fn insert(
    crypto: &Crypto,
    context: &EncryptionContext,
    database: &DatabaseConnection,
    id: i64,
    ssn: &str,
) -> anyhow::Result<()> {
    let sealed = crypto.encrypt(context, ssn, SSN.row(id)).await?;
    let user = user::ActiveModel {
        id: Set(id),
        ssn: Set(sealed.into_bytes()),
    };
    user.insert(database).await?;
    Ok(())
}

/// Reads a row, if there is one, and decrypts its social security number.
pub async fn ssn(
    crypto: &Crypto,
    context: &EncryptionContext,
    database: &DatabaseConnection,
    id: i64,
) -> anyhow::Result<Option<String>> {
    let Some(user) = user::Entity::find_by_id(id).one(database).await? else {
        return Ok(None);
    };
    let sealed = Ciphertext::parse(user.ssn)?;
    let ssn = crypto.decrypt(context, &sealed, SSN.row(user.id)).await?;
    Ok(Some(ssn.into_string()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    use sea_orm::{ConnectOptions, ConnectionTrait, Database};

    use crate::test_support::{TABLE, crypto};

    #[tokio::test]
    async fn a_column_is_encrypted_and_bound_to_its_row() -> anyhow::Result<()> {
        let mut options = ConnectOptions::new("sqlite::memory:");
        options.max_connections(1);
        let database = Database::connect(options).await?;
        database.execute_unprepared(TABLE).await?;
        let (crypto, context) = crypto().await?;
        insert(&crypto, &context, &database, 7, "123-45-6789").await?;
        let read = ssn(&crypto, &context, &database, 7).await?;
        assert_eq!(read.as_deref(), Some("123-45-6789"));
        assert_eq!(ssn(&crypto, &context, &database, 9).await?, None);

        let copy = "INSERT INTO users (id, ssn) SELECT 8, ssn FROM users WHERE id = 7";
        database.execute_unprepared(copy).await?;
        let copied = ssn(&crypto, &context, &database, 8).await.unwrap_err();
        assert!(
            matches!(copied.downcast_ref(), Some(encx::Error::Decrypt { .. })),
            "{copied}"
        );
        crypto.shutdown().await;
        Ok(())
    }
}
