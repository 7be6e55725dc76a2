//! The code of `docs/recipes.md`, except for that of ORMs and macros, which `examples/orm` compiles.

use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use sqlx::sqlite::SqlitePool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SSN: Field = Field::new("users", "ssn");

fn pii(tenant: &str) -> Result<EncryptionContext> {
    Ok(EncryptionContext::from_pairs([
        ("tenantId", tenant),
        ("purpose", "pii"),
    ])?)
}

/// What the document leaves to the reader.
async fn start() -> Result<Crypto> {
    Ok(Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
        .build()
        .await?)
}

#[derive(sqlx::FromRow)]
struct StoredUser {
    id: i64,
    ssn: Ciphertext,
}

async fn ssn(crypto: &Crypto, pool: &SqlitePool, tenant: &str, id: i64) -> Result<String> {
    let sql = "SELECT id, ssn FROM users WHERE id = $1";
    let user: StoredUser = sqlx::query_as(sql).bind(id).fetch_one(pool).await?;
    let ssn = crypto.decrypt(&pii(tenant)?, &user.ssn, SSN.row(user.id)).await?;
    Ok(ssn.into_string()?)
}

mod one_thread {
    use super::{Result, SSN, pii, start};

    #[tokio::main(flavor = "current_thread")]
    pub(super) async fn main() -> Result<()> {
        let crypto = start().await?; // as in the guide
        let sealed = crypto.encrypt(&pii("acme")?, "123-45-6789", SSN.row(7)).await?;
        let ssn = crypto.decrypt(&pii("acme")?, &sealed, SSN.row(7)).await?;
        assert_eq!(ssn.as_str()?, "123-45-6789");
        crypto.shutdown().await;
        Ok(())
    }
}

mod synchronous {
    use super::{Result, SSN, pii, start};

    use encx::Error;
    use tokio::runtime;

    pub(super) fn main() -> Result<()> {
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build()?;
        let crypto = runtime.block_on(start())?; // as in the guide

        let tenant = runtime.block_on(crypto.keyring(&pii("acme")?))?;
        let sealed = runtime.block_on(tenant.encrypt("123-45-6789", SSN.row(7)))?;
        let ssn = match tenant.try_decrypt(&sealed, SSN.row(7)) {
            // The key is not in memory, such as after an hour without use.
            Err(Error::NotReady) => runtime.block_on(tenant.decrypt(&sealed, SSN.row(7)))?,
            opened => opened?,
        };
        assert_eq!(ssn.as_str()?, "123-45-6789");

        runtime.block_on(crypto.shutdown());
        Ok(())
    }
}

#[tokio::test]
async fn a_row_is_read_by_its_derive() -> Result<()> {
    let pool = SqlitePool::connect("sqlite::memory:").await?;
    let table = "CREATE TABLE users (id INTEGER PRIMARY KEY, ssn BLOB NOT NULL)";
    sqlx::query(table).execute(&pool).await?;
    let crypto = start().await?;
    let sealed = crypto.encrypt(&pii("acme")?, "123-45-6789", SSN.row(7)).await?;
    let insert = "INSERT INTO users (id, ssn) VALUES (7, $1)";
    sqlx::query(insert).bind(sealed).execute(&pool).await?;
    assert_eq!(ssn(&crypto, &pool, "acme", 7).await?, "123-45-6789");
    assert!(ssn(&crypto, &pool, "umbrella", 7).await.is_err());
    crypto.shutdown().await;
    Ok(())
}

#[test]
fn one_thread_is_enough() -> Result<()> {
    one_thread::main()
}

#[test]
fn a_synchronous_program_runs() -> Result<()> {
    synchronous::main()
}

#[test]
fn the_document_shows_this_and_the_example() {
    super::shown::assert_shown(
        include_str!("../../docs/recipes.md"),
        concat!(
            include_str!("recipes.rs"),
            include_str!("../../examples/orm/src/diesel_orm.rs"),
            include_str!("../../examples/orm/src/sea_orm_orm.rs"),
            include_str!("../../examples/orm/src/sqlx_macros.rs"),
        ),
    );
}
