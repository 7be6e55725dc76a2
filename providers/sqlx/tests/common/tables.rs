//! Tests of encx's tables and their migrations, for both databases.

use std::sync::Arc;

use async_trait::async_trait;
use encx::store::{Counted, KeyStore, ProcessCounts, StoreError, Timestamp};
use encx_sqlx::MigrationStep;
use sqlx::{AssertSqlSafe, Executor};

use super::new_key;

/// An empty database, and a store that keeps its tables there.
#[async_trait]
pub(crate) trait Tables: Send + Sync + 'static {
    type Store: KeyStore;
    /// What the names of all tables begin with.
    const PREFIX: &'static str;
    /// The names and texts of all migrations.
    const MIGRATIONS: &'static [(&'static str, &'static str)];
    /// Counts encx's tables and indexes.
    const OURS: &'static str;
    /// Counts the tables of others.
    const OTHERS: &'static str;
    /// Today, as a value of the column `day`.
    const TODAY: &'static str;

    async fn store(&self) -> Self::Store;
    async fn migrate(store: &Self::Store) -> Result<(), StoreError>;
    async fn migrations(store: &Self::Store) -> Vec<MigrationStep>;
    async fn try_run(&self, statement: &str) -> Result<(), sqlx::Error>;
    async fn count(&self, query: &str) -> i64;
}

#[cfg(feature = "postgres")]
#[async_trait]
impl Tables for super::postgres::Database {
    type Store = encx_sqlx::PostgresKeyStore;
    const PREFIX: &'static str = "encx.";
    const MIGRATIONS: &'static [(&'static str, &'static str)] = &[
        ("keys", include_str!("../../migrations/postgres/0001_keys.sql")),
        (
            "coordination",
            include_str!("../../migrations/postgres/0002_coordination.sql"),
        ),
        ("lists", include_str!("../../migrations/postgres/0003_lists.sql")),
        (
            "faults",
            include_str!("../../migrations/postgres/0004_faults.sql"),
        ),
        (
            "versions",
            include_str!("../../migrations/postgres/0005_versions.sql"),
        ),
    ];
    const OURS: &'static str = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                WHERE n.nspname = 'encx'";
    const OTHERS: &'static str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    const TODAY: &'static str = "(statement_timestamp() AT TIME ZONE 'UTC')::date";

    async fn store(&self) -> encx_sqlx::PostgresKeyStore {
        self.store().await
    }

    async fn migrate(store: &encx_sqlx::PostgresKeyStore) -> Result<(), StoreError> {
        store.migrate().await
    }

    async fn migrations(store: &encx_sqlx::PostgresKeyStore) -> Vec<MigrationStep> {
        store.migrations().await.unwrap()
    }

    async fn try_run(&self, statement: &str) -> Result<(), sqlx::Error> {
        let statement = AssertSqlSafe(statement.to_owned());
        self.connection().await.execute(statement).await.map(drop)
    }

    async fn count(&self, query: &str) -> i64 {
        let count = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        count.fetch_one(&mut self.connection().await).await.unwrap()
    }
}

#[cfg(feature = "sqlite")]
#[async_trait]
impl Tables for super::sqlite::File {
    type Store = encx_sqlx::SqliteKeyStore;
    const PREFIX: &'static str = "encx_";
    const MIGRATIONS: &'static [(&'static str, &'static str)] = &[
        ("keys", include_str!("../../migrations/sqlite/0001_keys.sql")),
        (
            "coordination",
            include_str!("../../migrations/sqlite/0002_coordination.sql"),
        ),
        (
            "application",
            include_str!("../../migrations/sqlite/0003_application.sql"),
        ),
        ("lists", include_str!("../../migrations/sqlite/0004_lists.sql")),
        ("faults", include_str!("../../migrations/sqlite/0005_faults.sql")),
        (
            "versions",
            include_str!("../../migrations/sqlite/0006_versions.sql"),
        ),
    ];
    const OURS: &'static str =
        "SELECT count(*) FROM sqlite_schema WHERE tbl_name LIKE 'encx\\_%' ESCAPE '\\'";
    const OTHERS: &'static str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'
                                  AND name NOT LIKE 'encx\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    const TODAY: &'static str = "CAST(unixepoch('now') / 86400 AS INTEGER)";

    async fn store(&self) -> encx_sqlx::SqliteKeyStore {
        self.store().await
    }

    async fn migrate(store: &encx_sqlx::SqliteKeyStore) -> Result<(), StoreError> {
        store.migrate().await
    }

    async fn migrations(store: &encx_sqlx::SqliteKeyStore) -> Vec<MigrationStep> {
        store.migrations().await.unwrap()
    }

    async fn try_run(&self, statement: &str) -> Result<(), sqlx::Error> {
        let statement = AssertSqlSafe(statement.to_owned());
        self.connection().await.execute(statement).await.map(drop)
    }

    async fn count(&self, query: &str) -> i64 {
        let count = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        count.fetch_one(&mut self.connection().await).await.unwrap()
    }
}

