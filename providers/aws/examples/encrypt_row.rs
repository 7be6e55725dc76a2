//! Encrypts a column of one row under a KEK in AWS KMS, and reads it as another process would.
//!
//! ```sh
//! export AWS_REGION=eu-central-1 AWS_KMS_KEY_ID=arn:aws:kms:eu-central-1:111122223333:key/…
//! cargo run -p encx-aws --example encrypt_row -- shop.db
//! ```
//!
//! The argument is a SQLite file, which the example creates. It needs `IdentityPolicy::service` for the KEK.
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::path::PathBuf;

use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_aws::AwsKms;
use encx_sqlx::SqliteKeyStore;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{query, query_scalar};

const SSN: Field = Field::new("users", "ssn");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os()
        .nth(1)
        .ok_or("the first argument is a SQLite file")?;
    let options = SqliteConnectOptions::new()
        .filename(PathBuf::from(file))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    query("CREATE TABLE IF NOT EXISTS users (id integer PRIMARY KEY, ssn blob NOT NULL)")
        .execute(&pool)
        .await?;
    // Every pair reaches AWS KMS, its policies and CloudTrail: put no secret into it.
    let context = EncryptionContext::builder()
        .pair("tenantId", "t-42")
        .pair("purpose", "pii")
        .build()?;

    let crypto = crypto(&pool).await?;
    let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(1)).await?;
    query("INSERT OR REPLACE INTO users (id, ssn) VALUES (1, ?)")
        .bind(&sealed)
        .execute(&pool)
        .await?;
    println!(
        "wrote row 1: {} bytes, under data key {}",
        sealed.as_bytes().len(),
        sealed.key_id()
    );
    crypto.shutdown().await;

    // With an empty cache, as after a restart.
    let crypto = self::crypto(&pool).await?;
    let stored: Ciphertext = query_scalar("SELECT ssn FROM users WHERE id = 1")
        .fetch_one(&pool)
        .await?;
    let opened = crypto
        .decrypt(&context, &stored, SSN.row(1))
        .await?
        .into_string()?;
    println!(
        "read row 1: {opened}, calls of AWS KMS: {}",
        crypto.stats().kms_calls
    );
    crypto.shutdown().await;
    Ok(())
}

async fn crypto(pool: &SqlitePool) -> Result<Crypto, Box<dyn Error>> {
    let store = SqliteKeyStore::from_pool(pool.clone());
    store.migrate().await?;
    Ok(Crypto::builder(AwsKms::from_env().await?, store).build().await?)
}
