//! Access to the key store's database for the doctor: its statements change nothing.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use encx::keys::DataKeyId;
use encx_config::Settings;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{PgPool, Row as _, SqlitePool};

/// Time limit of a statement. Set per transaction, because a pooler may share the connection.
const LIMITS: &str =
    "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = '15s'; SET LOCAL lock_timeout = '5s'";

/// A connection to the database of the key store.
pub(crate) enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// A statement in both dialects.
pub(crate) struct Sql {
    pub(crate) postgres: &'static str,
    pub(crate) sqlite: &'static str,
}

impl Database {
    /// Opens the database. `None` if the key store is in neither PostgreSQL nor SQLite.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>> {
        let Some(url) = settings.key_store_url() else {
            return Ok(None);
        };
        let wait = Duration::from_secs(10);
        Ok(match url.scheme() {
            Some("postgres" | "postgresql") => {
                let options = postgres_options(url.expose())?;
                let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(wait);
                Some(Self::Postgres(pool.connect_lazy_with(options)))
            }
            Some("sqlite") => {
                let options =
                    SqliteConnectOptions::from_str(url.expose()).context("the URL cannot be read")?;
                let pool = SqlitePoolOptions::new().max_connections(2).acquire_timeout(wait);
                Some(Self::Sqlite(pool.connect_lazy_with(options)))
            }
            _ => None,
        })
    }

    /// Reads a text from the only column of each row.
    pub(crate) async fn texts(&self, sql: &Sql) -> Result<Vec<String>> {
        match self {
            Self::Postgres(pool) => read_postgres(pool, sql.postgres)
                .await?
                .iter()
                .map(|row| Ok(row.try_get::<String, _>(0)?))
                .collect(),
            Self::Sqlite(pool) => read_sqlite(pool, sql.sqlite)
                .await?
                .iter()
                .map(|row| Ok(row.try_get::<String, _>(0)?))
                .collect(),
        }
    }

    /// Reads a number from one row; `None` for NULL.
    pub(crate) async fn number(&self, sql: &Sql) -> Result<Option<i64>> {
        Ok(match self {
            Self::Postgres(pool) => match read_postgres(pool, sql.postgres).await?.first() {
                Some(row) => row.try_get(0)?,
                None => None,
            },
            Self::Sqlite(pool) => match read_sqlite(pool, sql.sqlite).await?.first() {
                Some(row) => row.try_get(0)?,
                None => None,
            },
        })
    }

    /// Reads names from the first column of each row, and the count of all from the second.
    pub(crate) async fn counted(&self, sql: &Sql) -> Result<(Vec<String>, u64)> {
        let rows: Vec<(String, i64)> = match self {
            Self::Postgres(pool) => read_postgres(pool, sql.postgres)
                .await?
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_>>()?,
            Self::Sqlite(pool) => read_sqlite(pool, sql.sqlite)
                .await?
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_>>()?,
        };
        let count = rows
            .first()
            .map_or(0, |(_, count)| u64::try_from(*count).unwrap_or(0));
        Ok((rows.into_iter().map(|(name, _)| name).collect(), count))
    }

    /// Reads a version's id from the only column of each row; `after` is the last one of the page before.
    pub(crate) async fn ids(&self, sql: &Sql, after: Option<&[u8]>) -> Result<Ids> {
        let after = after.map_or_else(|| vec![0; DataKeyId::LEN], <[u8]>::to_vec);
        let read: Vec<Vec<u8>> = match self {
            Self::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                sqlx::raw_sql(LIMITS).execute(&mut *transaction).await?;
                sqlx::query_scalar(sql.postgres)
                    .bind(after)
                    .persistent(false)
                    .fetch_all(&mut *transaction)
                    .await?
            }
            Self::Sqlite(pool) => sqlx::query_scalar(sql.sqlite).bind(after).fetch_all(pool).await?,
        };
        let mut ids = Ids::default();
        for bytes in &read {
            let id = <[u8; DataKeyId::LEN]>::try_from(bytes.as_slice()).ok();
            match id.and_then(|id| DataKeyId::from_bytes(id).ok()) {
                Some(id) => ids.valid.push(id),
                None => ids.invalid.push(
                    bytes
                        .iter()
                        .take(SHOWN)
                        .map(|byte| format!("{byte:02x}"))
                        .collect(),
                ),
            }
        }
        ids.last = read.into_iter().next_back();
        Ok(ids)
    }
}

/// Bytes of an invalid id that are shown.
const SHOWN: usize = 32;

/// A page of ids of versions.
#[derive(Default)]
pub(crate) struct Ids {
    pub(crate) valid: Vec<DataKeyId>,
    /// Ids that encx did not write, in hex. Without the table's constraint, a row can have one.
    pub(crate) invalid: Vec<String>,
    /// The last id as it is stored, valid or not; `None` after the last page.
    pub(crate) last: Option<Vec<u8>>,
}

/// Runs a statement without parameters on PostgreSQL, in a read-only transaction.
pub(crate) async fn read_postgres(pool: &PgPool, sql: &'static str) -> Result<Vec<PgRow>> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql(LIMITS).execute(&mut *transaction).await?;
    // A named statement would remain on a connection that a pooler shares.
    let statement = sqlx::query(sql).persistent(false);
    Ok(statement.fetch_all(&mut *transaction).await?)
}

async fn read_sqlite(pool: &SqlitePool, sql: &'static str) -> Result<Vec<SqliteRow>> {
    Ok(sqlx::query(sql).fetch_all(pool).await?)
}

/// Parses a URL into options that also work behind a transaction pooler.
pub(crate) fn postgres_options(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).context("the URL cannot be read")?;
    Ok(options
        .statement_cache_capacity(0)
        .extra_float_digits(None)
        .application_name("encx doctor"))
}
