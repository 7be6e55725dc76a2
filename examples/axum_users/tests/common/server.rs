//! A PostgreSQL server per test, which the test can stop and restart.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// The programs of PostgreSQL.
const PROGRAMS: &str = "ENCX_TEST_POSTGRES_BIN";

/// PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// A server that runs until it is stopped or dropped.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Server {
    pub(crate) fn start_new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        if is_root() {
            mode(folder.path(), 0o711);
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        mode(&data, 0o700);
        let made = program("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = Self {
            folder,
            port,
            process: None,
        };
        server.start();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it on the same data and port, and waits until it accepts connections.
    pub(crate) fn start(&mut self) {
        let process = program("postgres")
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let began = Instant::now();
        while !self.is_ready() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "PostgreSQL does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let port = self.port.to_string();
        let asked = program("pg_isready")
            .args(["-q", "-h", "127.0.0.1", "-p", &port])
            .status();
        asked.unwrap().success()
    }

    /// Ends it and all its connections at once.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let data = self.folder.path().join("data");
        let stopped = program("pg_ctl")
            .args(["-m", "immediate", "-w", "stop", "-D"])
            .arg(data)
            .output();
        if !stopped.is_ok_and(|stopped| stopped.status.success()) {
            process.kill().unwrap_or_default();
        }
        process.wait().map(drop).unwrap_or_default();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program(name: &str) -> Command {
    let Some(programs) = std::env::var_os(PROGRAMS) else {
        panic!("{PROGRAMS} is not set: run ./scripts/test, which provides what the tests need");
    };
    let mut command = Command::new(PathBuf::from(programs).join(name));
    command.current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}
