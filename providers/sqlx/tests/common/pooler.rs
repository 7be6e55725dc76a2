//! `PgBouncer` in transaction mode.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// A pooler in transaction mode in front of a server. Stopped when dropped.
pub(crate) struct Pooler {
    process: Child,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// Starts a pooler for a host, a port and a trusted user.
    pub(crate) fn start(server: &(String, u16, String)) -> Self {
        Self::start_with(server, "")
    }

    /// The same with further settings.
    pub(crate) fn start_with(server: &(String, u16, String), settings: &str) -> Self {
        for _ in 0..3 {
            if let Some(pooler) = Self::try_start(server, settings) {
                return pooler;
            }
        }
        panic!("pgbouncer does not start");
    }

    /// `None` if another process takes the free port first.
    fn try_start(server: &(String, u16, String), more: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let readable =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        readable(folder.path(), 0o755);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (host, server_port, user) = server;
        let (users, config) = (
            folder.path().join("users.txt"),
            folder.path().join("pgbouncer.ini"),
        );
        fs::write(&users, format!("\"{user}\" \"\"\n")).unwrap();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 3\n{more}",
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

/// PgBouncer refuses to run as root.
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
