//! The move from the local provider to AWS, also when killed halfway.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::query_scalar;
use sqlx::sqlite::SqlitePool;

use crate::common::proxy::Proxy;
use crate::common::{HOME, create_key};

fn example(folder: &Path, url: &str, kek: &str, mode: &str) -> Command {
    let mut command = Command::new(common::example("migrate_local_to_aws"));
    command
        .arg(folder)
        .arg(mode)
        .env("AWS_REGION", HOME)
        .env("AWS_KMS_KEY_ID", kek)
        .env("AWS_ENDPOINT_URL_KMS", url)
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

async fn run(folder: &Path, url: &str, kek: &str, mode: &str) -> String {
    let mut command = example(folder, url, kek, mode);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Counts the wraps in the database by their KMS.
async fn wraps(folder: &Path, kms: &str) -> i64 {
    let url = format!("sqlite://{}", folder.join("app.db").display());
    let pool = SqlitePool::connect(&url).await.unwrap();
    let count = query_scalar("SELECT count(*) FROM encx_wrapped_keys WHERE kms = ?").bind(kms);
    let count = count.fetch_one(&pool).await.unwrap();
    pool.close().await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_killed_halfway_is_finished_by_the_next() {
    let (folder, proxy) = (tempfile::tempdir().unwrap(), Proxy::start().await);
    let (path, kek) = (folder.path(), create_key(HOME).await);
    run(path, proxy.url(), kek.as_str(), "fill").await;
    let all = wraps(path, "default").await;
    assert!(all > 20, "{all} versions are too few to stop among them");
    proxy.expect("the local provider makes no calls", &[]);

    proxy.forward_only(Some(12));
    let mut child = example(path, proxy.url(), kek.as_str(), "move")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = tokio::time::timeout(Duration::from_secs(60), async {
        while !proxy.is_stalled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    until.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (left, moved) = (wraps(path, "default").await, wraps(path, "aws").await);
    assert!(
        left > 0 && moved > 0 && left + moved == all,
        "{left} left, {moved} moved"
    );

    proxy.forward_only(None);
    let said = run(path, proxy.url(), kek.as_str(), "move").await;
    assert!(said.contains(&format!("moved {left} versions")), "{said}");
    assert_eq!((wraps(path, "default").await, wraps(path, "aws").await), (0, all));
    let again = run(path, proxy.url(), kek.as_str(), "move").await;
    assert!(again.contains("moved 0 versions"), "{again}");

    // With AWS alone.
    std::fs::remove_file(path.join("keks.encx")).unwrap();
    let said = run(path, proxy.url(), kek.as_str(), "read").await;
    assert!(said.contains("read 40 rows"), "{said}");
}
