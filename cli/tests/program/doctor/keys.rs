//! Faults in key rows, KEKs that the rule does not allow, and clocks.

use super::{Ward, on_both};

/// Adds a KEK to the file and returns its name.
fn add_kek(ward: &Ward) -> String {
    let file = ward.place.path("keks.encx");
    let made = ward.place.run(&["local", "add-kek", &file]).expect(0);
    let named = made
        .stderr
        .split_whitespace()
        .find(|word| word.starts_with("local/"));
    named.unwrap().trim_end_matches(':').to_owned()
}

fn two_keys(ward: &Ward) -> String {
    ward.place.create("tenantId=t-2");
    ward.place.create("tenantId=t-1")
}

#[test]
fn a_version_whose_wrap_is_gone() {
    on_both(|ward| {
        let id = two_keys(&ward);
        let hex = id.replace('-', "");
        ward.sql(
            &format!("DELETE FROM encx.wrapped_keys WHERE key_id = '{id}'"),
            &format!("DELETE FROM encx_wrapped_keys WHERE key_id = x'{hex}'"),
        );
        for args in [&[][..], &["--deep"]] {
            let report = ward.finds_with(args, &[("wrap-gone", "error")]);
            report.says(if ward.is_postgres() { &id } else { &hex });
            report.checked_all();
        }
    });
}

/// The count is of all, however many there are.
#[test]
fn more_versions_without_a_wrap_than_are_named() {
    on_both(|ward| {
        two_keys(&ward);
        ward.sql(
            "INSERT INTO encx.data_keys (id, scope, usage, version, state, context, key_check, revision, created_at, changed_at)
             SELECT (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid, sha256(n::text::bytea), 1, 1, 'pre-active',
                    '{}', sha256(''), 1, now(), now()
             FROM generate_series(1, 1500) n",
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1500)
             INSERT INTO encx_data_keys (id, scope, usage, version, state, context, key_check, revision, created_at, changed_at)
             SELECT unhex(printf('%08x', n) || '000070008000000000000000'), randomblob(32), 1, 1, 'pre-active', '{}',
                    zeroblob(32), 1, 0, 0
             FROM numbers",
        );
        let hex = "00000001-0000-7000-8000-000000000000";
        ward.finds(&[("wrap-gone", "error")])
            .says("1500 data keys, such as 00000001")
            .says(if ward.is_postgres() {
                hex
            } else {
                "00000005000070008000000000000000"
            })
            .checked_all();
    });
}

/// Without the tables' constraints, a row can have an id that encx never writes.
#[test]
fn a_row_whose_id_is_none() {
    on_both(|ward| {
        let id = two_keys(&ward);
        let (hex, planted) = (id.replace('-', ""), "0badcafe000000000000000000000000");
        ward.sql(
            &format!(
                "ALTER TABLE encx.data_keys DROP CONSTRAINT data_keys_id_check;
                 ALTER TABLE encx.wrapped_keys DROP CONSTRAINT wrapped_keys_key_id_fkey;
                 UPDATE encx.data_keys SET id = '{planted}' WHERE id = '{id}';
                 UPDATE encx.wrapped_keys SET key_id = '{planted}' WHERE key_id = '{id}';
                 UPDATE encx.audit_log SET key_id = '{planted}' WHERE key_id = '{id}'"
            ),
            &format!(
                "PRAGMA foreign_keys = OFF;
                 PRAGMA ignore_check_constraints = ON;
                 UPDATE encx_data_keys SET id = x'{planted}' WHERE id = x'{hex}';
                 UPDATE encx_wrapped_keys SET key_id = x'{planted}' WHERE key_id = x'{hex}';
                 UPDATE encx_audit_log SET key_id = x'{planted}' WHERE key_id = x'{hex}'"
            ),
        );
        for args in [&[][..], &["--deep"]] {
            let edited = ("row-edited", "error");
            // SQLite's own check of the file also sees what breaks a constraint that it still has.
            let expected = match ward.is_postgres() || args.is_empty() {
                true => &[edited][..],
                false => &[("database-damaged", "error"), edited],
            };
            let report = ward.finds_with(args, expected);
            report.says("its id is no UUID of version 7");
            report.says(&format!("data key {planted}"));
            // A process that starts follows all changes, and refuses that row.
            let not_checked = report.not_checked();
            let is_of_it =
                |why: &String| why.starts_with("encryption context: ") && why.contains("invalid id");
            assert!(
                not_checked.len() == 1 && not_checked.iter().all(is_of_it),
                "{not_checked:?}"
            );
        }
    });
}

