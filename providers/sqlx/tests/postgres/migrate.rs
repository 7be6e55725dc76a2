//! Migrations of PostgreSQL's schema.

use encx::store::{KeyStore, StoreError};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor};
use uuid::Uuid;

use crate::common::new_key;
use crate::common::pooler::Pooler;
use crate::common::postgres::{Database, on_a_database};
use crate::common::tables::{Tables, script, tables_tests};
use crate::{count, run};

tables_tests!(on_a_database, Database);

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
    for older in 0..Database::MIGRATIONS.len() {
        on_a_database(move |database| async move {
            run(&mut database.connection().await, &script::<Database>(older)).await;
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
    for older in 0..Database::MIGRATIONS.len() {
        on_a_database(move |database| async move {
            run(&mut database.connection().await, &script::<Database>(older)).await;
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

/// The error code tells what is missing.
#[test]
fn tables_that_are_dropped_after_the_check_are_named() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        assert!(store.load(&[]).await.unwrap().is_empty());
        run(&mut database.connection().await, "DROP SCHEMA encx CASCADE").await;
        let error = store.load(&[new_key("t").scope]).await.unwrap_err();
        assert!(matches!(error, StoreError::NotMigrated { .. }), "{error}");
        store.migrate().await.unwrap();
        store.insert(&new_key("t")).await.unwrap();
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
