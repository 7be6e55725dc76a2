//! Migrations of PostgreSQL's schema.

use encx::store::{KeyStore, StoreError};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor};
use uuid::Uuid;

use crate::common::new_key;
use crate::common::pooler::Pooler;
use crate::common::postgres::{Database, on_a_database};
use crate::{count, run};

/// The migrations that a library of each version had run; the empty string means no tables.
const OLDER: [&str; 5] = [
    "",
    concat!(
        include_str!("../../migrations/postgres/0001_keys.sql"),
        "INSERT INTO encx.migrations (version) VALUES (1);"
    ),
    concat!(
        include_str!("../../migrations/postgres/0001_keys.sql"),
        include_str!("../../migrations/postgres/0002_coordination.sql"),
        "INSERT INTO encx.migrations (version, compatible_from) VALUES (1, NULL), (2, 1);"
    ),
    concat!(
        include_str!("../../migrations/postgres/0001_keys.sql"),
        include_str!("../../migrations/postgres/0002_coordination.sql"),
        include_str!("../../migrations/postgres/0003_lists.sql"),
        "INSERT INTO encx.migrations (version, compatible_from) VALUES (1, NULL), (2, 1), (3, 1)"
    ),
    concat!(
        include_str!("../../migrations/postgres/0001_keys.sql"),
        include_str!("../../migrations/postgres/0002_coordination.sql"),
        include_str!("../../migrations/postgres/0003_lists.sql"),
        include_str!("../../migrations/postgres/0004_faults.sql"),
        "INSERT INTO encx.migrations (version, compatible_from) VALUES (1, NULL), (2, 1), (3, 1), (4, 1)"
    ),
];

/// Runs the migrations of several stores at once. Each has looked for the tables in its session, and as many as the
/// server allows are waiting for the lock when the first may start.
async fn migrate_at_once(database: &Database, stores: Vec<PostgresKeyStore>, waiting: i64) {
    let mut connection = database.connection().await;
    let mut lock = connection.begin().await.unwrap();
    let number = i64::from_be_bytes(*b"encx/mig");
    let take = format!("SELECT pg_advisory_xact_lock({number})");
    lock.execute(AssertSqlSafe(take)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for store in stores {
        tasks.spawn(async move { store.migrate().await });
    }
    let mut watcher = database.connection().await;
    let blocked = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                   WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while count(&mut watcher, blocked).await < waiting {
        assert!(tokio::time::Instant::now() < deadline, "{waiting} stores wait");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    lock.commit().await.unwrap();
    for result in tasks.join_all().await {
        result.unwrap();
    }
    let versions = "SELECT count(*) FROM encx.migrations";
    assert_eq!(count(&mut watcher, versions).await, 5);
}

#[test]
fn pools_of_one_connection_migrate_at_once() {
    for older in OLDER {
        on_a_database(move |database| async move {
            run(&mut database.connection().await, older).await;
            let mut stores = Vec::new();
            for _ in 0..8 {
                let pool = PgPoolOptions::new().max_connections(1);
                let pool = pool.connect_with(database.options()).await.unwrap();
                stores.push(PostgresKeyStore::from_pool(pool));
            }
            migrate_at_once(&database, stores, 8).await;
        });
    }
}

/// The pooler has three sessions.
#[test]
fn clients_of_a_pooler_migrate_at_once() {
    for older in OLDER {
        on_a_database(move |database| async move {
            run(&mut database.connection().await, older).await;
            let pooler = Pooler::start(&database.address());
            let url = format!("{}?statement-cache-capacity=0", database.url_at(pooler.port));
            let mut stores = Vec::new();
            for _ in 0..16 {
                stores.push(PostgresKeyStore::connect(&url).await.unwrap());
            }
            migrate_at_once(&database, stores, 3).await;
        });
    }
}

#[test]
fn sixteen_processes_migrate_at_once_and_again() {
    on_a_database(|database| async move {
        let mut connection = database.connection().await;
        // The user's own migrations are separate.
        run(
            &mut connection,
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY)",
        )
        .await;
        let unmigrated = database.store().await;
        let error = unmigrated.load(&[new_key("t").scope]).await.unwrap_err();
        assert!(matches!(error, StoreError::NotMigrated { .. }), "{error}");

        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let database = database.clone();
            tasks.spawn(async move { database.store().await.migrate().await });
        }
        for result in tasks.join_all().await {
            result.unwrap();
        }
        let shape = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = 'encx'";
        let before = count(&mut connection, shape).await;
        let applied = "SELECT (extract(epoch FROM applied_at) * 1000000)::bigint FROM encx.migrations WHERE version = 1";
        let when = count(&mut connection, applied).await;
        unmigrated.insert(&new_key("t")).await.unwrap();
        unmigrated.migrate().await.unwrap();
        assert_eq!(count(&mut connection, shape).await, before);
        assert_eq!(count(&mut connection, applied).await, when);
        assert_eq!(
            count(&mut connection, "SELECT count(*) FROM encx.migrations").await,
            5
        );
        assert_eq!(
            count(&mut connection, "SELECT count(*) FROM encx.data_keys").await,
            1
        );
        assert_eq!(
            count(&mut connection, "SELECT count(*) FROM _sqlx_migrations").await,
            0
        );
    });
}

