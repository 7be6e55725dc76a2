//! `encx report`: its facts, its statements on controls, and the page.

use serde_json::Value;

use crate::support::{Place, id_of, on_both};
use crate::users;

const SCRIPT: &str = "<script>alert(1)</script>";
const TABLE: &str = "a\"><img src=x onerror=1>";

/// Declares columns of these tables in the settings.
fn declare(place: &Place, tables: &[&str]) {
    let columns = tables.iter().map(|table| {
        format!(
            "[[column]]\ntable = '{table}'\ncolumn = 'ssn'\nid = {{ column = 'id', kind = 'integer' }}\n\
             context = {{ tenantId = {{ column = 'tenant' }} }}\n"
        )
    });
    place.write_private("encx.toml", &columns.collect::<String>());
}

/// Creates a table with one row under each key, given by its id.
fn insert_rows(place: &Place, keys: &[&str]) {
    place.sql(
        "CREATE TABLE users (id bigint PRIMARY KEY, tenant text, ssn bytea)",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, tenant TEXT, ssn BLOB)",
    );
    for (id, key) in keys.iter().enumerate() {
        let value = format!("0101{}{}", key.replace('-', ""), "00".repeat(83));
        place.sql(
            &format!("INSERT INTO users VALUES ({id}, 't-1', '\\x{value}')"),
            &format!("INSERT INTO users VALUES ({id}, 't-1', x'{value}')"),
        );
    }
}

fn report(place: &Place, args: &[&str]) -> Value {
    let json = place.ok(&[&["report", "--format", "json"], args].concat());
    serde_json::from_str(&json).unwrap()
}

/// Finds a topic of the summary: its status, and what was found.
fn topic(report: &Value, topic: &str) -> (String, String) {
    let topics = report["summary"].as_array().unwrap();
    let found = topics.iter().find(|found| found["topic"] == topic).unwrap();
    let text = |of: &str| found[of].as_str().unwrap().to_owned();
    (text("level"), text("says"))
}

fn control<'r>(report: &'r Value, control: &str) -> &'r Value {
    let controls = report["controls"].as_array().unwrap();
    controls.iter().find(|found| found["control"] == control).unwrap()
}

