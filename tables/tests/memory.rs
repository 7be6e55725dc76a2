//! Peak memory of jobs over large values, measured on the whole process.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![cfg(target_os = "linux")]

#[path = "../../providers/sqlx/tests/common/mod.rs"]
mod common;

use encx::jobs::JobReport;
use encx::record::{EncryptedColumn, RowIdKind};
use encx::{Crypto, EncryptionContext};
use encx_tables::{Adoption, PlaintextColumn, Rows};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

/// The number of rows, and the size of each value in bytes.
const ROWS: i64 = 12;
const VALUE: u64 = 8 << 20;

/// A worker's default limit, and an allowance for the process: a driver's buffer copies the value of each
/// range in progress, and doubles as it grows. Without the limit the peak exceeded 250 MiB.
const BOUND: u64 = 64 << 20;
const BESIDES: u64 = 64 << 20;

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("tenantId", "t-1")]).unwrap()
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Runs a job over rows of one size, and asserts a limit on its peak memory.
async fn bounded(what: &str, size: u64, job: impl Future<Output = JobReport>) {
    // Resets the peak.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let report = job.await;
    assert!(report.is_complete(), "{what}: {report}");
    assert_eq!(
        report.run.changed + report.run.unchanged,
        ROWS.unsigned_abs(),
        "{what}"
    );
    let grown = status("VmHWM").saturating_sub(before);
    // A single row may exceed the limit.
    let most = BOUND.max(8 * size) + BESIDES;
    assert!(grown <= most, "{what}: {} MiB", grown >> 20);
}

async fn large_values(database: &str, rows: Rows) {
    let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
    let crypto = crypto.build().await.unwrap();
    let column = || {
        EncryptedColumn::new("files", "sealed")
            .row_id("id", RowIdKind::Integer)
            .context_value("tenantId", "t-1")
    };
    let until = Adoption::until("9999-12-31");
    let plain = PlaintextColumn::text("plain");
    let adoption = rows.adopt(&crypto, plain, column(), until).unwrap();
    let name = |job: &str| format!("{database}, {job}");
    bounded(&name("backfill"), VALUE, adoption.backfill().run()).await;
    crypto.key_manager().rotate(&context()).await.unwrap();
    let reencrypt = rows.reencrypt(&crypto, [column()]).unwrap();
    bounded(&name("re-encryption"), VALUE, reencrypt.run()).await;
    let verify = rows.verify(&crypto, [column()]).unwrap();
    bounded(&name("verification"), VALUE, verify.run()).await;
    bounded(&name("contraction"), 2 * VALUE, adoption.contract().run()).await;
}

/// Set in the measured process.
const CHILD: &str = "ENCX_TEST_MEMORY_CHILD";

/// Measures each database in its own process. Its allocator returns large blocks as soon as they are freed,
/// so resident memory is used memory.
fn measured(name: &str, test: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .env("MALLOC_ARENA_MAX", "1");
    let output = child.output().unwrap();
    let (printed, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{name}: {printed}{said}");
    // A name that matches no test runs nothing and succeeds.
    assert!(printed.contains("1 passed"), "{name}: {printed}{said}");
}

#[test]
fn on_sqlite_a_worker_has_no_more_than_its_bound_in_hand() {
    measured("on_sqlite_a_worker_has_no_more_than_its_bound_in_hand", on_sqlite);
}

#[test]
fn on_postgres_a_worker_has_no_more_than_its_bound_in_hand() {
    measured(
        "on_postgres_a_worker_has_no_more_than_its_bound_in_hand",
        on_postgres,
    );
}

fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("files.db"))
        .create_if_missing(true);
    encx_testkit::block_on(async {
        let pool = SqlitePoolOptions::new().max_connections(2);
        let pool = pool.connect_with(options).await.unwrap();
        for statement in [
            "CREATE TABLE files (id INTEGER PRIMARY KEY, plain TEXT, sealed BLOB)",
            "INSERT INTO files SELECT value, printf('%.*c', $1, 'x'), NULL FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12]')",
        ] {
            let statement = sqlx::query(statement).bind(i64::try_from(VALUE).unwrap());
            statement.execute(&pool).await.unwrap();
        }
        large_values("SQLite", Rows::sqlite(pool.clone())).await;
        pool.close().await;
    });
}

fn on_postgres() {
    common::postgres::on_a_database(|database| async move {
        let pool = database.pool().await;
        let create = "CREATE TABLE files (id bigint PRIMARY KEY, plain text, sealed bytea)";
        sqlx::query(create).execute(&pool).await.unwrap();
        let insert = "INSERT INTO files SELECT id, repeat('x', $1), NULL FROM generate_series(1, $2) id";
        let insert = sqlx::query(insert).bind(i32::try_from(VALUE).unwrap()).bind(ROWS);
        insert.execute(&pool).await.unwrap();
        large_values("PostgreSQL", Rows::postgres(pool)).await;
    });
}