/// Mounts all tests, each on a database of its own that `$on` makes.
#[allow(unused_macros, reason = "not each test file mounts the tests")]
macro_rules! tables_tests {
    ($on:path, $database:ty) => {
        #[test]
        fn sixteen_processes_migrate_at_once_and_again() {
            $on($crate::common::tables::migrate_at_once);
        }

        #[test]
        fn the_steps_say_which_ran_and_their_scripts_run_by_hand() {
            for ran in 0..<$database as $crate::common::tables::Tables>::MIGRATIONS.len() {
                $on(move |database| $crate::common::tables::run_by_hand(database, ran));
            }
        }

        #[test]
        fn tables_of_a_newer_library_are_left_alone() {
            $on($crate::common::tables::leave_newer_alone);
        }

        /// Processes of the old library continue after those of the new one have migrated, if that only added something.
        #[test]
        fn newer_tables_are_used_if_they_say_that_they_may_be() {
            $on($crate::common::tables::use_compatible);
        }

        #[test]
        fn tables_of_version_1_are_brought_up_to_date() {
            $on($crate::common::tables::migrate_version_1);
        }

        #[test]
        fn counts_are_kept_for_four_hundred_days() {
            $on($crate::common::tables::keep_counts);
        }
    };
}
#[allow(unused_imports, reason = "not each test file mounts the tests")]
pub(crate) use tables_tests;

async fn run<D: Tables>(database: &D, statement: &str) {
    database.try_run(statement).await.unwrap();
}

/// Returns the script of the first migrations, as a library that knew only those ran it.
pub(crate) fn script<D: Tables>(migrations: usize) -> String {
    let mut script: String = D::MIGRATIONS[..migrations]
        .iter()
        .map(|(_, text)| *text)
        .collect();
    for version in 1..=migrations {
        script += &format!(
            "INSERT INTO {}migrations (version) VALUES ({version});",
            D::PREFIX
        );
    }
    if migrations > 1 {
        let table = format!("{}migrations", D::PREFIX);
        script += &format!("UPDATE {table} SET compatible_from = 1 WHERE version > 1;");
    }
    script
}

pub(crate) async fn migrate_at_once<D: Tables>(database: Arc<D>) {
    let prefix = D::PREFIX;
    // The user's own migrations are separate.
    run(
        &*database,
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY)",
    )
    .await;
    let unmigrated = database.store().await;
    let error = unmigrated.load(&[new_key("t").scope]).await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated { .. }), "{error}");

    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let database = Arc::clone(&database);
        tasks.spawn(async move { D::migrate(&database.store().await).await });
    }
    for result in tasks.join_all().await {
        result.unwrap();
    }
    let ours = database.count(D::OURS).await;
    unmigrated.insert(&new_key("t")).await.unwrap();
    D::migrate(&unmigrated).await.unwrap();
    assert_eq!(database.count(D::OURS).await, ours);
    assert_eq!(database.count(D::OTHERS).await, 1);
    let all = i64::try_from(D::MIGRATIONS.len()).unwrap();
    for (table, rows) in [("migrations", all), ("data_keys", 1)] {
        let found = database
            .count(&format!("SELECT count(*) FROM {prefix}{table}"))
            .await;
        assert_eq!(found, rows, "{table}");
    }
    assert_eq!(database.count("SELECT count(*) FROM _sqlx_migrations").await, 0);
}

/// The first `ran` migrations have run, and an administrator runs the others.
pub(crate) async fn run_by_hand<D: Tables>(database: Arc<D>, ran: usize) {
    if ran > 0 {
        run(&*database, &script::<D>(ran)).await;
    }
    let store = database.store().await;
    let steps = D::migrations(&store).await;
    let found: Vec<_> = steps.iter().map(|step| (step.version, step.name)).collect();
    let expected: Vec<_> = (1..).zip(D::MIGRATIONS.iter().map(|(name, _)| *name)).collect();
    assert_eq!(found, expected);
    assert_eq!(steps.iter().filter(|step| step.is_applied).count(), ran);
    for step in steps.iter().filter(|step| !step.is_applied) {
        run(&*database, &step.sql).await;
    }
    assert!(D::migrations(&store).await.iter().all(|step| step.is_applied));
    works_with_version_1(&*database).await;
    store.insert(&new_key("t")).await.unwrap();
}