#[test]
fn an_edited_check_value() {
    on_both(|ward| {
        let id = two_keys(&ward);
        ward.sql(
            &format!("UPDATE encx.data_keys SET key_check = sha256('x') WHERE id = '{id}'"),
            &format!(
                "UPDATE encx_data_keys SET key_check = randomblob(32) WHERE id = x'{}'",
                id.replace('-', "")
            ),
        );
        for args in [&[][..], &["--deep"]] {
            let report = ward.finds_with(args, &[("key-check-mismatch", "error")]);
            report.says(&id).checked_all();
        }
    });
}

#[test]
fn an_edited_context() {
    on_both(|ward| {
        let id = two_keys(&ward);
        ward.sql(
            &format!("UPDATE encx.data_keys SET context = '{{\"tenantId\":\"t-9\"}}' WHERE id = '{id}'"),
            &format!(
                "UPDATE encx_data_keys SET context = '{{\"tenantId\":\"t-9\"}}' WHERE id = x'{}'",
                id.replace('-', "")
            ),
        );
        ward.finds(&[("row-edited", "error")]).says(&id).checked_all();
    });
}

/// An unreadable row hides no other.
#[test]
fn an_unreadable_row() {
    on_both(|ward| {
        let id = two_keys(&ward);
        ward.sql(
            &format!("UPDATE encx.data_keys SET usage = 99 WHERE id = '{id}'"),
            &format!(
                "UPDATE encx_data_keys SET usage = 99 WHERE id = x'{}'",
                id.replace('-', "")
            ),
        );
        for args in [&[][..], &["--deep"]] {
            let report = ward.finds_with(args, &[("row-edited", "error")]);
            report.says(&id).checked_all();
        }
    });
}

#[test]
fn a_damaged_wrap() {
    on_both(|ward| {
        let id = two_keys(&ward);
        ward.sql(
            &format!(
                "UPDATE encx.wrapped_keys SET ciphertext = set_byte(ciphertext, 20, 255 - get_byte(ciphertext, 20))
                 WHERE key_id = '{id}'"
            ),
            &format!(
                "UPDATE encx_wrapped_keys SET ciphertext = randomblob(length(ciphertext)) WHERE key_id = x'{}'",
                id.replace('-', "")
            ),
        );
        let report = ward.finds(&[("unwrap-refused", "error")]);
        report.says(&id).checked_all();
    });
}

#[test]
fn versions_that_are_missing() {
    on_both(|ward| {
        let id = two_keys(&ward);
        let delete = |id: &str| {
            let hex = id.replace('-', "");
            ward.sql(
                &format!(
                    "DELETE FROM encx.wrapped_keys WHERE key_id = '{id}'; DELETE FROM encx.data_keys WHERE id = '{id}'"
                ),
                &format!(
                    "DELETE FROM encx_wrapped_keys WHERE key_id = x'{hex}'; DELETE FROM encx_data_keys WHERE id = x'{hex}'"
                ),
            );
        };
        ward.place.ok(&["keys", "rotate", "-c", "tenantId=t-1"]);
        delete(&id);
        ward.finds(&[("version-missing", "error")])
            .says("tenantId")
            .checked_all();
        // The deleted version is the only one of its context, so no gap is left.
        let ward = Ward::new(ward.place.database);
        let id = two_keys(&ward);
        let hex = id.replace('-', "");
        ward.sql(
            &format!(
                "DELETE FROM encx.wrapped_keys WHERE key_id = '{id}'; DELETE FROM encx.data_keys WHERE id = '{id}'"
            ),
            &format!(
                "DELETE FROM encx_wrapped_keys WHERE key_id = x'{hex}'; DELETE FROM encx_data_keys WHERE id = x'{hex}'"
            ),
        );
        ward.finds(&[("version-missing", "error")])
            .says("audit log")
            .checked_all();
    });
}

