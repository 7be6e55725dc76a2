//! A service configured only by its environment: writes notes, reads them, and rewraps their keys under other KEKs.
//!
//! ```sh
//! export ENCX_KMS=local:keks.encx ENCX_KEK_PASSPHRASE_FILE=passphrase ENCX_KEY_STORE=sqlite:notes.db
//! cargo run -p encx-config --example notes --features aws,sqlite -- write
//! cargo run -p encx-config --example notes --features aws,sqlite -- read
//! ```

use std::error::Error;

use encx::{Ciphertext, EncryptionContext, Field};
use encx_config::Settings;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

const TEXT: Field = Field::new("notes", "text");
const ROWS: i64 = 40;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it is a program for the command line")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::load()?;
    let store = settings.key_store().await?;
    store.migrate().await?;
    let url = settings.key_store_url().ok_or("no key store is set")?;
    let options: SqliteConnectOptions = url.expose().parse()?;
    let pool = SqlitePool::connect_with(options).await?;
    match std::env::args().nth(1).as_deref() {
        Some("write") => {
            write(&settings, &pool).await?;
            println!("wrote {ROWS} notes");
        }
        Some("read") => println!("read {} notes", read(&settings, &pool).await?),
        Some("rewrap") => {
            // Does what `encx rewrap` does.
            let manager = settings.key_manager().await?.because("to another KMS");
            let report = manager.rewrap_all().run().await;
            println!("moved {} keys, {} failed", report.run.changed, report.run.failed);
        }
        _ => return Err("give one of: write, read, rewrap".into()),
    }
    Ok(())
}

fn context(id: i64) -> Result<EncryptionContext, encx::ContextError> {
    EncryptionContext::builder()
        .pair("tenantId", id % 10)
        .pair("purpose", "notes")
        .build()
}

async fn write(settings: &Settings, pool: &SqlitePool) -> Result<(), Box<dyn Error>> {
    let crypto = settings.crypto().await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text BLOB NOT NULL)")
        .execute(pool)
        .await?;
    for id in 0..ROWS {
        let sealed = crypto
            .encrypt(&context(id)?, format!("note {id}"), TEXT.row(id))
            .await?;
        sqlx::query("INSERT OR REPLACE INTO notes (id, text) VALUES (?, ?)")
            .bind(id)
            .bind(sealed)
            .execute(pool)
            .await?;
    }
    Ok(())
}

async fn read(settings: &Settings, pool: &SqlitePool) -> Result<usize, Box<dyn Error>> {
    let crypto = settings.crypto().await?;
    let rows: Vec<(i64, Ciphertext)> = sqlx::query_as("SELECT id, text FROM notes")
        .fetch_all(pool)
        .await?;
    for (id, sealed) in &rows {
        let text = crypto
            .decrypt(&context(*id)?, sealed, TEXT.row(*id))
            .await?
            .into_string()?;
        if text != format!("note {id}") {
            return Err(format!("note {id} is another one").into());
        }
    }
    Ok(rows.len())
}
