//! A folder with KEKs and settings, and the program run in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// The key store's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Postgres,
    Sqlite,
}

/// Runs a test on both databases.
pub(crate) fn on_both(test: impl Fn(Place)) {
    for database in [Database::Sqlite, Database::Postgres] {
        test(Place::new(database));
    }
}

/// A folder with a file of local KEKs, a database, and the settings for both.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) database: Database,
    /// The database on the tests' server, dropped with the place.
    on_server: Option<String>,
}

impl Place {
    /// Creates everything but the tables.
    pub(crate) fn bare(database: Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (url, on_server) = match database {
            Database::Sqlite => (
                format!("sqlite:{}?mode=rwc", folder.path().join("keys.db").display()),
                None,
            ),
            Database::Postgres => {
                let name = new_name();
                let server = server();
                run_sql(&server, &format!("CREATE DATABASE {name}"));
                (replace_database(&server, &name), Some(name))
            }
        };
        let place = Self {
            env: BTreeMap::from([
                (
                    "ENCX_KMS".to_owned(),
                    format!("local:{}", folder.path().join("keks.encx").display()),
                ),
                ("ENCX_KEY_STORE".to_owned(), url),
                (
                    "ENCX_KEK_KEY_FILE".to_owned(),
                    folder.path().join("kek.key").display().to_string(),
                ),
            ]),
            folder,
            database,
            on_server,
        };
        place.write_private("kek.key", &"5a".repeat(32));
        place.ok(&["local", "init", &place.path("keks.encx")]);
        place
    }

    /// Creates everything.
    pub(crate) fn new(database: Database) -> Self {
        let place = Self::bare(database);
        place.ok(&["migrate", "run"]);
        place
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a file that only this user can read.
    pub(crate) fn write_private(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_encx"));
        command
            .args(args)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::new(args, self.command(args).output().unwrap())
    }

    /// Runs the program, which must succeed, and returns its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).expect(0).stdout
    }

    /// Creates the first key of a context and returns its id.
    pub(crate) fn create(&self, context: &str) -> String {
        id_of(&self.ok(&["keys", "create", "--context", context, "--format", "json"]))
    }

    /// Changes the key store's database directly.
    pub(crate) fn sql(&self, on_postgres: &str, on_sqlite: &str) {
        let url = &self.env["ENCX_KEY_STORE"];
        match self.database {
            Database::Postgres => run_sql(url, on_postgres),
            Database::Sqlite => run_sql(url, on_sqlite),
        }
    }

    /// Makes all versions older by this many days.
    pub(crate) fn age(&self, days: u32) {
        self.sql(
            &format!("UPDATE encx.data_keys SET activated_at = activated_at - interval '{days} days'"),
            &format!("UPDATE encx_data_keys SET activated_at = activated_at - {days} * 86400000000"),
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = &self.on_server {
            run_sql(&server(), &format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

/// A run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    args: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn new(args: &[&str], output: Output) -> Self {
        Self {
            args: args.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let Self {
            args, stdout, stderr, ..
        } = &self;
        assert_eq!(self.code, Some(code), "encx {args}\n{stdout}\n{stderr}");
        self
    }

    /// Fails unless stderr contains this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "encx {}\n{}", self.args, self.stderr);
        self
    }
}

/// Returns the field `id` of a JSON object.
pub(crate) fn id_of(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["id"].as_str().unwrap().to_owned()
}

/// Replaces what differs from run to run with text of the same length. Ids are numbered in order of appearance.
pub(crate) fn stable(text: &str) -> String {
    let (mut ids, mut stable): (Vec<&str>, String) = (Vec::new(), String::new());
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(id) = rest.get(..36).filter(|id| is_uuid(id)) {
            let number = ids.iter().position(|known| *known == id).unwrap_or(ids.len());
            if number == ids.len() {
                ids.push(id);
            }
            stable += &format!("00000000-0000-0000-0000-{number:012}");
            rest = &rest[36..];
        } else if let Some(at) = rest.get(..20).filter(|at| is_moment(at)) {
            stable += "YYYY-MM-DDThh:mm:ssZ";
            rest = &rest[at.len()..];
        } else {
            let mut chars = rest.chars();
            stable.extend(chars.next());
            rest = chars.as_str();
        }
    }
    stable
}

fn is_uuid(text: &str) -> bool {
    let is_fit = |(at, c): (usize, char)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.chars().enumerate().all(is_fit)
}

fn is_moment(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00Z"
}

/// Returns the address of the PostgreSQL server that `./scripts/test` starts. Without one, the test fails instead
/// of being skipped.
fn server() -> String {
    std::env::var("ENCX_TEST_POSTGRES_URL")
        .expect("ENCX_TEST_POSTGRES_URL is not set: run the tests with ./scripts/test, which starts a server")
}

fn new_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("encx_cli_{}_{number}", std::process::id())
}

fn replace_database(server: &str, name: &str) -> String {
    let (before, query) = server
        .split_once('?')
        .map_or((server, None), |(a, b)| (a, Some(b)));
    let (host, _) = before.rsplit_once('/').unwrap();
    match query {
        Some(query) => format!("{host}/{name}?{query}"),
        None => format!("{host}/{name}"),
    }
}

pub(crate) fn run_sql(url: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let sql = AssertSqlSafe(sql.to_owned());
        if url.starts_with("sqlite") {
            SqliteConnection::connect(url)
                .await
                .unwrap()
                .execute(sql)
                .await
                .unwrap();
        } else {
            PgConnection::connect(url)
                .await
                .unwrap()
                .execute(sql)
                .await
                .unwrap();
        }
    });
}
