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

    /// Reads a version's id from the only column of each row. Skips invalid ids.
    pub(crate) async fn ids(&self, sql: &Sql, after: Option<DataKeyId>) -> Result<Vec<DataKeyId>> {
        let after = after.map_or([0; 16], DataKeyId::to_bytes);
        let read: Vec<Vec<u8>> = match self {
            Self::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                sqlx::raw_sql(LIMITS).execute(&mut *transaction).await?;
                sqlx::query_scalar(sql.postgres)
                    .bind(after.to_vec())
                    .persistent(false)
                    .fetch_all(&mut *transaction)
                    .await?
            }
            Self::Sqlite(pool) => {
                sqlx::query_scalar(sql.sqlite)
                    .bind(after.to_vec())
                    .fetch_all(pool)
                    .await?
            }
        };
        let id = |bytes: Vec<u8>| <[u8; 16]>::try_from(bytes).ok().map(DataKeyId::from_bytes);
        Ok(read.into_iter().filter_map(id).filter_map(Result::ok).collect())
    }
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
