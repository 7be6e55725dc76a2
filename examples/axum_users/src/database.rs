//! The database: PostgreSQL or SQLite. A service that uses only one of them has a pool instead.

use std::str::FromStr;
use std::sync::Arc;

use encx::password::PasswordHash;
use encx::search::IndexTerms;
use encx::store::KeyStore;
use encx_sqlx::{PostgresKeyStore, SqliteKeyStore};
use sqlx::postgres::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{QueryBuilder, migrate, query, query_as};
use uuid::Uuid;

use crate::start_error::StartError;
use crate::user::EncryptedUser;

/// Runs the same query on either database.
macro_rules! on {
    ($database:expr, $pool:ident => $query:expr) => {
        match $database {
            Database::Postgres($pool) => $query,
            Database::Sqlite($pool) => $query,
        }
    };
}

#[derive(Debug)]
pub(crate) enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Database {
    /// Opens a database by its URL, and creates missing tables.
    pub(crate) async fn open(url: &str) -> Result<Self, StartError> {
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .foreign_keys(true)
                .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
            let pool = SqlitePool::connect_with(options).await?;
            migrate!("migrations/sqlite").run(&pool).await?;
            Ok(Self::Sqlite(pool))
        } else {
            let pool = PgPool::connect(url).await?;
            migrate!("migrations/postgres").run(&pool).await?;
            Ok(Self::Postgres(pool))
        }
    }

    /// Returns the key store, in its own tables beside the service's.
    pub(crate) async fn key_store(&self) -> Result<Arc<dyn KeyStore>, StartError> {
        Ok(match self {
            Self::Postgres(pool) => {
                let store = PostgresKeyStore::from_pool(pool.clone());
                store.migrate().await.map_err(encx::Error::from)?;
                Arc::new(store)
            }
            Self::Sqlite(pool) => {
                let store = SqliteKeyStore::from_pool(pool.clone());
                store.migrate().await.map_err(encx::Error::from)?;
                Arc::new(store)
            }
        })
    }

    pub(crate) async fn insert_tenant(&self, id: &str) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO tenants (id) VALUES ($1) ON CONFLICT DO NOTHING";
        on!(self, pool => query(sql).bind(id).execute(pool).await.map(drop))
    }

    pub(crate) async fn delete_tenant(&self, id: &str) -> Result<(), sqlx::Error> {
        for sql in [
            "DELETE FROM users WHERE tenant_id = $1",
            "DELETE FROM tenants WHERE id = $1",
        ] {
            on!(self, pool => query(sql).bind(id).execute(pool).await.map(drop))?;
        }
        Ok(())
    }

    pub(crate) async fn insert_user(&self, row: EncryptedUser) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO users (id, tenant_id, email, email_index, name, phone, password) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        on!(self, pool => query(sql)
            .bind(row.id)
            .bind(row.tenant_id)
            .bind(row.email)
            .bind(row.email_index)
            .bind(row.name)
            .bind(row.phone)
            .bind(row.password)
            .execute(pool)
            .await
            .map(drop))
    }

    pub(crate) async fn user(&self, tenant: &str, id: Uuid) -> Result<Option<EncryptedUser>, sqlx::Error> {
        let sql = "SELECT * FROM users WHERE tenant_id = $1 AND id = $2";
        on!(self, pool => query_as(sql).bind(tenant).bind(id).fetch_optional(pool).await)
    }

    pub(crate) async fn users(
        &self,
        tenant: &str,
        after: Uuid,
        limit: u8,
    ) -> Result<Vec<EncryptedUser>, sqlx::Error> {
        let sql = "SELECT * FROM users WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3";
        let limit = i32::from(limit);
        on!(self, pool => query_as(sql).bind(tenant).bind(after).bind(limit).fetch_all(pool).await)
    }

    /// Finds the rows that may have an email. They are candidates: compare them after decryption.
    pub(crate) async fn users_by_email(&self, terms: &IndexTerms) -> Result<Vec<EncryptedUser>, sqlx::Error> {
        match self {
            Self::Postgres(pool) => {
                let sql = "SELECT * FROM users WHERE email_index = ANY($1)";
                query_as(sql).bind(terms.as_slice()).fetch_all(pool).await
            }
            Self::Sqlite(pool) => {
                let mut query = QueryBuilder::new("SELECT * FROM users WHERE email_index");
                terms.push_in(&mut query);
                query.build_query_as().fetch_all(pool).await
            }
        }
    }

    pub(crate) async fn set_password(&self, id: Uuid, password: PasswordHash) -> Result<(), sqlx::Error> {
        let sql = "UPDATE users SET password = $2 WHERE id = $1";
        on!(self, pool => query(sql).bind(id).bind(password).execute(pool).await.map(drop))
    }

    pub(crate) async fn close(&self) {
        on!(self, pool => pool.close().await);
    }
}
