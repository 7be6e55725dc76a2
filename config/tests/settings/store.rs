//! Key stores by their URLs, and their migrations.

use async_trait::async_trait;
use encx::store::StoreError;
use encx_config::{ConfigError, Loader, MigrationStep, Migrations, OpenStore};
use encx_testkit::MemoryKeyStore;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use crate::of_env;

#[tokio::test]
async fn sqlite_is_migrated_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("keys.db").display());
    let store = of_env(&[("ENCX_KEY_STORE", &url)])
        .unwrap()
        .key_store()
        .await
        .unwrap();
    assert_eq!(store.url().unwrap().expose(), url);
    let before = store.migrations().await.unwrap();
    assert!(
        before.len() >= 3 && before.iter().all(|step| !step.is_applied),
        "{before:?}"
    );
    assert_eq!((before[0].version, before[0].name.as_str()), (1, "keys"));

    // Manually, as an administrator who lets no program change the schema.
    let by_hand = folder.path().join("by-hand.db");
    let by_hand = format!("sqlite:{}", by_hand.display());
    let pool = sqlx::SqlitePool::connect(&format!("{by_hand}?mode=rwc"))
        .await
        .unwrap();
    for (ran, step) in before.iter().enumerate() {
        let store = of_env(&[("ENCX_KEY_STORE", &by_hand)])
            .unwrap()
            .key_store()
            .await
            .unwrap();
        let applied = store
            .migrations()
            .await
            .unwrap()
            .iter()
            .filter(|step| step.is_applied)
            .count();
        assert_eq!(applied, ran);
        sqlx::raw_sql(AssertSqlSafe(step.sql.clone()))
            .execute(&pool)
            .await
            .unwrap();
    }
    store.migrate().await.unwrap();
    let schema = "SELECT group_concat(sql) FROM (SELECT sql FROM sqlite_schema ORDER BY name)";
    let recorded = "SELECT group_concat(version || '/' || coalesce(compatible_from, 0)) FROM encx_migrations";
    let by_program = sqlx::SqlitePool::connect(&url).await.unwrap();
    let read = async |pool: &sqlx::SqlitePool, statement: &'static str| -> String {
        sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
    };
    assert_eq!(read(&pool, schema).await, read(&by_program, schema).await);
    let last = |text: String| text.rsplit(',').next().unwrap().to_owned();
    assert_eq!(
        last(read(&pool, recorded).await),
        last(read(&by_program, recorded).await)
    );
    assert!(
        store
            .migrations()
            .await
            .unwrap()
            .iter()
            .all(|step| step.is_applied)
    );
}

#[tokio::test]
async fn postgres_is_migrated_and_says_so() {
    let server = std::env::var("ENCX_TEST_POSTGRES_URL").expect(
        "ENCX_TEST_POSTGRES_URL is not set: run the tests with ./scripts/test, which starts a server",
    );
    let options: PgConnectOptions = server.parse().unwrap();
    let mut connection = options.connect().await.unwrap();
    let name = format!("encx_config_test_{}", std::process::id());
    let recreate = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    connection.execute(AssertSqlSafe(recreate.clone())).await.unwrap();
    connection
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);

    let settings = of_env(&[
        ("DATABASE_URL", &url),
        ("ENCX_LISTEN_URL", &url),
        ("ENCX_KEY_STORE_TRANSACTION_POOLER", "1"),
    ]);
    let store = settings.unwrap().key_store().await.unwrap();
    let before = store.migrations().await.unwrap();
    assert!(
        before.len() >= 2 && before.iter().all(|step| !step.is_applied),
        "{before:?}"
    );
    // The first one manually, the others by the program.
    let mut own = options.clone().database(&name).connect().await.unwrap();
    own.execute(AssertSqlSafe(before[0].sql.clone())).await.unwrap();
    let applied: Vec<_> = store
        .migrations()
        .await
        .unwrap()
        .iter()
        .map(|step| step.is_applied)
        .collect();
    assert!(applied[0] && !applied[1]);
    store.migrate().await.unwrap();
    assert!(
        store
            .migrations()
            .await
            .unwrap()
            .iter()
            .all(|step| step.is_applied)
    );
    // All of them manually.
    own.execute("DROP SCHEMA encx CASCADE").await.unwrap();
    for step in &before {
        own.execute(AssertSqlSafe(step.sql.clone())).await.unwrap();
    }
    assert!(
        store
            .migrations()
            .await
            .unwrap()
            .iter()
            .all(|step| step.is_applied)
    );
    drop((store, own));
    connection.execute(AssertSqlSafe(recreate)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_without_its_password() {
    let url = "postgres://app:hunter2@127.0.0.1:1/app";
    let settings = of_env(&[("ENCX_KEY_STORE", url)]).unwrap();
    let refused = settings.key_store().await.unwrap_err();
    assert!(matches!(refused, ConfigError::Store { .. }) && refused.is_retryable());
    let shown = format!("{refused} {refused:?}");
    assert!(
        shown.starts_with(
            "the key store postgres://app:[REDACTED]@127.0.0.1:1/app, which `ENCX_KEY_STORE` names, "
        ),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_is_for_another_database_is_refused() {
    let sqlite = ("ENCX_KEY_STORE", "sqlite:keys.db");
    for variable in ["ENCX_LISTEN_URL", "ENCX_KEY_STORE_CA_FILE"] {
        let refused = of_env(&[sqlite, (variable, "postgres://db/app")])
            .unwrap_err()
            .to_string();
        assert!(
            refused.starts_with(&format!("`{variable}` is refused: it is for PostgreSQL")),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn without_a_key_store_its_variables_are_named() {
    let refused = of_env(&[]).unwrap().key_store().await.unwrap_err().to_string();
    assert!(
        refused.starts_with("the key store is not set: set ENCX_KEY_STORE, or DATABASE_URL"),
        "{refused}"
    );
}

#[derive(Debug)]
struct Steps;

#[async_trait]
impl Migrations for Steps {
    async fn migrate(&self) -> Result<(), StoreError> {
        Err(StoreError::Invalid {
            what: "read only".to_owned(),
        })
    }

    async fn steps(&self) -> Result<Vec<MigrationStep>, StoreError> {
        Ok(vec![MigrationStep::new(1, "all", false, "CREATE")])
    }
}

#[tokio::test]
async fn a_scheme_of_the_programs_own_can_be_named() {
    let settings = Loader::new()
        .env([("ENCX_KEY_STORE", "acme:keys"), ("ENCX_LISTEN_URL", "acme:hints")])
        .store_scheme("acme", |url| async move {
            match (
                url.url().expose(),
                url.listen_url().map(ToString::to_string).as_deref(),
            ) {
                ("acme:keys", Some("acme:hints")) => {
                    Ok(OpenStore::new(MemoryKeyStore::new()).with_migrations(Steps))
                }
                other => Err(format!("{other:?}").into()),
            }
        })
        .load()
        .unwrap();
    let store = settings.key_store().await.unwrap();
    assert_eq!(store.migrations().await.unwrap().len(), 1);
    let refused = store.migrate().await.unwrap_err().to_string();
    assert!(
        refused.starts_with("the key store acme:keys, which `ENCX_KEY_STORE` names, cannot be used: "),
        "{refused}"
    );
    assert!(refused.contains("read only"), "{refused}");
}
