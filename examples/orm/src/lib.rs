//! Encrypted columns with Diesel, SeaORM and sqlx's `query_as!`: the code of `docs/recipes.md`.

pub mod diesel_orm;
pub mod sea_orm_orm;
pub mod sqlx_macros;

/// What the three tests share.
#[cfg(test)]
mod test_support {
    use encx::{Crypto, EncryptionContext};
    use encx_testkit::{MemoryKeyStore, MemoryKms};

    pub(crate) const TABLE: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY NOT NULL, ssn BLOB NOT NULL)";

    pub(crate) async fn crypto() -> anyhow::Result<(Crypto, EncryptionContext)> {
        let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
            .build()
            .await?;
        let context = EncryptionContext::from_pairs([("tenantId", "acme"), ("purpose", "pii")])?;
        Ok((crypto, context))
    }
}
