//! The tables whose columns are encrypted: in the database of the key store.

use anyhow::{Result, bail};
use encx::store::StoreError;
use encx_config::Settings;
use encx_tables::Rows;
use sqlx::{PgPool, SqlitePool};

/// Connects to the database that holds the declared columns.
pub(crate) async fn connect(settings: &Settings) -> Result<Rows> {
    let Some(url) = settings.key_store_url() else {
        bail!("the key store is not set: `encx config show` says what is");
    };
    match url.scheme() {
        Some("postgres" | "postgresql") => {
            let pool = PgPool::connect(url.expose())
                .await
                .map_err(StoreError::unavailable)?;
            Ok(Rows::postgres(pool))
        }
        Some("sqlite") => {
            let pool = SqlitePool::connect(url.expose())
                .await
                .map_err(StoreError::unavailable)?;
            Ok(Rows::sqlite(pool))
        }
        _ => bail!("encrypted columns are counted in PostgreSQL and SQLite, and the key store is {url}"),
    }
}
