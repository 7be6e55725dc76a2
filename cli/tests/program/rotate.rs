//! `encx rotate --everything`: it is done only when nothing is left, despite faults and kills.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::sealed::{SSN, add_rows, add_silent_process, create_table, forget_processes, number};
use crate::support::{Database, Place, Ran, on_both};

const ROTATE: [&str; 4] = ["rotate", "--everything", "--because", "an operator left"];

fn rotate(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&ROTATE[..], more].concat())
}

fn with_users(place: &Place, rows: i64, tenants: i64) {
    place.write_private("encx.toml", SSN);
    create_table(place, "users");
    add_rows(place, "users", 0..rows, tenants);
}

/// Counts the versions of each context.
fn versions(place: &Place) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in place.ok(&["keys", "list", "--all", "--format", "json"]).lines() {
        let version: Value = serde_json::from_str(line).unwrap();
        *counts.entry(version["context"].to_string()).or_default() += 1;
    }
    counts
}

fn assert_versions(place: &Place, contexts: usize, each: usize) {
    let found = versions(place);
    assert_eq!(found.len(), contexts, "{found:?}");
    assert!(found.values().all(|count| *count == each), "{found:?}");
}

/// Counts the rows that are not under an active version.
fn old_rows(place: &Place, table: &str) -> i64 {
    number(
        place,
        &format!(
            "SELECT count(*) FROM {table} WHERE {{key}} NOT IN (SELECT uuid_send(id) FROM encx.data_keys WHERE state = 'active')"
        ),
        &format!(
            "SELECT count(*) FROM {table} WHERE {{key}} NOT IN (SELECT id FROM encx_data_keys WHERE state = 'active')"
        ),
    )
}

#[test]
fn every_context_is_rotated_once_and_no_row_is_left() {
    on_both(|place| {
        with_users(&place, 30, 3);
        assert_versions(&place, 3, 1);
        let planned = rotate(&place, &["--dry-run"]).expect(0).says("stage 2 of 6");
        assert!(planned.stdout.contains("3 changed"), "{}", planned.stdout);
        assert_versions(&place, 3, 1);

        let done = rotate(&place, &[])
            .expect(0)
            .says("stage 5 of 6")
            .says("3 old versions are used by no row");
        assert!(
            done.stdout.contains("done: every context was rotated"),
            "{}",
            done.stdout
        );
        assert!(done.stdout.contains("encx keys destroy "), "{}", done.stdout);
        assert_versions(&place, 3, 2);
        assert_eq!(old_rows(&place, "users"), 0);
        assert!(place.ok(&["audit", "export"]).contains("an operator left"));

        // The next run begins another rotation.
        let events = rotate(&place, &["--format", "json"]).expect(0).stdout;
        let events: Vec<Value> = events
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let stages: Vec<_> = events
            .iter()
            .filter(|event| event["event"] == "stage")
            .map(|event| event["number"].as_u64().unwrap())
            .collect();
        assert_eq!(stages, [1, 2, 3, 4, 5, 6]);
        let old: Vec<_> = events
            .iter()
            .filter(|event| event["event"] == "old_version")
            .collect();
        assert_eq!(old.len(), 6);
        assert!(
            old.iter().all(|event| event["may_be_destroyed"] == true),
            "{old:?}"
        );
        assert_eq!(events.last().unwrap()["done"], true);
        assert_versions(&place, 3, 3);
        assert_eq!(old_rows(&place, "users"), 0);
    });
}

/// A rotation with a fault is not done and says why. Once the fault is fixed, the same rotation continues.
fn is_not_done(place: &Place, because: &str, put_right: impl FnOnce(&Place)) {
    let refused = rotate(place, &[]).expect(3);
    assert!(
        refused.stdout.contains("not done: ") && refused.stdout.contains(because),
        "{}",
        refused.stdout
    );
    assert!(
        !refused.stdout.contains("encx keys destroy"),
        "{}",
        refused.stdout
    );
    let count = versions(place);
    assert!(count.values().all(|count| *count == 2), "{count:?}");
    put_right(place);
    rotate(place, &[])
        .expect(0)
        .says("going on with the rotation that began at");
    assert_eq!(versions(place), count);
    assert_eq!(old_rows(place, "users"), 0);
}

#[test]
fn without_a_declared_column_it_is_not_done() {
    on_both(|place| {
        with_users(&place, 9, 3);
        place.write_private("encx.toml", "");
        is_not_done(&place, "no column is declared", |place| {
            place.write_private("encx.toml", SSN);
        });
    });
}

#[test]
fn with_a_declared_column_that_is_gone_it_is_not_done() {
    on_both(|place| {
        with_users(&place, 9, 3);
        let gone = SSN.replace("\"users\"", "\"people\"");
        place.write_private("encx.toml", &format!("{SSN}{gone}"));
        is_not_done(&place, "people.ssn was not walked", |place| {
            place.write_private("encx.toml", SSN);
        });
    });
}

