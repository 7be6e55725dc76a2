//! Encrypts customers into a SQLite file under a local KEK, and reads them in a second process.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --keep FOLDER
//! ```
//!
//! It needs no server and no settings. Everything is in a temporary folder, which is removed at the end, or in the
//! folder of `--keep`, for the program `encx`.

#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use encx::keys::KeyState;
use encx::kms::DataKey;
use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_local::{LocalKms, Protection};
use encx_sqlx::SqliteKeyStore;
use serde::Deserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{FromRow, query, query_as};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

// Which column a value belongs to. With the row's id it is authenticated with every value.
const EMAIL: Field = Field::new("customers", "email");
const SSN: Field = Field::new("customers", "ssn");

/// A customer in the service.
#[derive(Deserialize)]
struct Customer {
    id: i64,
    tenant: String,
    name: String,
    email: String,
    ssn: String,
}

/// A customer in the database. `Ciphertext` is a binary column.
#[derive(FromRow)]
struct Row {
    id: i64,
    tenant: String,
    name: String,
    email: Ciphertext,
    ssn: Ciphertext,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match &args[..] {
        [] => {
            let folder = tempfile::tempdir()?;
            println!(
                "\nencx quickstart, in {} (removed at the end)",
                folder.path().display()
            );
            both_processes(folder.path()).await
        }
        [option, folder] if option == "--keep" => {
            std::fs::create_dir_all(folder)?;
            let folder = Path::new(folder).canonicalize()?;
            println!("\nencx quickstart, in {}", folder.display());
            both_processes(&folder).await?;
            write_settings(&folder)?;
            println!(
                "Kept. Operate its keys: cargo run -p encx-cli -- --config {}/encx.toml status\n",
                folder.display()
            );
            Ok(())
        }
        [option, folder] if option == "--second-process" => second_process(Path::new(folder)).await,
        _ => Err("usage: quickstart [--keep FOLDER]".into()),
    }
}

async fn both_processes(folder: &Path) -> Result<()> {
    first_process(folder).await?;
    // It passes only the folder.
    let status = Command::new(std::env::current_exe()?)
        .arg("--second-process")
        .arg(folder)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the second process failed".into())
    }
}

/// Writes the settings of the program `encx` for a kept folder.
fn write_settings(folder: &Path) -> Result<()> {
    let folder = folder.display();
    let settings = format!(
        r#"key_store = "sqlite:{folder}/service.db"

[kms]
default = {{ url = "local:{folder}/keks.encx", key_file = "{folder}/master.key" }}

[[column]]
table = "customers"
column = "email"
id = {{ column = "id", kind = "integer" }}
context = {{ tenantId = {{ column = "tenant" }}, purpose = "pii" }}

[[column]]
table = "customers"
column = "ssn"
id = {{ column = "id", kind = "integer" }}
context = {{ tenantId = {{ column = "tenant" }}, purpose = "pii" }}
"#
    );
    Ok(std::fs::write(format!("{folder}/encx.toml"), settings)?)
}

