//! A private PostgreSQL server for these tests, to kill and restart; and databases on it and on the shared one.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;

/// The folder of PostgreSQL's programs.
pub(crate) const PROGRAMS: &str = "ENCX_TEST_POSTGRES_BIN";
/// The server that tests do not kill.
const SHARED: &str = "ENCX_TEST_POSTGRES_URL";

/// Returns the address of the server that tests do not kill. Its user may create databases.
pub(crate) fn shared() -> PgConnectOptions {
    PgConnectOptions::from_str(&variable(SHARED)).unwrap()
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run ./scripts/test, which provides what the tests need")
    })
}

/// The private server. The holder has it exclusively, and may kill it.
pub(crate) struct Server(MutexGuard<'static, Keeper>);

static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();

impl Server {
    /// Waits for the private server, and starts it if it is not running.
    pub(crate) fn take() -> Self {
        let keeper = KEEPER.get_or_init(|| Mutex::new(Keeper::begin()));
        // A test that panicked may have left it dead.
        let keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.ask(Order::Start);
        Self(keeper)
    }

    pub(crate) fn address(&self) -> PgConnectOptions {
        PgConnectOptions::new()
            .host("127.0.0.1")
            .port(self.0.port)
            .username("postgres")
            .database("postgres")
    }

    /// Kills the server and all its processes with -9, as when its machine loses power.
    pub(crate) fn kill(&self) {
        self.0.ask(Order::Kill);
    }

    /// Restarts the server on the same data and port, and waits until it has recovered.
    pub(crate) fn start(&self) {
        self.0.ask(Order::Start);
    }

    /// Restarts the server as a read-only standby, and waits until it is ready.
    pub(crate) fn start_standby(&self) {
        self.0.ask(Order::StartStandby);
    }
}

/// Stops the private server and removes its data.
pub(crate) fn stop() {
    if let Some(keeper) = KEEPER.get() {
        let keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.ask(Order::Kill);
        drop(fs::remove_dir_all(&keeper.folder));
    }
}

enum Order {
    Kill,
    Start,
    StartStandby,
}

/// Sends orders to the thread that is the server's parent. That thread lives on: the kernel kills the server when the
/// thread that started it ends, so that nothing remains if this process is killed.
struct Keeper {
    port: u16,
    folder: PathBuf,
    orders: Mutex<Sender<(Order, Sender<()>)>>,
}

impl Keeper {
    fn begin() -> Self {
        let programs = PathBuf::from(variable(PROGRAMS));
        let folder = tempfile::Builder::new()
            .prefix("encx-faults")
            .tempdir()
            .unwrap()
            .keep();
        let port = free_port();
        let data = folder.join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            // PostgreSQL refuses to run as root.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let mut initdb = as_server(&programs.join("initdb"));
        initdb.args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ]);
        let output = initdb.arg(&data).current_dir("/").output().unwrap();
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (orders, received) = channel();
        let keep = Keep {
            program: programs.join("postgres"),
            data,
            log: folder.join("log"),
            port,
            server: None,
        };
        std::thread::spawn(move || keep.serve(&received));
        Self {
            port,
            folder,
            orders: Mutex::new(orders),
        }
    }

    /// Sends an order, and waits until it is carried out.
    fn ask(&self, order: Order) {
        let (done, wait) = channel();
        self.orders.lock().unwrap().send((order, done)).unwrap();
        wait.recv().expect("the server's keeper carries out orders");
    }
}

/// The thread that is the server's parent.
struct Keep {
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Keep {
    fn serve(mut self, orders: &Receiver<(Order, Sender<()>)>) {
        while let Ok((order, done)) = orders.recv() {
            match order {
                Order::Kill => self.kill(),
                Order::Start => self.start(false),
                Order::StartStandby => self.start(true),
            }
            // The sender of the order may have given up.
            let _ = done.send(());
        }
    }

    fn start(&mut self, standby: bool) {
        let signal = self.data.join("standby.signal");
        if self.server.is_some() && signal.exists() == standby {
            return;
        }
        self.kill();
        if standby {
            fs::write(&signal, "").unwrap();
        } else {
            drop(fs::remove_file(&signal));
        }
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log)
            .unwrap();
        let mut server = as_server(&self.program);
        server.arg("-D").arg(&self.data).current_dir("/");
        let port = format!("port={}", self.port);
        // It survives kills, not crashes of its machine, so nothing needs to reach the disk.
        for setting in [
            &port[..],
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=200",
            "max_prepared_transactions=10",
        ] {
            server.args(["-c", setting]);
        }
        server
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let server = self.server.insert(server.spawn().unwrap()).id().to_string();
        let file = self.data.join("postmaster.pid");
        // The first line names the server, which may still be the killed one; the eighth tells whether it is ready.
        let is_ready = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            lines.first() == Some(&&*server) && lines.get(7) == Some(&"ready")
        };
        for _ in 0..6000 {
            if is_ready() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!(
            "the server did not start: {}",
            fs::read_to_string(&self.log).unwrap()
        );
    }

    fn kill(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let children = format!("/proc/{0}/task/{0}/children", server.id());
        let mut list = String::new();
        fs::File::open(children)
            .unwrap()
            .read_to_string(&mut list)
            .unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        for child in list.split_whitespace().map(|pid| pid.parse().unwrap()) {
            // Some end by themselves when their parent is gone.
            let _ = kill_process(Pid::from_raw(child).unwrap(), Signal::KILL);
        }
        // A remaining process keeps the shared memory, and then no new server starts.
        while list.split_whitespace().any(is_postgres) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_postgres(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.contains("(postgres)") && !stat.contains(") Z ")
}

/// Debian's user and group `nobody`.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts a program as a user other than root. The kernel kills it when the thread that started it ends.
pub(crate) fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args([
            format!("--reuid={NOBODY}"),
            format!("--regid={NOBODY}"),
            "--clear-groups".to_owned(),
        ]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(program);
    command
}

/// Another process may take the port before it is used; that failure says so.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