#[test]
fn tables_of_a_newer_library_are_left_alone() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let mut connection = database.connection().await;
        run(
            &mut connection,
            "INSERT INTO encx.migrations (version) VALUES (99)",
        )
        .await;
        let store = database.store().await;
        for error in [
            store.load(&[]).await.unwrap_err(),
            store.insert(&new_key("t")).await.unwrap_err(),
            store.migrate().await.unwrap_err(),
        ] {
            assert!(
                matches!(&error, StoreError::NotMigrated { found } if found.contains("update the library")),
                "{error}"
            );
        }
        // Dropped after the store's check: the error code tells what is missing.
        let store = database.store().await;
        run(&mut connection, "DELETE FROM encx.migrations WHERE version = 99").await;
        assert!(store.load(&[]).await.unwrap().is_empty());
        run(&mut connection, "DROP SCHEMA encx CASCADE").await;
        let error = store.load(&[new_key("t").scope]).await.unwrap_err();
        assert!(matches!(error, StoreError::NotMigrated { .. }), "{error}");
        store.migrate().await.unwrap();
        store.insert(&new_key("t")).await.unwrap();
    });
}

/// Processes of the old library continue after those of the new one have migrated, if that only added something.
#[test]
fn newer_tables_are_used_if_they_say_that_they_may_be() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let mut connection = database.connection().await;
        run(
            &mut connection,
            "INSERT INTO encx.migrations (version, compatible_from) VALUES (99, 5)",
        )
        .await;
        let store = database.store().await;
        store.insert(&new_key("t")).await.unwrap();
        store.migrate().await.unwrap();
        run(
            &mut connection,
            "INSERT INTO encx.migrations (version, compatible_from) VALUES (100, 6)",
        )
        .await;
        let store = database.store().await;
        for result in [store.load(&[]).await.map(drop), store.migrate().await] {
            assert!(
                matches!(result, Err(StoreError::NotMigrated { .. })),
                "{result:?}"
            );
        }
    });
}

#[test]
fn tables_of_version_1_are_brought_up_to_date() {
    on_a_database(|database| async move {
        let mut connection = database.connection().await;
        run(
            &mut connection,
            include_str!("../../migrations/postgres/0001_keys.sql"),
        )
        .await;
        run(
            &mut connection,
            "INSERT INTO encx.migrations (version) VALUES (1)",
        )
        .await;
        let store = database.store().await;
        let error = store.load(&[]).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::NotMigrated { found } if found.contains("older")),
            "{error}"
        );
        store.migrate().await.unwrap();
        store.insert(&new_key("t")).await.unwrap();
        store.processes().unwrap().raise_fence().await.unwrap();
        let compatible = "SELECT compatible_from::bigint FROM encx.migrations WHERE version = 5";
        assert_eq!(count(&mut connection, compatible).await, 1);
    });
}

#[test]
fn a_user_without_the_right_to_create_schemas_migrates_one_that_is_theirs() {
    on_a_database(|database| async move {
        let role = format!("encx_role_{}", Uuid::new_v4().simple());
        let mut connection = database.connection().await;
        run(&mut connection, &format!("CREATE ROLE {role} LOGIN")).await;
        run(
            &mut connection,
            &format!("CREATE SCHEMA encx AUTHORIZATION {role}"),
        )
        .await;
        let pool = sqlx::PgPool::connect_with(database.options().username(&role))
            .await
            .unwrap();
        let store = PostgresKeyStore::from_pool(pool);
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        let user: String = sqlx::query_scalar("SELECT db_user FROM encx.audit_log WHERE key_id = $1")
            .bind(Uuid::from(record.id))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(user, role);
        run(&mut connection, &format!("DROP OWNED BY {role} CASCADE")).await;
        run(&mut connection, &format!("DROP ROLE {role}")).await;
    });
}
