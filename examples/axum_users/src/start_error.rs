//! Why the service could not start.

use encx_local::LocalKmsError;

/// Says why the service could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database refused, or its tables could not be made.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Keys could not be prepared.
    #[error("keys: {0}")]
    Keys(#[from] encx::Error),
    /// The KEK file could not be opened or made.
    #[error("KEK file: {0}")]
    KekFile(#[from] LocalKmsError),
    /// Nothing says which database serves.
    #[error("set ENCX_KEY_STORE or DATABASE_URL to the database, such as postgres://app@localhost/app")]
    NoDatabase,
    /// The network refused.
    #[error("network: {0}")]
    Network(#[from] std::io::Error),
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] encx_config::ConfigError),
    /// The service's own tables could not be made.
    #[error("tables: {0}")]
    Tables(#[from] sqlx::migrate::MigrateError),
}
