//! A key store that was opened, and what migrates it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use encx::store::{KeyStore, StoreError};
use serde::Serialize;

use crate::error::ConfigError;
use crate::secret::SecretUrl;
use crate::source::Origin;

/// One step of a key store's tables, and whether it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MigrationStep {
    /// Its number, from 1.
    pub version: i64,
    /// Its name, such as `keys`.
    pub name: String,
    /// Whether the store has it.
    pub is_applied: bool,
    /// The statements that it runs, those that record it included.
    pub sql: String,
}

impl MigrationStep {
    /// Describes a step.
    #[must_use]
    pub fn new(version: i64, name: impl Into<String>, is_applied: bool, sql: impl Into<String>) -> Self {
        Self {
            version,
            name: name.into(),
            is_applied,
            sql: sql.into(),
        }
    }
}

/// What creates and updates a store's tables.
#[async_trait]
pub trait Migrations: fmt::Debug + Send + Sync + 'static {
    /// Runs the steps that did not run yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if newer tables are there that this version cannot work with; those of the database.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Lists all steps in their order.
    ///
    /// # Errors
    ///
    /// As [`migrate`](Self::migrate).
    async fn steps(&self) -> Result<Vec<MigrationStep>, StoreError>;
}

/// A key store that was opened, and what migrates it. From [`Settings::key_store`](crate::Settings::key_store).
#[derive(Clone, Debug)]
pub struct OpenStore {
    store: Arc<dyn KeyStore>,
    migrations: Option<Arc<dyn Migrations>>,
    pub(super) place: Option<Arc<(SecretUrl, Origin)>>,
}

impl OpenStore {
    /// Takes a key store that has no migrations.
    #[must_use]
    pub fn new(store: impl KeyStore) -> Self {
        Self {
            store: Arc::new(store),
            migrations: None,
            place: None,
        }
    }

    /// Says what migrates it.
    #[must_use]
    pub fn with_migrations(mut self, migrations: impl Migrations) -> Self {
        self.migrations = Some(Arc::new(migrations));
        self
    }

    /// Returns the key store.
    #[must_use]
    pub fn key_store(&self) -> Arc<dyn KeyStore> {
        Arc::clone(&self.store)
    }

    /// Returns the URL that it was opened by, which is shown without its password.
    #[must_use]
    pub fn url(&self) -> Option<&SecretUrl> {
        self.place.as_ref().map(|place| &place.0)
    }

    /// Creates or updates its tables. Nothing happens if they are up to date, or if the store has no migrations.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`], with what the store says.
    ///
    /// # Cancellation
    ///
    /// The future may be dropped at any time: all of it is done then, or nothing.
    pub async fn migrate(&self) -> Result<(), ConfigError> {
        match &self.migrations {
            Some(migrations) => migrations.migrate().await.map_err(|error| self.error(error)),
            None => Ok(()),
        }
    }

    /// Lists the steps of its tables, those that ran and those that did not.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`], with what the store says.
    ///
    /// # Cancellation
    ///
    /// The future may be dropped at any time.
    pub async fn migrations(&self) -> Result<Vec<MigrationStep>, ConfigError> {
        match &self.migrations {
            Some(migrations) => migrations.steps().await.map_err(|error| self.error(error)),
            None => Ok(Vec::new()),
        }
    }

    fn error(&self, error: StoreError) -> ConfigError {
        match &self.place {
            Some(place) => store_error(&place.0, &place.1, error),
            None => ConfigError::Encx(encx::Error::Store(error)),
        }
    }
}

pub(super) fn store_error(url: &SecretUrl, origin: &Origin, source: StoreError) -> ConfigError {
    ConfigError::Store {
        url: url.clone(),
        origin: origin.clone(),
        source,
    }
}
