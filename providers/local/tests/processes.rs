//! Several processes, one file: nothing is lost, also when one is killed while writing.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use encx::kms::{DataKey, KeyManagementService};
use encx_local::{LocalKms, LocalKmsError, Protection};
use encx_testkit::block_on;

mod common;
use common::{context, insecure};

const FILE: &str = "ENCX_LOCAL_TEST_FILE";
const KEY: &str = "ENCX_LOCAL_TEST_KEY";

/// Runs one of the ignored tests below in a child process.
fn child(test: &str, file: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped());
    command
}

/// Returns the file that the parent chose; `None` if all ignored tests are run directly.
fn chosen_file() -> Option<PathBuf> {
    env::var_os(FILE).map(PathBuf::from)
}

/// Reads a child's output until `n` lines, or its end.
fn listen(child: &mut Child, n: usize) -> Vec<String> {
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    said.map_while(Result::ok)
        .filter_map(|line| line.split_once("done=").map(|(_, what)| what.to_owned()))
        .take(n)
        .collect()
}

fn say(what: &str) {
    // In one write, so that a line is complete or absent.
    std::io::stdout()
        .write_all(format!("\ndone={what}\n").as_bytes())
        .unwrap();
}

#[test]
#[ignore = "other tests start it in processes of their own"]
fn child_creates_keks() {
    let Some(file) = chosen_file() else { return };
    block_on(async {
        let kms = LocalKms::open_or_create(file, insecure()).await.unwrap();
        for _ in 0..20 {
            let kek = kms.create_kek().await.unwrap();
            let alias = format!("alias/{}", kek.as_str().replace('/', "-"));
            kms.create_alias(&alias, &kek).await.unwrap();
            say(kek.as_str());
        }
    });
}

#[test]
fn two_processes_that_write_at_once_lose_no_kek() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keks");
    let mut children: Vec<_> = (0..3)
        .map(|_| child("child_creates_keks", &file).spawn().unwrap())
        .collect();
    let mut created = Vec::new();
    for child in &mut children {
        created.extend(listen(child, usize::MAX));
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(created.len(), 60);
    let listed = block_on(async {
        let kms = LocalKms::open(&file, insecure()).await.unwrap();
        kms.list_keks().await.unwrap()
    });
    assert_eq!(listed.len(), 61);
    for kek in created {
        let found = listed.iter().find(|found| found.kek.as_str() == kek);
        assert_eq!(found.unwrap().aliases.len(), 1, "{kek} lost its alias");
    }
}

#[test]
#[ignore = "other tests start it in processes of their own"]
fn child_rotates_until_it_is_killed() {
    let Some(file) = chosen_file() else { return };
    block_on(async {
        let kms = LocalKms::open(file, insecure()).await.unwrap();
        let kek = kms.default_kek().unwrap();
        loop {
            say(&kms.rotate_kek(kek).await.unwrap());
        }
    });
}

#[test]
fn a_writer_that_is_killed_leaves_a_file_with_all_it_was_told_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keks");
    let kms = block_on(LocalKms::create(&file, insecure())).unwrap();
    let kek = kms.default_kek().unwrap();
    let (context, mut kept) = (context(), Vec::new());
    let made = block_on(kms.generate_data_key(kek, &context)).unwrap();
    for round in 0..20 {
        let mut child = child("child_rotates_until_it_is_killed", &file).spawn().unwrap();
        // Killed right after a line of output, so always in or near the next replacement.
        kept.extend(listen(&mut child, 1 + round % 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let listed = block_on(async {
            let opened = LocalKms::open(&file, insecure()).await.unwrap();
            let key = opened.unwrap_key(&made.wrapped, &context).await.unwrap();
            assert_eq!(key.expose(), made.key.expose());
            opened.list_keks().await.unwrap()
        });
        assert!(kept.iter().all(|material| listed[0].materials.contains(material)));
    }
    // A killed process holds no lock, and its leftovers do not block others.
    block_on(kms.rotate_kek(kek)).unwrap();
    assert!(!folder.path().join("keks.tmp").exists());
}

#[test]
#[ignore = "other tests start it in processes of their own"]
fn child_opens_by_a_key_from_its_environment() {
    let Some(file) = chosen_file() else { return };
    say(
        match block_on(LocalKms::open(file, Protection::key_from_env(KEY))) {
            Ok(_) => "opened",
            Err(LocalKmsError::WrongKey { .. }) => "wrong",
            Err(error @ LocalKmsError::Key { .. }) if error.to_string().contains(KEY) => "refused",
            Err(_) => "another error",
        },
    );
}

#[test]
fn a_key_from_the_environment_opens_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keks");
    let key = DataKey::copy_from(&[0x5a; 32]).unwrap();
    block_on(LocalKms::create(&file, Protection::key(key))).unwrap();
    for (key, said) in [
        (Some("5a".repeat(32)), "opened"),
        (
            Some("WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=".to_owned()),
            "opened",
        ),
        (Some("5b".repeat(32)), "wrong"),
        (Some("5a".repeat(16)), "refused"),
        (None, "refused"),
    ] {
        let mut command = child("child_opens_by_a_key_from_its_environment", &file);
        command.envs(key.iter().map(|key| (KEY, key)));
        let mut child = command.spawn().unwrap();
        assert_eq!(listen(&mut child, usize::MAX), [said]);
        child.wait().unwrap();
    }
}
