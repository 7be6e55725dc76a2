//! The scene of a test: its own database with gates, a KEK file, the KMS's switches, and a table of patients.

use std::pin::pin;
use std::time::Duration;

use encx::{Ciphertext, Field};
use encx_local::{LocalKms, Protection};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;

use crate::gates::{self, Gate};
use crate::kms::Control;
use crate::member::{Member, Settings};
use crate::pooler::Pooler;

/// The column whose ciphertexts the tests write.
pub(crate) const NOTE: Field = Field::new("patients", "note");

const PATIENTS: &str = "CREATE TABLE patients (id bigint PRIMARY KEY, tenant text NOT NULL, note bytea)";

pub(crate) struct Scene {
    server: PgConnectOptions,
    database: String,
    /// The test's own access, bypassing the store.
    pub(crate) pool: PgPool,
    pub(crate) control: Control,
    folder: TempDir,
}

impl Scene {
    /// Prepares a database on a server.
    pub(crate) async fn new(server: PgConnectOptions) -> Self {
        let database = format!("encx_faults_{}", uuid::Uuid::new_v4().simple());
        run_on(&server, format!("CREATE DATABASE {database}"))
            .await
            .unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(3)
            .connect_with(server.clone().database(&database))
            .await
            .unwrap();
        pool.execute(PATIENTS).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        gates::create(&pool).await;
        let folder = tempfile::tempdir().unwrap();
        let keks = folder.path().join("keks");
        let kms = LocalKms::create(keks, Protection::insecure_file_permissions_only());
        let kms = kms.await.unwrap();
        for alias in ["alias/old", "alias/new"] {
            kms.create_alias(alias, &kms.create_kek().await.unwrap())
                .await
                .unwrap();
        }
        Self {
            server,
            database,
            pool,
            control: Control::new(folder.path()),
            folder,
        }
    }

    /// Returns the settings of a member.
    pub(crate) fn settings(&self) -> Settings {
        let url = self.server.clone().database(&self.database).to_url_lossy();
        Settings::new(url.as_str(), self.folder.path())
    }

    /// Starts a member in this process.
    pub(crate) async fn member(&self) -> Member {
        Member::new(self.settings()).await
    }

    /// Starts a transaction pooler in front of the server.
    pub(crate) fn pooler(&self) -> Pooler {
        let server = &self.server;
        Pooler::start(&(
            server.get_host().to_owned(),
            server.get_port(),
            server.get_username().to_owned(),
        ))
    }

    /// Waits until this many processes are registered.
    pub(crate) async fn until_registered(&self, processes: usize) {
        let count = "SELECT count(*) FROM encx.processes";
        let processes = i64::try_from(processes).unwrap();
        until("all are registered", Duration::from_secs(10), async || {
            let count: i64 = sqlx::query_scalar(count).fetch_one(&self.pool).await.unwrap();
            count == processes
        })
        .await;
    }

    /// Makes all keys old enough to be due for rotation.
    pub(crate) async fn age_keys(&self) {
        let age = "UPDATE encx.data_keys
            SET created_at = created_at - interval '1 year', activated_at = activated_at - interval '1 year'";
        self.pool.execute(age).await.unwrap();
    }

    /// Expires all job claims, so that the test need not wait.
    pub(crate) async fn expire_claims(&self) {
        let expire = "UPDATE encx.job_ranges SET until = clock_timestamp()";
        self.pool.execute(expire).await.unwrap();
    }

    pub(crate) async fn close(&self, gate: Gate) {
        gate.close(&self.pool).await;
    }

    pub(crate) async fn open_gates(&self) {
        gates::open_all(&self.pool).await;
    }

    pub(crate) async fn until_one_waits(&self) {
        gates::until_one_waits(&self.pool).await;
    }

    /// Reads a patient's row.
    pub(crate) async fn note(&self, id: i64) -> Option<(String, Ciphertext)> {
        sqlx::query_as("SELECT tenant, note FROM patients WHERE id = $1 AND note IS NOT NULL")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
    }

    /// Lists all patients' rows.
    pub(crate) async fn notes(&self) -> Vec<(i64, String, Ciphertext)> {
        sqlx::query_as("SELECT id, tenant, note FROM patients WHERE note IS NOT NULL ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn remove(&self) -> Result<(), sqlx::Error> {
        self.pool.close().await;
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        run_on(&self.server, statement).await
    }
}

async fn run_on(server: &PgConnectOptions, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = server.connect().await?;
    connection.execute(AssertSqlSafe(statement)).await?;
    connection.close().await
}

/// Runs a test on a server, and drops its database even if the test fails.
pub(crate) fn play(server: PgConnectOptions, test: impl AsyncFnOnce(&Scene)) {
    encx_testkit::block_on(async {
        let scene = Scene::new(server).await;
        let outcome = catch(test(&scene)).await;
        // The server may be dead; its databases are then removed with it.
        drop(tokio::time::timeout(Duration::from_secs(5), scene.remove()).await);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a future that may panic.
async fn catch<T>(future: impl Future<Output = T>) -> std::thread::Result<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Ok(std::task::Poll::Ready(done)) => std::task::Poll::Ready(Ok(done)),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// Waits until a condition holds, and fails if it does not within `limit`.
pub(crate) async fn until(what: &str, limit: Duration, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within {limit:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
