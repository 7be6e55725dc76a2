//! An empty database for each test, and a dump of its content.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use uuid::Uuid;

/// The test server. Its user may create databases.
const VARIABLE: &str = "ENCX_TEST_POSTGRES_URL";

/// A database, and a folder for the service's other files.
pub(crate) enum Database {
    Postgres {
        server: Box<PgConnectOptions>,
        name: String,
        folder: TempDir,
    },
    Sqlite {
        folder: TempDir,
    },
}

impl Database {
    pub(crate) async fn postgres() -> Self {
        let Ok(url) = std::env::var(VARIABLE) else {
            panic!("{VARIABLE} is not set: run ./scripts/test, which starts a server for the tests");
        };
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("axum_users_{}", Uuid::now_v7().simple());
        on_server(&server, format!("CREATE DATABASE {name}")).await;
        Self::Postgres {
            server: Box::new(server),
            name,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn sqlite() -> Self {
        Self::Sqlite {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        let (Self::Postgres { folder, .. } | Self::Sqlite { folder }) = self;
        folder.path()
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres { server, name, .. } => {
                server.as_ref().clone().database(name).to_url_lossy().to_string()
            }
            Self::Sqlite { folder } => format!("sqlite:{}", folder.path().join("users.db").display()),
        }
    }

    /// Returns everything that a copy of the database contains: for SQLite the raw files, including the write-ahead
    /// log.
    pub(crate) fn dump(&self) -> Vec<u8> {
        match self {
            Self::Postgres { .. } => {
                // Without the parameters, which only sqlx understands.
                let url = self.url();
                let url = url.split('?').next().unwrap();
                let dump = Command::new(postgres_binary("pg_dump"))
                    .arg(format!("--dbname={url}"))
                    .output()
                    .unwrap();
                assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
                dump.stdout
            }
            Self::Sqlite { folder } => {
                // Closing the last connection removes the write-ahead log; its content is then in the other files.
                loop {
                    let files = std::fs::read_dir(folder.path()).unwrap();
                    let files = files.map(|file| file.unwrap().path());
                    let of_database = files.filter(|file| file.to_string_lossy().contains("users.db"));
                    let read: Result<Vec<_>, _> = of_database.map(std::fs::read).collect();
                    match read {
                        Ok(files) => break files.concat(),
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                    }
                }
            }
        }
    }

    /// Runs a test's own statement.
    pub(crate) async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres { server, name, .. } => {
                on_server(&server.as_ref().clone().database(name), sql.to_owned()).await;
            }
            Self::Sqlite { .. } => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
                connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Removes the database, and disconnects its clients.
    pub(crate) async fn remove(self) {
        if let Self::Postgres { server, name, .. } = self {
            on_server(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }
}

async fn on_server(server: &PgConnectOptions, statement: String) {
    let mut connection: PgConnection = server.connect().await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

/// Finds a program of PostgreSQL: the newest of Debian's packages, or the one in the path.
fn postgres_binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let binaries = versions.map(|version| version.unwrap().path().join("bin").join(name));
    let newest = binaries
        .filter(|binary| binary.exists())
        .max_by_key(|binary| version_of(binary));
    newest.unwrap_or_else(|| PathBuf::from(name))
}

fn version_of(binary: &Path) -> u32 {
    let of_version = binary.iter().nth_back(2).and_then(|version| version.to_str());
    of_version.and_then(|version| version.parse().ok()).unwrap_or(0)
}
