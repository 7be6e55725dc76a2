//! Moves a service from the local provider to AWS KMS, without re-encrypting a row.
//!
//! ```sh
//! export AWS_REGION=eu-central-1 AWS_KMS_KEY_ID=arn:aws:kms:eu-central-1:111122223333:key/…
//! cargo run -p encx-aws --example migrate_local_to_aws -- target/migration
//! ```
//!
//! 1. `fill`: writes rows of many tenants under the local provider, on SQLite.
//! 2. `move`: registers both providers, and rewraps every version of every key to AWS. Killed halfway and run again, it
//!    resumes: it skips versions that are already moved.
//! 3. `read`: reads every row with a `Crypto` that knows only AWS.
//!
//! A name as the second argument runs only that step. It needs `IdentityPolicy::lifecycle` for the KEK.
#![allow(clippy::print_stdout, reason = "a program that prints to its user")]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use encx::keys::KeyState;
use encx::kms::KeyManagementService;
use encx::store::{KeyQuery, KeyStore};
use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_aws::AwsKms;
use encx_local::{LocalKms, Protection};
use encx_sqlx::SqliteKeyStore;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{query, query_as};

const SSN: Field = Field::new("users", "ssn");
const ROWS: i64 = 40;

/// The name of AWS KMS in new wraps. Old wraps name the local provider `default`, because it was the only one.
const AWS: &str = "aws";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("the first argument is a folder")?);
    let only = arguments.next().and_then(|step| step.into_string().ok());
    let runs = |step: &str| only.as_deref().is_none_or(|only| only == step);
    std::fs::create_dir_all(&folder)?;
    let options = SqliteConnectOptions::new()
        .filename(folder.join("app.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    let store = SqliteKeyStore::from_pool(pool.clone());
    store.migrate().await?;
    if runs("fill") {
        fill(&folder, &pool, store.clone()).await?;
    }
    if runs("move") {
        move_keys(&folder, store.clone()).await?;
    }
    if runs("read") {
        read(&pool, store).await?;
    }
    Ok(())
}

fn context(tenant: i64) -> Result<EncryptionContext, encx::ContextError> {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii")
        .build()
}

/// Opens the local KEKs. A service would use a passphrase or a key.
async fn local(folder: &Path) -> Result<LocalKms, Box<dyn Error>> {
    let protection = Protection::insecure_file_permissions_only();
    Ok(LocalKms::open_or_create(folder.join("keks.encx"), protection).await?)
}

async fn fill(folder: &Path, pool: &SqlitePool, store: SqliteKeyStore) -> Result<(), Box<dyn Error>> {
    query("CREATE TABLE IF NOT EXISTS users (id integer PRIMARY KEY, tenant integer, ssn blob)")
        .execute(pool)
        .await?;
    let crypto = Crypto::builder(local(folder).await?, store).build().await?;
    for id in 1..=ROWS {
        let tenant = id % 20;
        let sealed = crypto
            .encrypt(&context(tenant)?, format!("ssn of {id}"), SSN.row(id))
            .await?;
        query("INSERT OR REPLACE INTO users (id, tenant, ssn) VALUES (?, ?, ?)")
            .bind(id)
            .bind(tenant)
            .bind(sealed)
            .execute(pool)
            .await?;
        // Some tenants have several versions.
        if id % 5 == 0 {
            crypto.key_manager().rotate(&context(tenant)?).await?;
        }
    }
    println!("wrote {ROWS} rows under the local provider");
    Ok(())
}

async fn move_keys(folder: &Path, store: SqliteKeyStore) -> Result<(), Box<dyn Error>> {
    let (local, aws) = (local(folder).await?, AwsKms::from_env().await?);
    let old = local
        .default_kek()
        .ok_or("the KEK file has no default KEK")?
        .clone();
    let new = aws.default_kek().ok_or("AWS_KMS_KEY_ID is not set")?.clone();
    // AWS wraps new keys; the local provider may still unwrap old ones. A service also uses this rule, from before the
    // move until after it.
    let crypto = Crypto::builder(local, store.clone())
        .kms_named(AWS, aws)
        .kek((AWS, new.as_str()))
        .also_unwrap(old.as_str())
        .build()
        .await?;
    let mut moved = 0;
    let mut seen = BTreeSet::new();
    let mut page = KeyQuery::new(100);
    loop {
        let found = store.page(&page).await?;
        for record in found.records {
            if record.state == KeyState::Destroyed || !seen.insert((record.usage.code(), record.scope)) {
                continue;
            }
            // A row is a hint: its context must match its own scope.
            let context = record.verified_context()?;
            let manager = crypto.key_manager().for_usage(record.usage);
            moved += manager.rewrap(&context).await?.len();
        }
        match found.next {
            Some(next) => page = page.after(next),
            None => break,
        }
    }
    println!("moved {moved} versions to {new}");
    crypto.shutdown().await;
    Ok(())
}

async fn read(pool: &SqlitePool, store: SqliteKeyStore) -> Result<(), Box<dyn Error>> {
    let aws = AwsKms::from_env().await?;
    let kek = aws.default_kek().ok_or("AWS_KMS_KEY_ID is not set")?.clone();
    let crypto = Crypto::builder(aws.clone(), store)
        .kms_named(AWS, aws)
        .kek((AWS, kek.as_str()))
        .build()
        .await?;
    let rows: Vec<(i64, i64, Ciphertext)> = query_as("SELECT id, tenant, ssn FROM users ORDER BY id")
        .fetch_all(pool)
        .await?;
    for (id, tenant, sealed) in &rows {
        let ssn = crypto
            .decrypt(&context(*tenant)?, sealed, SSN.row(*id))
            .await?
            .into_string()?;
        if ssn != format!("ssn of {id}") {
            return Err(format!("row {id} has another value").into());
        }
    }
    println!("read {} rows with AWS alone", rows.len());
    Ok(())
}