/// Opens the content of a folder: the KEKs, the data keys, the customers.
async fn open(folder: &Path) -> Result<(Crypto, SqlitePool)> {
    let protection = Protection::key_from_file(folder.join("master.key"));
    let kms = LocalKms::open_or_create(folder.join("keks.encx"), protection).await?;
    let database = SqliteConnectOptions::new()
        .filename(folder.join("service.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(database).await?;
    let store = SqliteKeyStore::from_pool(pool.clone());
    store.migrate().await?;
    Ok((Crypto::builder(kms, store).build().await?, pool))
}

/// The context chooses the key: one per tenant and purpose.
fn context(tenant: &str) -> Result<EncryptionContext> {
    Ok(EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii")
        .build()?)
}

async fn first_process(folder: &Path) -> Result<()> {
    println!("\n1. A first process encrypts");
    write_master_key(&folder.join("master.key"))?;
    let (crypto, pool) = open(folder).await?;
    let json = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/customers.json");
    let customers: Vec<Customer> = serde_json::from_slice(&std::fs::read(json)?)?;
    query("CREATE TABLE customers (id INTEGER PRIMARY KEY, tenant TEXT, name TEXT, email BLOB, ssn BLOB)")
        .execute(&pool)
        .await?;
    for customer in &customers {
        insert(&crypto, &pool, customer).await?;
    }
    let stats = crypto.stats();
    println!(
        "   {} customers read from examples/customers.json",
        customers.len()
    );
    println!("   {} values encrypted into service.db", 2 * customers.len());
    println!(
        "   {} data keys, one per tenant, with {} KMS calls",
        stats.keys, stats.kms_calls
    );
    let row = fetch(&pool, 1).await?;
    let bytes = row.ssn.as_bytes();
    println!(
        "   {}'s ssn {} is kept as {} bytes: {}…",
        row.name,
        customers[0].ssn,
        bytes.len(),
        hex(&bytes[..12])
    );
    crypto.shutdown().await;
    pool.close().await;
    Ok(())
}

async fn second_process(folder: &Path) -> Result<()> {
    println!("\n2. A second process reads, from nothing but that folder");
    let (crypto, pool) = open(folder).await?;
    let rows: Vec<Row> = query_as("SELECT id, tenant, name, email, ssn FROM customers ORDER BY id")
        .fetch_all(&pool)
        .await?;
    for row in &rows {
        let (email, ssn) = read(&crypto, row, &row.tenant).await?;
        println!("   {:<8} {:<8} {email:<26} {ssn}", row.tenant, row.name);
    }
    println!(
        "   {} values read with {} KMS calls",
        2 * rows.len(),
        crypto.stats().kms_calls
    );

    println!("\n3. The key of tenant acme is rotated");
    let acme = context("acme")?;
    crypto.key_manager().because("quickstart").rotate(&acme).await?;
    for version in crypto.key_manager().list(&acme).await? {
        let does = if version.state == KeyState::Active {
            "encrypts and decrypts"
        } else {
            "decrypts"
        };
        println!("   version {} is {}: {does}", version.version, version.state);
    }
    let new = Customer {
        id: 7,
        tenant: "acme".into(),
        name: "Hedy".into(),
        email: "hedy@acme.example".into(),
        ssn: "555-50-1234".into(),
    };
    insert(&crypto, &pool, &new).await?;
    for (id, written) in [(1, "before"), (7, "after")] {
        let row = fetch(&pool, id).await?;
        let (_, ssn) = read(&crypto, &row, "acme").await?;
        let due = crypto.needs_reencryption(&acme, &row.ssn).await?;
        println!(
            "   {}, written {written} the rotation, reads: {ssn} (re-encryption due: {due})",
            row.name
        );
    }

    println!("\n4. What an attacker with write access to the database tries");
    query("UPDATE customers SET tenant = 'globex' WHERE id = 1")
        .execute(&pool)
        .await?;
    let moved = fetch(&pool, 1).await?;
    println!(
        "   {} moved to tenant globex: {}",
        moved.name,
        refusal(read(&crypto, &moved, "globex").await)?
    );
    query("UPDATE customers SET ssn = (SELECT ssn FROM customers WHERE id = 7) WHERE id = 2")
        .execute(&pool)
        .await?;
    let copied = fetch(&pool, 2).await?;
    println!(
        "   Hedy's ssn copied to {}: {}",
        copied.name,
        refusal(read(&crypto, &copied, "acme").await)?
    );

    let stats = crypto.stats();
    println!(
        "\n{} KMS calls by this second process, one per key that it met; {} answers from memory\n",
        stats.kms_calls, stats.hits
    );
    crypto.shutdown().await;
    pool.close().await;
    Ok(())
}

/// Encrypts two fields of a customer, bound to their row, and stores the row.
async fn insert(crypto: &Crypto, pool: &SqlitePool, customer: &Customer) -> Result<()> {
    let context = context(&customer.tenant)?;
    let email = crypto
        .encrypt(&context, &customer.email, EMAIL.row(customer.id))
        .await?;
    let ssn = crypto
        .encrypt(&context, &customer.ssn, SSN.row(customer.id))
        .await?;
    query("INSERT INTO customers (id, tenant, name, email, ssn) VALUES (?, ?, ?, ?, ?)")
        .bind(customer.id)
        .bind(&customer.tenant)
        .bind(&customer.name)
        .bind(email)
        .bind(ssn)
        .execute(pool)
        .await?;
    Ok(())
}

/// Decrypts the two fields of a row, for the requesting tenant.
async fn read(crypto: &Crypto, row: &Row, tenant: &str) -> Result<(String, String)> {
    let context = context(tenant)?;
    let email = crypto
        .decrypt(&context, &row.email, EMAIL.row(row.id))
        .await?
        .into_string()?;
    let ssn = crypto
        .decrypt(&context, &row.ssn, SSN.row(row.id))
        .await?
        .into_string()?;
    Ok((email, ssn))
}

async fn fetch(pool: &SqlitePool, id: i64) -> Result<Row> {
    let sql = "SELECT id, tenant, name, email, ssn FROM customers WHERE id = ?";
    Ok(query_as(sql).bind(id).fetch_one(pool).await?)
}

/// Returns why a read was refused. A successful read would be a failure of this example.
fn refusal(read: Result<(String, String)>) -> Result<String> {
    match read {
        Ok(_) => Err("a moved value was decrypted".into()),
        Err(error) => Ok(format!("refused\n      {error}")),
    }
}

/// Writes the key that protects the KEK file. A service gets it from its secrets manager instead.
fn write_master_key(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(path)?, "{}", hex(DataKey::generate()?.expose()))?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
