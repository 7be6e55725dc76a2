//! Why the service could not start.

use encx_local::LocalKmsError;

/// Says why the service could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database refused, or its tables could not be created.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Keys could not be prepared.
    #[error("keys: {0}")]
    Keys(#[from] encx::Error),
    /// The KEK file could not be opened or created.
    #[error("KEK file: {0}")]
    KekFile(#[from] LocalKmsError),
    /// No database is configured.
    #[error("set ENCX_KEY_STORE or DATABASE_URL to the database, such as postgres://app@localhost/app")]
    NoDatabase,
    /// The network refused.
    #[error("network: {0}")]
    Network(#[from] std::io::Error),
    /// The settings are invalid.
    #[error("{0}")]
    Settings(#[from] encx_config::ConfigError),
    /// The service's own tables could not be created.
    #[error("tables: {0}")]
    Tables(#[from] sqlx::migrate::MigrateError),
}