#[test]
fn a_report_says_what_is_there_and_hides_no_secret() {
    on_both(|place| {
        let id = place.create("tenantId=t-1");
        place.ok(&["keys", "rotate", "-c", "tenantId=t-1"]);
        place.create("tenantId=t-2");
        let of = report(&place, &[]);
        assert_eq!(of["format"], "encx/report/1");
        assert_eq!(of["settings"]["kms"][0]["provider"], "local");
        let kind = of["settings"]["key_store"].as_str().unwrap();
        assert!(["postgres", "sqlite"].contains(&kind), "{kind}");
        let text = of.to_string();
        for secret in [
            place.path("keks.encx"),
            place.path("kek.key"),
            place.env["ENCX_KEY_STORE"].clone(),
        ] {
            assert!(!text.contains(&secret), "{secret}");
        }

        assert_eq!(of["keks"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&of["keks"][0]["state"], &of["keks"][0]["versions"]),
            (&"enabled".into(), &3.into())
        );
        let counts = of["versions"]["counts"].as_array().unwrap();
        let count =
            |state: &str| counts.iter().find(|count| count["state"] == state).unwrap()["versions"].clone();
        assert_eq!((count("active"), count("deactivated")), (2.into(), 1.into()));
        assert_eq!(of["ages"]["active"][0]["versions"], 2);
        assert_eq!(of["ages"]["oldest_active_days"], 0);
        let months = of["audit"]["months"].as_array().unwrap();
        assert_eq!(months.len(), 24);
        assert_eq!(
            (&months[23]["rotations"], &months[23]["first_versions"]),
            (&1.into(), &2.into())
        );
        assert_eq!(months[22]["rotations"], 0);
        assert_eq!(of["due"]["versions"], 0);
        assert_eq!(of["receipts"], "not asked for");
        assert_eq!(
            of["processes"],
            Value::Array(Vec::new()),
            "its own process is left out"
        );
        assert_eq!(topic(&of, "Key versions").0, "in_order");
        assert_eq!(topic(&of, "Encrypted columns").0, "not_known");
        assert_eq!(
            topic(&of, "KEKs").0,
            "not_known",
            "a file of KEKs does not tell of rotation"
        );
        assert_eq!(control(&of, "3.7.8")["standing"], "not_shown");
        assert_eq!(control(&of, "3.7.4")["standing"], "partly");
        assert_eq!(control(&of, "Section 7, key states")["standing"], "shown");
        let says = control(&of, "3.7.5")["evidence"].to_string();
        assert!(says.contains("Versions: 2 active, 1 deactivated"), "{says}");

        place.age(100);
        place.ok(&["keys", "compromise", &id, "--yes"]);
        let of = report(&place, &[]);
        assert_eq!(of["due"]["versions"], 2);
        assert_eq!(of["due"]["first"][0]["period_days"], 90);
        assert_eq!(of["ages"]["active"][2]["versions"], 2);
        assert_eq!(topic(&of, "Rotation of data keys").0, "finding");
        let found = topic(&of, "Key versions");
        assert_eq!(
            found,
            (
                "finding".into(),
                "Compromised versions that are not destroyed: 1".into()
            )
        );
        for of_rotation in ["3.7.4", "Section 5.3, cryptoperiods", "CC7.1"] {
            assert_eq!(control(&of, of_rotation)["standing"], "finding", "{of_rotation}");
        }
        assert_eq!(control(&of, "45 CFR 164.312(a)(2)(iv)")["standing"], "partly");
    });
}

#[test]
fn ages_beyond_what_nist_suggests_and_edited_entries_are_findings() {
    on_both(|place| {
        place.create("tenantId=t-1");
        place.age(800);
        place.sql(
            "ALTER TABLE encx.audit_log DROP CONSTRAINT audit_log_what_check; UPDATE encx.audit_log SET what = 'else'",
            "PRAGMA ignore_check_constraints = ON; UPDATE encx_audit_log SET what = 'else'",
        );
        let of = report(&place, &[]);
        assert_eq!(of["ages"]["active_over_2_years"], 1);
        assert_eq!(of["ages"]["active"][4]["versions"], 1);
        let says = topic(&of, "Rotation of data keys").1;
        assert!(
            says.contains("Active versions that encrypt for more than 2 years: 1"),
            "{says}"
        );
        let found = topic(&of, "Audit log");
        assert_eq!(
            found,
            (
                "finding".into(),
                "Entries of the audit log that were edited: 1".into()
            )
        );
    });
}

#[test]
fn a_census_is_taken_only_when_it_is_asked_for() {
    on_both(|place| {
        let active = place.create("tenantId=t-1");
        let stranger = active.replace(&active[24..], "0123456789ab");
        let gone = place.create("tenantId=t-2");
        place.ok(&["keys", "suspend", &gone, "--yes"]);
        place.ok(&["keys", "destroy", &gone, "--with-data", "left", "--yes"]);
        insert_rows(&place, &[&active, &active, &gone, &stranger]);
        declare(&place, &["users", TABLE]);

        let of = report(&place, &[]);
        assert_eq!(of["columns"][0]["census"], "not asked for");
        assert_eq!(topic(&of, "Rows by key").0, "not_known");

        let of = report(&place, &["--census"]);
        let counted: Vec<_> = of["columns"][0]["census"]
            .as_array()
            .unwrap()
            .iter()
            .map(|count| (count["state"].as_str().unwrap(), count["rows"].as_u64().unwrap()))
            .collect();
        assert_eq!(counted, [("active", 2), ("destroyed", 1), ("missing", 1)]);
        let error = of["columns"][1]["census"]["error"].as_str().unwrap();
        assert!(
            error.contains("onerror"),
            "a table that is not there hides no other: {error}"
        );

        declare(&place, &["users"]);
        let of = report(&place, &["--census"]);
        let found = topic(&of, "Rows by key");
        assert_eq!(found.0, "finding");
        assert!(found.1.ends_with(": 2"), "{}", found.1);
        assert_eq!(control(&of, "3.7.5")["standing"], "finding");
    });
}

