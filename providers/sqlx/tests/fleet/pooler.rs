//! Through PgBouncer in transaction mode, where every transaction may have another session.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use encx::KeyStore;
use encx::testkit::StoreFixture;
use encx_sqlx::PostgresKeyStore;
use tokio::time::Instant;

use crate::common::postgres::Database;

mod conformance {
    encx::store_conformance!(super::Pooled);
}

/// A database, and a pooler before it that has fewer sessions than its clients want.
struct Pooled {
    database: Database,
    pooler: Pooler,
}

#[async_trait::async_trait]
impl StoreFixture for Pooled {
    async fn create() -> Self {
        let database = Database::empty().await;
        let pooler = Pooler::start(&database);
        let pooled = Self { database, pooler };
        pooled.store().await.migrate().await.unwrap();
        pooled
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store().await)
    }

    async fn remove(&self) {
        self.database.drop_now().await;
    }
}

impl Pooled {
    async fn store(&self) -> PostgresKeyStore {
        let url = self.database.url_at(self.pooler.port);
        PostgresKeyStore::connect(&format!("{url}?statement-cache-capacity=0"))
            .await
            .unwrap()
    }
}

struct Pooler {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Pooler {
    fn start(database: &Database) -> Self {
        for _ in 0..3 {
            if let Some(pooler) = Self::try_start(database) {
                return pooler;
            }
        }
        panic!("pgbouncer does not start");
    }

    /// Fails if another process takes the port that was free.
    fn try_start(database: &Database) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let readable =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        readable(folder.path(), 0o755);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (host, server_port, user) = database.address();
        let (users, config) = (
            folder.path().join("users.txt"),
            folder.path().join("pgbouncer.ini"),
        );
        fs::write(&users, format!("\"{user}\" \"\"\n")).unwrap();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 3\n",
            users.display()
        );
        fs::write(&config, settings).unwrap();
        readable(&users, 0o644);
        readable(&config, 0o644);
        let mut process = command().arg(&config).stderr(Stdio::null()).spawn().expect(
            "pgbouncer is needed: run ./scripts/test, which installs it, or `apt-get install pgbouncer`",
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "pgbouncer listens within 20 seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self {
            process,
            port,
            _folder: folder,
        })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// It refuses to run as root.
fn command() -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "pgbouncer",
            "-q",
        ]);
        command.env("PATH", format!("{path}:/usr/sbin"));
        return command;
    }
    let mut command = Command::new("pgbouncer");
    command.arg("-q").env("PATH", format!("{path}:/usr/sbin"));
    command
}

/// Sixteen clients over three sessions: each statement is prepared in one of them, and another client's may lie there.
#[test]
fn clients_do_not_get_each_others_statements() {
    encx::testkit::block_on(async {
        let pooled = Arc::new(Pooled::create().await);
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..16 {
            let pooled = Arc::clone(&pooled);
            tasks.spawn(async move {
                let store = pooled.store().await;
                for round in 0..5 {
                    let new = crate::common::new_key(&format!("t-{client}-{round}"));
                    let record = store.insert(&new).await.unwrap();
                    assert_eq!(
                        store.load(&[new.scope]).await.unwrap(),
                        std::slice::from_ref(&record)
                    );
                    assert_eq!(
                        store.get(&[record.id]).await.unwrap(),
                        std::slice::from_ref(&record)
                    );
                    let page = store
                        .page(&encx::KeyQuery::new(5).scope(new.scope))
                        .await
                        .unwrap();
                    assert_eq!(page.records, [record]);
                    store.changed_since(&encx::ChangeCursor::now()).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        pooled.remove().await;
    });
}

/// What is written through the pooler is heard by who listens directly.
#[test]
fn a_direct_listen_url_hears_what_goes_through_the_pooler() {
    encx::testkit::block_on(async {
        let pooled = Pooled::create().await;
        let store = pooled.store().await.listen_url(&pooled.database.url());
        let mut hints = store.changes();
        assert_eq!(crate::listen::heard(&mut hints).await, encx::KeyHint::Gap);
        let new = crate::common::new_key("t");
        store.insert(&new).await.unwrap();
        assert_eq!(crate::listen::heard_of(&mut hints, new.scope).await, []);
        pooled.remove().await;
    });
}

/// A pool of the user's own, told both.
#[test]
fn a_pool_of_ones_own_works_through_the_pooler() {
    encx::testkit::block_on(async {
        let pooled = Pooled::create().await;
        let options = pooled.database.options().port(pooled.pooler.port);
        let options = options.statement_cache_capacity(0).extra_float_digits(None);
        let pool = sqlx::PgPool::connect_with(options).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool).behind_transaction_pooler();
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..8 {
            let store = store.clone();
            tasks.spawn(async move {
                let new = crate::common::new_key(&format!("t-{client}"));
                let record = store.insert(&new).await.unwrap();
                assert_eq!(store.load(&[new.scope]).await.unwrap(), [record]);
            });
        }
        tasks.join_all().await;
        pooled.remove().await;
    });
}