#[test]
fn with_ciphertexts_in_a_column_that_is_not_declared_it_is_not_done() {
    on_both(|place| {
        with_users(&place, 9, 3);
        create_table(&place, "forgotten");
        add_rows(&place, "forgotten", 0..9, 3);
        is_not_done(
            &place,
            "forgotten.ssn has ciphertexts and is not declared",
            |place| {
                place.sql("DROP TABLE forgotten", "DROP TABLE forgotten");
            },
        );
    });
}

#[test]
fn with_a_column_that_is_bound_to_others_it_is_not_done() {
    on_both(|place| {
        with_users(&place, 9, 3);
        create_table(&place, "tokens");
        let bound = SSN.replace("\"users\"", "\"tokens\"") + "bound = [\"expires_at\"]\n";
        place.write_private("encx.toml", &format!("{SSN}{bound}"));
        is_not_done(
            &place,
            "tokens.ssn was not walked, because its values are bound to expires_at",
            |place| {
                place.sql("DROP TABLE tokens", "DROP TABLE tokens");
                place.write_private("encx.toml", SSN);
            },
        );
    });
}

#[test]
fn with_a_row_that_does_not_open_it_is_not_done() {
    on_both(|place| {
        with_users(&place, 9, 3);
        // A row moved to another id.
        place.sql(
            "UPDATE users SET id = 100 WHERE id = 4",
            "UPDATE users SET id = 100 WHERE id = 4",
        );
        is_not_done(
            &place,
            "1 rows of users.ssn are still under 1 old versions",
            |place| {
                place.sql(
                    "UPDATE users SET id = 4 WHERE id = 100",
                    "UPDATE users SET id = 4 WHERE id = 100",
                );
            },
        );
    });
}

#[test]
fn while_a_process_has_not_followed_no_row_is_touched() {
    on_both(|place| {
        with_users(&place, 9, 3);
        add_silent_process(&place);
        let refused = rotate(&place, &["--patience", "1s"]).expect(3);
        assert!(
            refused.stdout.contains("process billing-7 has not followed"),
            "{}",
            refused.stdout
        );
        assert_eq!(old_rows(&place, "users"), 9);
        forget_processes(&place);
        rotate(&place, &[]).expect(0);
        assert_versions(&place, 3, 2);
        assert_eq!(old_rows(&place, "users"), 0);
    });
}

#[test]
fn one_that_is_never_done_can_be_restarted() {
    on_both(|place| {
        with_users(&place, 9, 3);
        create_table(&place, "forgotten");
        add_rows(&place, "forgotten", 0..3, 3);
        rotate(&place, &[]).expect(3);
        rotate(&place, &[]).expect(3).says("going on with");
        assert_versions(&place, 3, 2);
        rotate(&place, &["--restart"])
            .expect(3)
            .says("rotating every key that became active before");
        assert_versions(&place, 3, 3);
        assert_eq!(old_rows(&place, "users"), 0);
    });
}

/// Tells whether the key store says that the last rotation is done. A run that is killed may have recorded that already, and
/// then the next run begins another.
fn is_done(place: &Place) -> bool {
    // The server carries out what a killed client sent last.
    if place.database == Database::Postgres {
        let clients = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let gone = (0..3000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            number(place, clients, "") == 0
        });
        assert!(gone, "the server still serves the killed program");
    }
    let done = "SELECT count(*) FROM {jobs} begun JOIN {jobs} done ON done.plan = begun.plan
         WHERE begun.name = 'encx/rotate-everything' AND done.name = 'encx/rotate-everything/done'";
    let (on_postgres, on_sqlite) = (
        done.replace("{jobs}", "encx.jobs"),
        done.replace("{jobs}", "encx_jobs"),
    );
    number(place, &on_postgres, &on_sqlite) == 1
}

#[test]
fn it_can_be_killed_at_any_time() {
    on_both(|place| {
        with_users(&place, 60, 6);
        let mut state: u64 = 0x2545_f491_4f6c_dd1d;
        let mut killed = 0;
        for attempt in 0..60 {
            let mut child = place
                .command(&[&ROTATE[..], &["--throttle", "40", "--patience", "60s"]].concat())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // xorshift64: varies with each attempt, and is the same in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Later with each attempt, so that one of them finishes.
            let moment = Duration::from_millis(state % 1500 + attempt * 200);
            let ended = (0..moment.as_millis() / 10).find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                child.try_wait().unwrap()
            });
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(0));
                assert!(is_done(&place));
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            if is_done(&place) {
                break;
            }
            // Expires what the killed run had claimed, instead of waiting half a minute for claims and a minute for
            // the process.
            place.sql(
                "UPDATE encx.job_ranges SET until = now() - interval '1 second'; DELETE FROM encx.leases",
                "UPDATE encx_job_ranges SET until = 0; DELETE FROM encx_leases",
            );
            forget_processes(&place);
        }
        assert!(killed >= 3, "{killed}");
        assert_versions(&place, 6, 2);
        assert_eq!(old_rows(&place, "users"), 0);
        let count = number(&place, "SELECT count(*) FROM users", "SELECT count(*) FROM users");
        assert_eq!(count, 60);
        // That rotation is done, so the next run begins another.
        rotate(&place, &[]).expect(0);
        assert_versions(&place, 6, 3);
    });
}