#[test]
fn shredded_contexts_are_listed_until_they_are_revived() {
    on_both(|place| {
        let context = format!("tenantId={SCRIPT}");
        let id = id_of(&place.ok(&["keys", "create", "-c", &context, "--format", "json"]));
        place.create("tenantId=stays");
        place.ok(&["keys", "suspend", &id, "--yes"]);
        assert_eq!(
            report(&place, &[])["shreddings"]["contexts"],
            Value::Array(Vec::new())
        );
        place.ok(&[
            "keys",
            "destroy",
            &id,
            "--with-data",
            "asked by <b>them</b>",
            "--yes",
        ]);
        let of = report(&place, &[]);
        let shredded = of["shreddings"]["contexts"].as_array().unwrap();
        assert_eq!(shredded.len(), 1);
        assert_eq!(
            (&shredded[0]["context"], &shredded[0]["versions"]),
            (&context.clone().into(), &1.into())
        );
        let reason = shredded[0]["reason"].as_str().unwrap();
        assert!(reason.contains("asked by <b>them</b>"), "{reason}");
        assert_eq!(topic(&of, "Shreddings").0, "not_known", "receipts were not given");

        place.ok(&["keys", "revive", "-c", &context]);
        assert_eq!(
            report(&place, &[])["shreddings"]["contexts"],
            Value::Array(Vec::new())
        );
    });
}

#[test]
fn receipts_are_looked_up_again() {
    on_both(|place| {
        place.create("tenantId=t-1");
        let plan = ["shred", "plan", "-c", "tenantId=t-1", "--out", "plan.json"];
        place.ok(&plan);
        place.ok(&[
            "shred",
            "run",
            "plan.json",
            "--receipts",
            "receipts",
            "--because",
            "left",
            "--patience",
            "20s",
            "--yes",
        ]);
        let of = report(&place, &["--receipts", "receipts"]);
        assert_eq!(of["receipts"][0]["number"], 1);
        assert_eq!(of["receipts"][0]["not_destroyed"], 0);
        assert_eq!(topic(&of, "Shreddings").0, "in_order");
        assert_eq!(of["shreddings"]["contexts"][0]["context"], "tenantId=t-1");

        // The row as a restored backup has it.
        let restored = "state = 'deactivated', destroyed_at = NULL WHERE version = 1 AND usage = 1";
        place.sql(
            &format!("SET session_replication_role = replica; UPDATE encx.data_keys SET {restored}"),
            &format!("UPDATE encx_data_keys SET {restored}"),
        );
        let of = report(&place, &["--receipts", "receipts"]);
        assert_eq!(of["receipts"][0]["not_destroyed"], 1);
        let found = topic(&of, "Shreddings");
        assert_eq!(found.0, "finding", "{}", found.1);

        let file = std::fs::read_dir(place.path("receipts"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|end| end == "json"))
            .unwrap();
        let changed = std::fs::read_to_string(&file).unwrap().replace("left", "other");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, changed).unwrap();
        let of = report(&place, &["--receipts", "receipts"]);
        let found = topic(&of, "Shreddings");
        assert!(
            found.0 == "finding" && found.1.contains("was changed"),
            "{found:?}"
        );

        place
            .run(&["report", "--receipts", "nowhere"])
            .expect(1)
            .says("nowhere");
    });
}

