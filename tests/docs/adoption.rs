//! The code of `docs/adoption.md`.

use encx::jobs::JobEvent;
use encx::record::{EncryptedColumn, RowIdKind};
use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_tables::{Adoption, AdoptionJobs, PlaintextColumn, Rows, read_either};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use sqlx::sqlite::SqlitePool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SSN: Field = Field::new("users", "ssn");

/// Up to and including this day, `users.ssn` may hold plaintexts.
const SSN_ADOPTION: Adoption = Adoption::until("2099-03-31");

fn pii(tenant: &str) -> Result<EncryptionContext> {
    Ok(EncryptionContext::from_pairs([
        ("tenantId", tenant),
        ("purpose", "pii"),
    ])?)
}

async fn set_ssn(crypto: &Crypto, pool: &SqlitePool, tenant: &str, id: i64, ssn: &str) -> Result<()> {
    let sealed = crypto.encrypt(&pii(tenant)?, ssn, SSN.row(id)).await?;
    let sql = "UPDATE users SET ssn = $1, ssn_sealed = $2 WHERE id = $3";
    let update = sqlx::query(sql).bind(ssn).bind(sealed).bind(id);
    update.execute(pool).await?;
    Ok(())
}

async fn ssn(crypto: &Crypto, pool: &SqlitePool, tenant: &str, id: i64) -> Result<Option<String>> {
    let sql = "SELECT ssn_sealed, ssn FROM users WHERE id = $1";
    let (sealed, plain): (Option<Ciphertext>, Option<String>) =
        sqlx::query_as(sql).bind(id).fetch_one(pool).await?;
    let (context, aad) = (pii(tenant)?, SSN.row(id));
    Ok(read_either(crypto, &context, sealed.as_ref(), plain, aad, SSN_ADOPTION).await?)
}

fn adoption(crypto: &Crypto, pool: SqlitePool) -> Result<AdoptionJobs> {
    let sealed = EncryptedColumn::new("users", "ssn")
        .stored_in("users", "ssn_sealed")
        .row_id("id", RowIdKind::Integer)
        .context_column("tenantId", "tenant_id")
        .context_value("purpose", "pii");
    let rows = Rows::sqlite(pool); // or Rows::postgres
    Ok(rows.adopt(crypto, PlaintextColumn::text("ssn"), sealed, SSN_ADOPTION)?)
}

#[allow(clippy::print_stdout, reason = "that is what the document shows")]
async fn backfill(adoption: &AdoptionJobs) -> Result<()> {
    let mut run = adoption.backfill().throttle(500).start();
    while let Some(event) = run.next_event().await {
        match event {
            JobEvent::RangeDone { worker, .. } => println!("{} encrypted", worker.changed),
            JobEvent::ItemFailed(failure) => println!("{failure}"),
            _ => {}
        }
    }
    let report = run.report().await;
    if !report.is_complete() {
        return Err(report.to_string().into());
    }
    Ok(())
}

async fn verify(adoption: &AdoptionJobs) -> Result<()> {
    let report = adoption.verify().run().await;
    if !report.is_complete() {
        return Err(report.to_string().into());
    }
    Ok(())
}

async fn contract(adoption: &AdoptionJobs) -> Result<()> {
    let report = adoption.contract().run().await;
    if !report.is_complete() {
        return Err(report.to_string().into());
    }
    Ok(())
}

#[tokio::test]
async fn a_column_in_use_becomes_an_encrypted_one() -> Result<()> {
    let pool = SqlitePool::connect("sqlite::memory:").await?;
    for sql in [
        "CREATE TABLE users (id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, ssn TEXT)",
        "INSERT INTO users VALUES (1, 'acme', '1'), (2, 'acme', '2'), (3, 'umbrella', NULL)",
        "ALTER TABLE users ADD COLUMN ssn_sealed BLOB",
    ] {
        sqlx::query(sql).execute(&pool).await?;
    }
    let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
        .build()
        .await?;
    let is_read = async |id, tenant, expected: Option<&str>| -> Result<()> {
        let read = ssn(&crypto, &pool, tenant, id).await?;
        assert_eq!(read.as_deref(), expected);
        Ok(())
    };
    let all_are_read = async || -> Result<()> {
        is_read(1, "acme", Some("one")).await?;
        is_read(2, "acme", Some("2")).await?;
        is_read(3, "umbrella", None).await
    };
    set_ssn(&crypto, &pool, "acme", 1, "one").await?;
    all_are_read().await?;

    let adoption = adoption(&crypto, pool.clone())?;
    let refused = verify(&adoption).await.unwrap_err().to_string();
    assert!(refused.contains("row 2"), "{refused}");
    backfill(&adoption).await?;
    all_are_read().await?;
    verify(&adoption).await?;
    contract(&adoption).await?;
    all_are_read().await?;
    let left: i64 = sqlx::query_scalar("SELECT count(ssn) FROM users")
        .fetch_one(&pool)
        .await?;
    assert_eq!(left, 0);
    sqlx::query("ALTER TABLE users DROP COLUMN ssn")
        .execute(&pool)
        .await?;
    crypto.shutdown().await;
    Ok(())
}

#[test]
fn the_document_shows_this() {
    super::shown::assert_shown(
        include_str!("../../docs/adoption.md"),
        include_str!("adoption.rs"),
    );
}
