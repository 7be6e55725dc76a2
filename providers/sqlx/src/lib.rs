//! Key stores in PostgreSQL and SQLite, for [encx](https://docs.rs/encx).
//!
//! - [`PostgresKeyStore`] (feature `postgres`, on by default) keeps keys in the schema `encx`.
//! - [`SqliteKeyStore`] (feature `sqlite`) keeps them in tables with the prefix `encx_`.
//! - Feature `tls-rustls` enables TLS connections to PostgreSQL.
//!
//! Jobs over the rows of your own tables are in [encx-tables](https://docs.rs/encx-tables).
//!
//! Both stores are made from a URL or an existing pool, and both create their tables with `migrate()`. They run on
//! Tokio.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn example() -> Result<(), encx::store::StoreError> {
//! use encx_sqlx::PostgresKeyStore;
//!
//! let store = PostgresKeyStore::connect("postgres://app@db.internal/app").await?;
//! store.migrate().await?;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

// `tests/` shares the test databases, and refers to this crate by name.
#[cfg(all(test, feature = "postgres"))]
extern crate self as encx_sqlx;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod application;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod audit;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod changes;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod columns;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod migrate;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod row;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod shared_work;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod summary;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use migrate::MigrationStep;
#[cfg(feature = "postgres")]
pub use postgres::PostgresKeyStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteKeyStore;

/// Shared with the jobs of `encx-tables`. Not part of the API.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[doc(hidden)]
pub mod __private {
    pub use crate::error::{may_pass, without_rows};
    #[cfg(feature = "postgres")]
    pub use crate::postgres::is_passing as postgres_passing;
    #[cfg(feature = "sqlite")]
    pub use crate::sqlite::{BEGIN as SQLITE_BEGIN, is_passing as sqlite_passing};
}