#[test]
fn the_last_verify_of_a_column_is_told() {
    on_both(|place| {
        users::fill(&place, 6);
        let of = report(&place, &[]);
        assert_eq!(of["columns"][0]["verified"], "never");
        assert_eq!(topic(&of, "Encrypted columns").0, "attention");
        place.ok(&["verify", "--all"]);
        let of = report(&place, &["--census"]);
        let verified = &of["columns"][0]["verified"];
        assert_eq!((&verified["opened"], &verified["failed"]), (&6.into(), &0.into()));
        assert_eq!(verified["is_complete"], true);
        let found = topic(&of, "Encrypted columns");
        assert!(
            found.0 == "in_order" && found.1.contains("6 rows opened, none failed"),
            "{found:?}"
        );
        assert_eq!(topic(&of, "Rows by key").0, "in_order");

        users::update(
            &place,
            "UPDATE users SET ssn = (SELECT ssn FROM users WHERE id = 4) WHERE id = 1",
        );
        place.run(&["verify", "--all"]).expect(3);
        let of = report(&place, &[]);
        let verified = &of["columns"][0]["verified"];
        assert_eq!((&verified["opened"], &verified["failed"]), (&5.into(), &1.into()));
        assert_eq!(verified["faults"][0]["kind"], "elsewhere");
        assert_eq!(topic(&of, "Encrypted columns").0, "finding");
        assert_eq!(control(&of, "45 CFR 164.312(a)(2)(iv)")["standing"], "finding");
    });
}

#[test]
fn a_page_is_one_file_in_which_names_are_text() {
    on_both(|place| {
        place.create(&format!("tenantId={SCRIPT}"));
        place.age(100);
        declare(&place, &[TABLE]);
        std::fs::write(place.path("out.html"), "an older one").unwrap();
        let told = place
            .run(&["report", "--html", &place.path("out.html"), "--census"])
            .expect(0);
        assert_eq!(told.stdout, "");
        let told = told.says("out.html: ").says("have findings");
        drop(told);
        let page = std::fs::read_to_string(place.path("out.html")).unwrap();
        assert!(
            page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
        assert!(
            page.contains("a&quot;&gt;&lt;img src=x onerror=1&gt;.ssn"),
            "{page}"
        );
        for forbidden in [
            "<script",
            "<img",
            " onerror=\"",
            "http://",
            "https://",
            "url(",
            "@import",
        ] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let policy = "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"";
        assert!(page.contains(policy), "{page}");
        let left: Vec<_> = std::fs::read_dir(place.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".encx-report"))
            .collect();
        assert!(left.is_empty(), "{left:?}");

        let stdout = place.ok(&["report", "--html", "-"]);
        assert!(stdout.starts_with("<!DOCTYPE html>"), "{stdout}");
        let both = place.ok(&["report", "--html", &place.path("out.html"), "--format", "json"]);
        serde_json::from_str::<Value>(&both).unwrap();
        place
            .run(&["report", "--html", "-", "--format", "json"])
            .expect(1)
            .says("stdout takes one of both");
        place
            .run(&["report", "--html", &place.path("none/out.html")])
            .expect(1)
            .says("could not write");
    });
}

#[test]
fn a_kek_that_no_rule_names_is_a_finding() {
    on_both(|place| {
        place.create("tenantId=t-1");
        place.sql(
            "UPDATE encx.wrapped_keys SET kek = 'local/elsewhere'",
            "UPDATE encx_wrapped_keys SET kek = 'local/elsewhere'",
        );
        let table = place.ok(&["report"]);
        assert!(table.starts_with("TOPIC"), "{table}");
        let of = report(&place, &[]);
        let outside = of["keks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|kek| kek["is_in_rule"] == false)
            .unwrap();
        assert_eq!(
            (&outside["kek"], &outside["state"]),
            (&"local/elsewhere".into(), &"not asked".into())
        );
        assert_eq!(topic(&of, "Key versions").0, "finding");
        assert_eq!(control(&of, "3.7.7")["standing"], "finding");
    });
}
