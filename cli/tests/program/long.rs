//! Long-running commands: Ctrl-C, SIGTERM, and resuming.

use std::io::{BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Database, Place};

/// Waits until the child writes a line that contains `text`.
pub(crate) fn await_line(reader: &mut impl std::io::BufRead, text: &str) {
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        if line.contains(text) {
            return;
        }
        line.clear();
    }
    panic!("the program ended without saying {text:?}");
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Waits at most 20 seconds for the child to exit.
pub(crate) fn end_of(mut child: Child) -> Option<i32> {
    for _ in 0..1000 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("the program did not end");
}

#[test]
fn ctrl_c_ends_a_rewrap_in_order_and_the_next_goes_on() {
    for database in [Database::Sqlite, Database::Postgres] {
        let mut place = Place::new(database);
        for tenant in 0..8 {
            place.create(&format!("tenantId=t-{tenant}"));
        }
        let made = place
            .run(&["local", "add-kek", &place.path("keks.encx")])
            .expect(0);
        let new = made
            .stderr
            .split_whitespace()
            .find(|word| word.starts_with("local/"))
            .unwrap();
        let new = new.trim_end_matches(':').to_owned();
        place.env.insert("ENCX_ALSO_UNWRAP".to_owned(), new.clone());
        let rewrap = ["rewrap", "--to", &new, "--throttle", "2", "--format", "json"];
        let mut child = place
            .command(&rewrap)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        await_line(&mut stdout, "\"started\"");
        signal(&child, "INT");
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(end_of(child), Some(130), "{rest}");
        assert!(rest.contains("\"ended_by\":\"stopped\""), "{rest}");
        let report = place.ok(&["rewrap", "--to", &new]);
        assert!(report.starts_with("finished; "), "{report}");
        assert_eq!(
            place
                .ok(&["keys", "list", "--kek", &new, "--format", "json"])
                .lines()
                .count(),
            8
        );
    }
}

#[test]
fn sigterm_ends_the_daemon_in_order() {
    let mut place = Place::new(Database::Postgres);
    place
        .env
        .insert("ENCX_ROTATION_PUBLISH_DEADLINE".to_owned(), "1s".to_owned());
    place.create("tenantId=t-1");
    place.age(91);
    let daemon = ["maintain", "--interval", "1s"];
    let mut child = place.command(&daemon).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    await_line(&mut stderr, "until Ctrl-C or SIGTERM");
    let is_done = (0..150).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        place.run(&["keys", "needs-rotation"]).code == Some(0)
    });
    assert!(is_done, "the daemon rotated nothing");
    signal(&child, "TERM");
    await_line(&mut stderr, "ending, as told");
    assert_eq!(end_of(child), Some(0));
    // The daemon released its lease, so another starts at once.
    place.ok(&["maintain", "--once"]);
}

#[test]
fn the_status_is_shown_again_until_ctrl_c() {
    let place = Place::new(Database::Sqlite);
    let watch = ["status", "--watch=1s", "--format", "json"];
    let mut child = place.command(&watch).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    await_line(&mut stdout, "\"health\"");
    await_line(&mut stdout, "\"health\"");
    signal(&child, "INT");
    assert_eq!(end_of(child), Some(130));
}
