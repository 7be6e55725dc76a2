//! The code of `docs/passwords.md`.

use encx::keys::KeyUsage;
use encx::kms::DataKey;
use encx::password::{PasswordHash, PasswordParams, PasswordVerdict};
use encx::{Crypto, EncryptionContext, Field};
use encx_testkit::{Harness, MemoryKeyStore, MemoryKms};
use sqlx::sqlite::SqlitePool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PASSWORD: Field = Field::new("users", "password");

fn login() -> Result<EncryptionContext> {
    Ok(EncryptionContext::builder().pair("purpose", "login").build()?)
}

async fn sign_up(crypto: &Crypto, pool: &SqlitePool, id: i64, name: &str, password: &str) -> Result<()> {
    let hash: PasswordHash = crypto
        .hash_password(&login()?, password, PASSWORD.row(id))
        .await?;
    let sql = "INSERT INTO users (id, name, password) VALUES ($1, $2, $3)";
    let insert = sqlx::query(sql).bind(id).bind(name).bind(hash);
    insert.execute(pool).await?;
    Ok(())
}

async fn log_in(crypto: &Crypto, pool: &SqlitePool, name: &str, password: &str) -> Result<Option<i64>> {
    let sql = "SELECT id, password FROM users WHERE name = $1";
    let user: Option<(i64, PasswordHash)> = sqlx::query_as(sql).bind(name).fetch_optional(pool).await?;
    let Some((id, hash)) = user else {
        // Takes as long as for an existing account, so the time does not tell which accounts exist.
        let _ = crypto.verify_nobody(&login()?, password).await?;
        return Ok(None);
    };
    match crypto
        .verify_password(&login()?, &hash, password, PASSWORD.row(id))
        .await?
    {
        PasswordVerdict::Match { needs_rehash: false } => Ok(Some(id)),
        PasswordVerdict::Match { needs_rehash: true } => {
            // Writes only if the row is unchanged.
            let rehashed = crypto
                .hash_password(&login()?, password, PASSWORD.row(id))
                .await?;
            let sql = "UPDATE users SET password = $1 WHERE id = $2 AND password = $3";
            let update = sqlx::query(sql).bind(rehashed).bind(id).bind(hash);
            update.execute(pool).await?;
            Ok(Some(id))
        }
        PasswordVerdict::NoMatch => Ok(None),
    }
}

async fn stronger(kms: MemoryKms, store: MemoryKeyStore) -> Result<Crypto> {
    let params = PasswordParams::new(46 * 1024, 1, 1)?; // 46 MiB, 1 pass, 1 lane
    let crypto = Crypto::builder(kms, store)
        .password_params(params)
        .max_password_memory_mib(512)
        .build()
        .await?;
    Ok(crypto)
}

async fn quick() -> Result<Harness> {
    let params = PasswordParams::insecure_new(64, 1, 1)?;
    let harness = Harness::with(move |settings| settings.password_params(params)).await;
    Ok(harness)
}

async fn rotate(crypto: &Crypto) -> Result<()> {
    let peppers = crypto.key_manager().for_usage(KeyUsage::Pepper);
    peppers.because("yearly rotation").rotate(&login()?).await?;
    Ok(())
}

async fn import(crypto: &Crypto, bytes: &[u8]) -> Result<()> {
    let pepper = DataKey::copy_from(bytes)?;
    let peppers = crypto.key_manager().for_usage(KeyUsage::Pepper);
    peppers.import(&login()?, pepper).await?;
    Ok(())
}

async fn users() -> Result<SqlitePool> {
    let pool = SqlitePool::connect("sqlite::memory:").await?;
    let sql =
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL)";
    sqlx::query(sql).execute(&pool).await?;
    Ok(pool)
}

#[tokio::test]
async fn people_log_in_before_and_after_a_rotation() -> Result<()> {
    let (harness, pool) = (quick().await?, users().await?);
    let crypto = harness.crypto();
    import(crypto, &[7; 32]).await?;
    sign_up(crypto, &pool, 1, "ada", "correct horse").await?;
    let kept = async || -> Result<PasswordHash> {
        let sql = "SELECT password FROM users WHERE id = 1";
        Ok(sqlx::query_scalar(sql).fetch_one(&pool).await?)
    };
    let before = kept().await?;
    rotate(crypto).await?;
    for (name, password, expected) in [
        ("ada", "correct cow", None),
        ("eve", "correct horse", None),
        ("ada", "correct horse", Some(1)),
    ] {
        assert_eq!(log_in(crypto, &pool, name, password).await?, expected);
    }
    let after = kept().await?;
    assert_ne!(before.key_id(), after.key_id(), "rehashed at the log-in");
    assert_eq!(log_in(crypto, &pool, "ada", "correct horse").await?, Some(1));
    assert_eq!(kept().await?, after, "and not once more");
    Ok(())
}

#[tokio::test]
async fn parameters_are_those_that_were_set() -> Result<()> {
    let crypto = stronger(MemoryKms::new(), MemoryKeyStore::new()).await?;
    let hash = crypto
        .hash_password(&login()?, "correct horse", PASSWORD.row(1))
        .await?;
    assert_eq!(hash.params(), PasswordParams::new(46 * 1024, 1, 1)?);
    crypto.shutdown().await;
    Ok(())
}

#[test]
fn the_document_shows_this() {
    super::shown::assert_shown(
        include_str!("../../docs/passwords.md"),
        include_str!("passwords.rs"),
    );
}