/// Checks that the newest migration says that a library of version 1 may use its tables.
async fn works_with_version_1<D: Tables>(database: &D) {
    let (prefix, newest) = (D::PREFIX, D::MIGRATIONS.len());
    let others =
        format!("SELECT count(*) FROM {prefix}migrations WHERE version = {newest} AND compatible_from = 1");
    assert_eq!(database.count(&others).await, 1);
}

pub(crate) async fn leave_newer_alone<D: Tables>(database: Arc<D>) {
    D::migrate(&database.store().await).await.unwrap();
    let newer = format!("INSERT INTO {}migrations (version) VALUES (99)", D::PREFIX);
    run(&*database, &newer).await;
    let store = database.store().await;
    for error in [
        store.load(&[]).await.unwrap_err(),
        store.insert(&new_key("t")).await.unwrap_err(),
        D::migrate(&store).await.unwrap_err(),
    ] {
        assert!(
            matches!(&error, StoreError::NotMigrated { found } if found.contains("update the library")),
            "{error}"
        );
    }
}

pub(crate) async fn use_compatible<D: Tables>(database: Arc<D>) {
    D::migrate(&database.store().await).await.unwrap();
    let newest = D::MIGRATIONS.len();
    let newer = |version: usize, from: usize| {
        let table = format!("{}migrations (version, compatible_from)", D::PREFIX);
        format!("INSERT INTO {table} VALUES ({version}, {from})")
    };
    run(&*database, &newer(99, newest)).await;
    let store = database.store().await;
    store.insert(&new_key("t")).await.unwrap();
    D::migrate(&store).await.unwrap();
    run(&*database, &newer(100, newest + 1)).await;
    let store = database.store().await;
    for result in [store.load(&[]).await.map(drop), D::migrate(&store).await] {
        assert!(
            matches!(result, Err(StoreError::NotMigrated { .. })),
            "{result:?}"
        );
    }
}

pub(crate) async fn migrate_version_1<D: Tables>(database: Arc<D>) {
    run(&*database, &script::<D>(1)).await;
    let store = database.store().await;
    let error = store.load(&[]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotMigrated { found } if found.contains("older")),
        "{error}"
    );
    D::migrate(&store).await.unwrap();
    store.insert(&new_key("t")).await.unwrap();
    store.processes().unwrap().raise_fence().await.unwrap();
    works_with_version_1(&*database).await;
}

pub(crate) async fn keep_counts<D: Tables>(database: Arc<D>) {
    let store = database.store().await;
    D::migrate(&store).await.unwrap();
    let registry = store.processes().unwrap();
    let (today, table) = (D::TODAY, format!("{}daily_counts", D::PREFIX));
    // Counters of a later library are skipped, and kept.
    let rows = format!(
        "INSERT INTO {table} VALUES ({today} - 400, 'hits', 1), ({today} - 399, 'hits', 2),
             ({today} - 399, 'hits.of_tomorrow', 3), ({today} - 3, 'hits.of_tomorrow', 4)"
    );
    run(&*database, &rows).await;
    let ever = Timestamp::from_micros(i64::MIN);
    for left in [4, 3] {
        let days = registry.daily_counts(ever).await.unwrap();
        assert_eq!(days.len(), 1, "{days:?}");
        let hits: Vec<_> = days[0].counts.iter().collect();
        assert_eq!(hits, [(Counted::Hits, 2)]);
        let now = registry.list_processes().await.unwrap().now;
        let age = now.as_micros() - days[0].day.as_micros();
        assert!((399..=400).contains(&(age / 86_400_000_000)), "{days:?}");
        let rows = format!("SELECT count(*) FROM {table}");
        assert_eq!(database.count(&rows).await, left);
        registry.add_counts(&ProcessCounts::new()).await.unwrap();
    }
    for refused in ["count = -1", "what = ''", "day = NULL"] {
        let refused = format!("UPDATE {table} SET {refused}");
        assert!(database.try_run(&refused).await.is_err(), "{refused}");
    }
}
