//! An open key store, and its migrations.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use encx::store::{KeyStore, StoreError};
use serde::Serialize;

use crate::error::ConfigError;
use crate::secret::SecretUrl;
use crate::source::Origin;

/// One migration step of a key store, and whether it has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MigrationStep {
    /// Its number, from 1.
    pub version: i64,
    /// Its name, such as `keys`.
    pub name: String,
    /// Whether it has run.
    pub is_applied: bool,
    /// The statements that it runs, including those that record it.
    pub sql: String,
}

impl MigrationStep {
    /// Makes a step.
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

/// Creates and updates a store's tables.
#[async_trait]
pub trait Migrations: fmt::Debug + Send + Sync + 'static {
    /// Runs the steps that have not run yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if the tables are newer than this version can work with; those of the database.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Lists all steps in order.
    ///
    /// # Errors
    ///
    /// Those of [`migrate`](Self::migrate).
    async fn steps(&self) -> Result<Vec<MigrationStep>, StoreError>;
}

/// An open key store, and its migrations. From [`Settings::key_store`](crate::Settings::key_store).
#[derive(Clone, Debug)]
pub struct OpenStore {
    store: Arc<dyn KeyStore>,
    migrations: Option<Arc<dyn Migrations>>,
    pub(super) place: Option<Arc<(SecretUrl, Origin)>>,
}

impl OpenStore {
    /// Wraps a key store without migrations.
    #[must_use]
    pub fn new(store: impl KeyStore) -> Self {
        Self {
            store: Arc::new(store),
            migrations: None,
            place: None,
        }
    }

    /// Sets the migrations.
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

    /// Returns the URL that opened it, shown without its password.
    #[must_use]
    pub fn url(&self) -> Option<&SecretUrl> {
        self.place.as_ref().map(|place| &place.0)
    }

    /// Creates or updates its tables. Does nothing if they are up to date, or if the store has no migrations.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`], with the store's error.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time: the migration has then run entirely or not at all.
    pub async fn migrate(&self) -> Result<(), ConfigError> {
        match &self.migrations {
            Some(migrations) => migrations.migrate().await.map_err(|error| self.error(error)),
            None => Ok(()),
        }
    }

    /// Lists the migration steps, both those that have run and those that have not.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`], with the store's error.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
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
