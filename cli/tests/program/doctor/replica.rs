//! A standby that streams from the key store's server and falls behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use super::{Ward, grants};
use crate::server::{NOBODY, PROGRAMS, as_server, free_port, is_root, variable};
use crate::support::{Database, Place, run_sql};

/// A server of its own with a standby. Stopped when dropped.
struct Pair {
    servers: Vec<Child>,
    primary: u16,
    standby: u16,
    folder: TempDir,
}

impl Pair {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("encx-replica").tempdir().unwrap();
        // The servers do not run as root.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let mut pair = Self {
            servers: Vec::new(),
            primary: free_port(),
            standby: free_port(),
            folder,
        };
        pair.set_clock("+0");
        let data = pair.data("primary");
        let auth = [
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ];
        done(as_server(&program("initdb")).args(auth).arg(&data));
        // Its clock is this machine's, as far as `set_clock` does not say otherwise.
        let mut primary = as_server(Path::new("env"));
        // Only for the server: what changes the user before it still runs as root.
        primary
            .arg(format!("LD_PRELOAD={}", faketime()))
            .arg(format!(
                "FAKETIME_TIMESTAMP_FILE={}",
                pair.folder.path().join("clock").display()
            ))
            .args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"])
            .arg(program("postgres"))
            .args(["-c", "wal_sender_timeout=0"]);
        pair.serve(primary, &data, pair.primary);

        let data = pair.data("standby");
        let port = pair.primary.to_string();
        let from = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let how = ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-D"];
        done(
            as_server(&program("pg_basebackup"))
                .args(from)
                .args(how)
                .arg(&data),
        );
        let mut standby = as_server(&program("postgres"));
        standby.args([
            "-c",
            "wal_receiver_status_interval=1s",
            "-c",
            "cluster_name=mirror",
        ]);
        pair.serve(standby, &data, pair.standby);
        pair
    }

    /// Shifts the primary's clock.
    fn set_clock(&self, offset: &str) {
        let clock = self.folder.path().join("clock");
        fs::write(&clock, offset).unwrap();
        fs::set_permissions(&clock, Permissions::from_mode(0o644)).unwrap();
    }

    fn data(&self, name: &str) -> PathBuf {
        let data = self.folder.path().join(name);
        fs::create_dir(&data).unwrap();
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
        data
    }

    /// Starts a server and waits until it answers.
    fn serve(&mut self, mut server: Command, data: &Path, port: u16) {
        let log = fs::File::create(data.with_extension("log")).unwrap();
        let port_is = format!("port={port}");
        for setting in [
            &port_is[..],
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
        ] {
            server.args(["-c", setting]);
        }
        server
            .arg("-D")
            .arg(data)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.servers.push(server.spawn().unwrap());
        let answers = || block_on(async { PgConnection::connect(&url(port, "postgres")).await.is_ok() });
        assert!(
            in_time(answers),
            "{}",
            fs::read_to_string(data.with_extension("log")).unwrap()
        );
    }

    /// Queries the primary.
    fn is(&self, query: &str) -> bool {
        holds(self.primary, query)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let pid = Pid::from_raw(server.id().try_into().unwrap()).unwrap();
            // It may have failed before.
            let _ = kill_process(pid, Signal::QUIT);
            let _ = server.wait();
            // What faketime shares among the primary's processes.
            for shared in ["faketime_shm_", "sem.faketime_sem_"] {
                drop(fs::remove_file(format!("/dev/shm/{shared}{}", server.id())));
            }
        }
    }
}

fn program(name: &str) -> PathBuf {
    PathBuf::from(variable(PROGRAMS)).join(name)
}

/// Returns the library with which the program `faketime` shifts clocks.
fn faketime() -> String {
    let asked = Command::new("faketime")
        .args(["-f", "+0", "printenv", "LD_PRELOAD"])
        .output();
    let output = asked
        .expect("faketime is needed: run ./scripts/test, which installs it, or `apt-get install faketime`");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn done(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// Waits at most 30 seconds.
fn in_time(mut holds: impl FnMut() -> bool) -> bool {
    (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        holds()
    })
}

fn holds(port: u16, query: &str) -> bool {
    block_on(async {
        let mut connection = PgConnection::connect(&url(port, "postgres")).await.unwrap();
        let answer: Option<bool> = sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        answer == Some(true)
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

#[test]
fn a_standby_that_is_minutes_behind() {
    let pair = Pair::start();
    let admin = url(pair.primary, "keys");
    run_sql(&url(pair.primary, "postgres"), "CREATE DATABASE keys");
    let mut place = Place::bare(Database::Sqlite);
    place.database = Database::Postgres;
    place.env.insert("ENCX_KEY_STORE".to_owned(), admin.clone());
    place.ok(&["migrate", "run"]);
    run_sql(&admin, &format!("CREATE ROLE app LOGIN; {}", grants("app")));
    let of_app = admin.replace("postgres@", "app@");
    place.env.insert("ENCX_KEY_STORE".to_owned(), of_app);
    let ward = Ward {
        place,
        admin: admin.clone(),
        _role: None,
    };
    ward.place.create("tenantId=t-1");
    let follows = "SELECT bool_and(state = 'streaming' AND replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication";
    assert!(in_time(|| pair.is(follows)), "the standby does not follow");

    // Without the right to see it, it is not known to be well.
    let not_checked = ward.finds(&[]).not_checked();
    assert!(
        matches!(not_checked.as_slice(), [one] if one.contains("how far mirror is behind: grant this role pg_monitor")),
        "{not_checked:?}"
    );
    run_sql(&admin, "GRANT pg_monitor TO app");
    ward.finds(&[]).checked_all();

    // It receives what the primary writes, and applies nothing of it for two minutes of the primary's clock.
    run_sql(&url(pair.standby, "postgres"), "SELECT pg_wal_replay_pause()");
    let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
    assert!(in_time(|| holds(pair.standby, paused)), "replay does not pause");
    ward.place.create("tenantId=t-2");
    pair.set_clock("+120");
    let is_behind = "SELECT bool_and(replay_lag > interval '1 minute') FROM pg_stat_replication";
    assert!(in_time(|| pair.is(is_behind)), "the standby is not behind");
    // This program's clock is the primary's.
    ward.finds_at("+120", &[("replica-lag", "warning")])
        .says("standby mirror")
        .says("seconds behind: if it is promoted")
        .checked_all();
}
