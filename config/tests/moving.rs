//! The README's steps from `local:` to `aws-kms:`, performed only through variables of a process.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use encx_local::{LocalKms, Protection};
use sqlx::sqlite::SqlitePool;

/// Returns the address of the KMS server that `./scripts/test` starts. Without one the test fails; it is never skipped.
fn kms_server() -> String {
    std::env::var("ENCX_TEST_KMS_URL")
        .expect("ENCX_TEST_KMS_URL is not set: run the tests with ./scripts/test, which starts a KMS server")
}

/// Creates a KEK as an administrator would, and returns its ARN.
async fn create_key() -> String {
    use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new(
            "AKIDEXAMPLE",
            "not-a-secret",
            None,
            None,
            "tests",
        ))
        .endpoint_url(kms_server());
    let client = aws_sdk_kms::Client::from_conf(config.build());
    let made = client.create_key().send().await.unwrap();
    made.key_metadata.unwrap().arn.unwrap()
}

/// Returns the path of the example, which Cargo builds before its tests.
fn example() -> PathBuf {
    // target/debug/deps/this-test -> target/debug/examples/notes
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/notes");
    assert!(
        path.exists(),
        "{} is not built: `cargo test -p encx-config` builds it",
        path.display()
    );
    path
}

struct Service {
    folder: PathBuf,
    env: BTreeMap<&'static str, String>,
}

impl Service {
    async fn run(&self, what: &str) -> Result<String, String> {
        let mut command = Command::new(example());
        command
            .arg(what)
            .current_dir(&self.folder)
            .env_clear()
            .envs(&self.env);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }
}

/// Counts the wraps by KMS name.
async fn wraps(folder: &Path) -> BTreeMap<String, i64> {
    let pool = SqlitePool::connect(&format!("sqlite:{}", folder.join("app.db").display()))
        .await
        .unwrap();
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT kms, count(*) FROM encx_wrapped_keys GROUP BY kms")
        .fetch_all(&pool)
        .await
        .unwrap();
    pool.close().await;
    rows.into_iter().collect()
}

fn counts<const N: usize>(wraps: [(&str, i64); N]) -> BTreeMap<String, i64> {
    wraps.map(|(kms, count)| (kms.to_owned(), count)).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_variable_and_a_rewrap_move_all_keys_from_the_file_to_aws() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("passphrase"), "correct horse\n").unwrap();
    std::fs::set_permissions(at("passphrase"), std::fs::Permissions::from_mode(0o600)).unwrap();
    LocalKms::create(at("keks.encx"), Protection::passphrase("correct horse"))
        .await
        .unwrap();
    let kek = create_key().await;

    // Before.
    let mut service = Service {
        folder: folder.path().to_owned(),
        env: BTreeMap::from([
            ("ENCX_KMS", "local:keks.encx".to_owned()),
            ("ENCX_KEK_PASSPHRASE_FILE", "passphrase".to_owned()),
            ("ENCX_KEY_STORE", "sqlite:app.db".to_owned()),
        ]),
    };
    assert_eq!(service.run("write").await.unwrap(), "wrote 40 notes\n");
    assert_eq!(wraps(folder.path()).await, counts([("default", 10)]));

    // Step 1: AWS wraps nothing yet, and every process can unwrap its wraps.
    let aws = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL_KMS", kms_server()),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("ENCX_KMS_AWS", format!("aws-kms:{kek}")),
        ("ENCX_ALSO_UNWRAP", "aws:".to_owned()),
    ];
    service.env.extend(aws);
    assert_eq!(service.run("read").await.unwrap(), "read 40 notes\n");
    let step_1 = service.env.clone();

    // A process that may not unwrap what the file's KEK wrapped refuses to start.
    service.env.remove("ENCX_KMS_AWS");
    service.env.remove("ENCX_ALSO_UNWRAP");
    service.env.insert("ENCX_KMS", format!("aws=aws-kms:{kek}"));
    let refused = service.run("read").await.unwrap_err();
    assert!(refused.contains("KEK"), "{refused}");

    // Step 2: AWS wraps, and the file's KEK may still unwrap.
    service
        .env
        .insert("ENCX_KMS_DEFAULT", "local:keks.encx".to_owned());
    service.env.insert("ENCX_ALSO_UNWRAP", "default:".to_owned());
    assert_eq!(service.run("read").await.unwrap(), "read 40 notes\n");
    // Step 3.
    assert_eq!(service.run("rewrap").await.unwrap(), "moved 10 keys, 0 failed\n");
    assert_eq!(service.run("rewrap").await.unwrap(), "moved 0 keys, 0 failed\n");
    assert_eq!(wraps(folder.path()).await, counts([("aws", 10)]));

    // A process that step 2 has not reached can still read.
    let step_2 = std::mem::replace(&mut service.env, step_1);
    assert_eq!(service.run("read").await.unwrap(), "read 40 notes\n");
    service.env = step_2;

    // Step 4: without the file.
    for variable in ["ENCX_KMS_DEFAULT", "ENCX_ALSO_UNWRAP", "ENCX_KEK_PASSPHRASE_FILE"] {
        service.env.remove(variable);
    }
    std::fs::remove_file(at("keks.encx")).unwrap();
    std::fs::remove_file(at("passphrase")).unwrap();
    assert_eq!(service.run("read").await.unwrap(), "read 40 notes\n");
    assert_eq!(service.run("write").await.unwrap(), "wrote 40 notes\n");
    assert_eq!(wraps(folder.path()).await, counts([("aws", 10)]));
}
