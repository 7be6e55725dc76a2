//! Jobs over rows that are stopped, killed and shared: no row is processed twice or left out.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::long::{await_line, end_of, signal};
use crate::support::{Database, Place};
use crate::users::{self, fill, literal, update};

fn spawn(place: &Place, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = place
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

/// Reads to the end and returns the last line.
fn last(mut stdout: impl BufRead) -> Value {
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    serde_json::from_str(rest.lines().last().unwrap()).unwrap()
}

fn stopped_and_resumed(database: Database) {
    let place = Place::new(database);
    fill(&place, 5000);
    let text = literal(&place, b"123-45-6789");
    update(
        &place,
        &format!("UPDATE users SET ssn = {text} WHERE id IN (1, 4900)"),
    );
    let slow = ["verify", "--all", "--throttle", "500", "--format", "json"];
    let (child, mut stdout) = spawn(&place, &slow);
    await_line(&mut stdout, "\"progress\"");
    signal(&child, "INT");
    let report = last(stdout);
    assert_eq!(end_of(child), Some(130), "{report}");
    assert_eq!(report["complete"], false, "{report}");
    let before = report["looked_at"].as_u64().unwrap();
    assert!((1..5000).contains(&before), "{report}");
    let ran = place.run(&["verify", "--all", "--format", "json"]).expect(3);
    let first: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    // It continues after the first run, with that run's results.
    let begun = first["unchanged"].as_u64().unwrap() + first["failed"].as_u64().unwrap();
    assert_eq!(begun, before, "{first}");
    let report = last(ran.stdout.as_bytes());
    assert_eq!(
        (&report["looked_at"], &report["complete"]),
        (&5000.into(), &true.into())
    );
    let examples = &report["faults"]["plaintext"]["examples"];
    assert_eq!(examples.as_array().unwrap().len(), 2, "{report}");
    assert!(
        examples
            .as_array()
            .unwrap()
            .contains(&"users.ssn of row 1".into()),
        "{report}"
    );
}

#[test]
fn a_verification_that_is_stopped_goes_on_where_it_was_on_sqlite() {
    stopped_and_resumed(Database::Sqlite);
}

#[test]
fn a_verification_that_is_stopped_goes_on_where_it_was_on_postgres() {
    stopped_and_resumed(Database::Postgres);
}

fn killed_and_resumed(database: Database) {
    let place = Place::new(database);
    fill(&place, 900);
    for tenant in 0..3 {
        let context = format!("tenantId=t-{tenant}");
        place.ok(&["keys", "rotate", "-c", &context, "-c", "purpose=pii"]);
    }
    let slow = ["reencrypt", "--throttle", "200", "--format", "json"];
    let (mut child, mut stdout) = spawn(&place, &slow);
    await_line(&mut stdout, "\"progress\"");
    child.kill().unwrap();
    child.wait().unwrap();
    // The killed run's ranges are taken over when its claims expire, after half a minute.
    let report = last(place.ok(&["reencrypt", "--format", "json"]).as_bytes());
    assert_eq!(report["is_complete"], true, "{report}");
    let done = report["changed"].as_u64().unwrap() + report["unchanged"].as_u64().unwrap();
    assert_eq!(done, 900, "{report}");
    let census = place.ok(&["census", "--format", "json"]);
    let versions: Vec<Value> = census
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(versions.iter().all(|line| line["version"] == 2), "{census}");
    assert_eq!(users::opened(&place), 900);
}

#[test]
fn a_reencryption_that_is_killed_is_finished_by_the_next_on_sqlite() {
    killed_and_resumed(Database::Sqlite);
}

#[test]
fn a_reencryption_that_is_killed_is_finished_by_the_next_on_postgres() {
    killed_and_resumed(Database::Postgres);
}

fn two_at_once(database: Database) {
    let place = Place::new(database);
    fill(&place, 5000);
    for tenant in 0..3 {
        let context = format!("tenantId=t-{tenant}");
        place.ok(&["keys", "rotate", "-c", &context, "-c", "purpose=pii"]);
    }
    let slow = ["reencrypt", "--throttle", "1000", "--format", "json"];
    let (a, mut of_a) = spawn(&place, &slow);
    await_line(&mut of_a, "\"started\"");
    let (b, of_b) = spawn(&place, &slow);
    let worked = |stdout: &mut dyn BufRead| {
        let (mut text, mut worked) = (String::new(), 0);
        stdout.read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["event"] == "progress" {
                worked = line["changed"].as_u64().unwrap();
            }
        }
        worked
    };
    let other = std::thread::spawn(move || {
        let mut of_b = of_b;
        worked(&mut of_b)
    });
    let (by_a, by_b) = (worked(&mut of_a), other.join().unwrap());
    assert_eq!((end_of(a), end_of(b)), (Some(0), Some(0)));
    assert!(by_a > 0 && by_b > 0 && by_a + by_b == 5000, "{by_a} and {by_b}");
    assert_eq!(users::opened(&place), 5000);
}

#[test]
fn two_reencryptions_at_once_share_the_rows_on_sqlite() {
    two_at_once(Database::Sqlite);
}

#[test]
fn two_reencryptions_at_once_share_the_rows_on_postgres() {
    two_at_once(Database::Postgres);
}