#[test]
fn two_active_versions() {
    on_both(|ward| {
        two_keys(&ward);
        ward.place.ok(&["keys", "rotate", "-c", "tenantId=t-1"]);
        ward.sql(
            "DROP INDEX encx.data_keys_active; UPDATE encx.data_keys SET state = 'active'",
            "DROP INDEX encx_data_keys_active; UPDATE encx_data_keys SET state = 'active'",
        );
        ward.finds(&[("two-active", "error")]).says("t-1").checked_all();
    });
}

#[test]
fn a_destroyed_version_whose_wrap_came_back() {
    on_both(|ward| {
        let id = two_keys(&ward);
        ward.sql(
            "CREATE TABLE backup AS SELECT * FROM encx.wrapped_keys",
            "CREATE TABLE backup AS SELECT * FROM encx_wrapped_keys",
        );
        ward.place.ok(&["keys", "rotate", "-c", "tenantId=t-1"]);
        ward.place
            .ok(&["keys", "destroy", &id, "--with-data", "tenant left", "--yes"]);
        ward.finds(&[]);
        ward.sql(
            "INSERT INTO encx.wrapped_keys SELECT * FROM backup ON CONFLICT DO NOTHING",
            "INSERT OR IGNORE INTO encx_wrapped_keys SELECT * FROM backup",
        );
        ward.finds(&[("destroyed-with-wrap", "error")]).checked_all();
    });
}

#[test]
fn a_kek_that_was_retired_too_early() {
    on_both(|mut ward| {
        two_keys(&ward);
        let old = ward.place.ok(&["keks", "list", "--format", "json"]);
        let old: serde_json::Value = serde_json::from_str(&old).unwrap();
        let new = add_kek(&ward);
        ward.set("ENCX_KEK", new.clone());
        for args in [&[][..], &["--deep"]] {
            let report = ward.finds_with(args, &[("kek-not-allowed", "error")]);
            report.says("wraps 2 versions, 2 of them alone");
            // The versions are not tried, and are reported once.
            assert!(
                matches!(report.not_checked().as_slice(), [keys, _] if keys.contains("2 versions")),
                "{:?}",
                report.not_checked()
            );
        }
        ward.set("ENCX_ALSO_UNWRAP", old["kek"].as_str().unwrap());
        ward.finds(&[]).checked_all();
        ward.set("ENCX_ALSO_UNWRAP", "local/00000000-0000-0000-0000-000000000000");
        ward.finds(&[("kek-not-allowed", "error"), ("kek-not-found", "error")]);
    });
}

#[test]
fn a_clock_that_is_ten_minutes_off() {
    on_both(|ward| {
        two_keys(&ward);
        let code = match ward.is_postgres() {
            true => "clock-skew-database",
            // SQLite uses this machine's clock: the rows were written ten minutes later.
            false => "clock-behind-rows",
        };
        let report = ward.finds_at("-10m", &[(code, "error")]);
        report.says("behind").checked_all();
        if ward.is_postgres() {
            ward.finds_at("+2m", &[(code, "warning")])
                .says("ahead of")
                .checked_all();
            ward.finds_at("+5s", &[]).checked_all();
        }
    });
}

#[test]
fn processes_that_are_silent_or_run_another_version() {
    on_both(|ward| {
        two_keys(&ward);
        ward.sql(
            "INSERT INTO encx.processes (id, name, serves_for, started_at, seen_at, acknowledged, version)
             VALUES ('00000000-0000-4000-8000-000000000001', 'billing-7', 3600000000, now(), now(), 0, '0.0.9')",
            "INSERT INTO encx_processes (id, name, serves_for, started_at, seen_at, acknowledged, version)
             VALUES (x'00000000000040008000000000000001', 'billing-7', 3600000000, 0,
                     CAST(unixepoch('subsec') * 1000000 AS INTEGER), 0, '0.0.9')",
        );
        ward.finds(&[("process-version", "warning")])
            .says("billing-7")
            .says("0.0.9")
            .checked_all();
        ward.sql(
            "UPDATE encx.processes SET version = NULL",
            "UPDATE encx_processes SET version = NULL",
        );
        ward.finds(&[("process-version", "warning")]).checked_all();
        ward.sql(
            "UPDATE encx.processes SET seen_at = now() - interval '10 minutes'",
            "UPDATE encx_processes SET seen_at = seen_at - 600000000",
        );
        ward.finds(&[("process-silent", "warning")])
            .says("billing-7")
            .checked_all();
    });
}
