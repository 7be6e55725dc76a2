//! The migrations of the schema.

use encx_core::store::StoreError;

use super::database::{Database, Transaction, scalar};
use super::{PostgresKeyStore, PostgresTables, sql};
use crate::migrate::{Found, Migration, MigrationStep};

/// The migrations, in order.
const MIGRATIONS: [Migration; 5] = [
    Migration {
        version: 1,
        name: "keys",
        compatible_from: 1,
        text: include_str!("../../migrations/postgres/0001_keys.sql"),
    },
    Migration {
        version: 2,
        name: "coordination",
        compatible_from: 1,
        text: include_str!("../../migrations/postgres/0002_coordination.sql"),
    },
    Migration {
        version: 3,
        name: "lists",
        compatible_from: 1,
        text: include_str!("../../migrations/postgres/0003_lists.sql"),
    },
    Migration {
        version: 4,
        name: "faults",
        compatible_from: 1,
        text: include_str!("../../migrations/postgres/0004_faults.sql"),
    },
    Migration {
        version: 5,
        name: "versions",
        compatible_from: 1,
        text: include_str!("../../migrations/postgres/0005_versions.sql"),
    },
];

/// The advisory lock of migrating processes: "encx/mig" in ASCII.
const MIGRATION_LOCK: i64 = i64::from_be_bytes(*b"encx/mig");

impl PostgresKeyStore {
    /// Creates or updates the schema `encx`. Does nothing if it is up to date, or newer and compatible.
    ///
    /// Any number of processes may call it at once. It records its steps in `encx.migrations`, and touches nothing
    /// outside the schema. Creating the schema needs the right to; if an administrator created it, owning it is enough.
    ///
    /// ```
    /// # use encx_sqlx::PostgresKeyStore;
    /// # use encx_core::store::StoreError;
    /// # async fn example(url: &str) -> Result<(), StoreError> {
    /// // Every process may do this at its start.
    /// PostgresKeyStore::connect(url).await?.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::NotMigrated`] if a newer version of this library already migrated it to incompatible tables, and
    /// [`StoreError::Unavailable`] or [`StoreError::Database`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time: the migration has then run entirely or not at all.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if !found(&self.tables.database).await?.is_behind(current())? {
            return Ok(());
        }
        let mut transaction = self.tables.database.begin().await?;
        let lock = sqlx::query(sql::MIGRATION_LOCK).bind(MIGRATION_LOCK);
        transaction.run(lock).await?;
        let found = found_in(&mut transaction).await?;
        // Another process may have been faster.
        if !found.is_behind(current())? {
            return Ok(());
        }
        for migration in MIGRATIONS.iter().filter(|next| next.version > found.version) {
            transaction.run_script(migration.text).await?;
            let record = sqlx::query(sql::RECORD_MIGRATION).bind(migration.version);
            transaction.run(record).await?;
        }
        if let Some(last) = MIGRATIONS.last() {
            let record = sqlx::query(sql::RECORD_COMPATIBLE)
                .bind(last.version)
                .bind(last.compatible_from);
            transaction.run(record).await?;
        }
        transaction.commit().await
    }

    /// Lists the steps that [`migrate`](Self::migrate) runs, including those that have run.
    ///
    /// ```
    /// # use encx_sqlx::PostgresKeyStore;
    /// # use encx_core::store::StoreError;
    /// # async fn example(store: &PostgresKeyStore) -> Result<(), StoreError> {
    /// for step in store.migrations().await? {
    ///     println!("{step:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`migrate`](Self::migrate).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn migrations(&self) -> Result<Vec<MigrationStep>, StoreError> {
        let found = found(&self.tables.database).await?;
        found.is_behind(current())?;
        let step = |migration: &Migration| migration.step(found, "BEGIN", "encx.migrations");
        Ok(MIGRATIONS.iter().map(step).collect())
    }
}

impl PostgresTables {
    /// Checks that the tables are of this version, or newer and compatible.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        found(&self.database).await?.check(current())
    }
}

/// Returns this library's version of the tables.
fn current() -> i64 {
    MIGRATIONS.last().map_or(0, |last| last.version)
}

/// Returns the state of the tables.
async fn found(database: &Database) -> Result<Found, StoreError> {
    let mut transaction = database.begin_read().await?;
    let found = found_in(&mut transaction).await?;
    transaction.commit().await?;
    Ok(found)
}

async fn found_in(transaction: &mut Transaction) -> Result<Found, StoreError> {
    if !scalar(&transaction.fetch(sqlx::query(sql::HAS_MIGRATIONS)).await?)? {
        return Ok(Found::NOTHING);
    }
    let version = scalar(&transaction.fetch(sqlx::query(sql::LAST_MIGRATION)).await?)?;
    let mut compatible_from = version;
    if version > current() {
        compatible_from = scalar(&transaction.fetch(sqlx::query(sql::COMPATIBLE_FROM)).await?)?;
    }
    Ok(Found {
        version,
        compatible_from,
    })
}
