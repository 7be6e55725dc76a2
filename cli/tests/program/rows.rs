//! `encx verify`, `census`, `columns`, `reencrypt` and `adopt` on the rows of a service's table.

use serde_json::Value;
use snapbox::{assert_data_eq, str};

use crate::support::{Place, on_both, stable};
use crate::users::{self, declare, fill, literal, number, update};

/// Parses each line as JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Plants faults of five kinds.
fn plant(place: &Place) {
    let (text, other) = (literal(place, b"123-45-6789"), literal(place, &[0xfe; 40]));
    for set in [
        format!("ssn = {text} WHERE id = 5"),
        "ssn = (SELECT ssn FROM users WHERE id = 9) WHERE id = 12".to_owned(),
        "tenant_id = 't-1' WHERE id = 15".to_owned(),
        "tenant_id = NULL WHERE id = 20".to_owned(),
        format!("ssn = {other} WHERE id = 25"),
        "ssn = NULL WHERE id = 30".to_owned(),
    ] {
        update(place, &format!("UPDATE users SET {set}"));
    }
}

#[test]
fn rows_that_do_not_open_are_named_by_what_is_wrong() {
    on_both(|place| {
        fill(&place, 40);
        assert_data_eq!(
            place.ok(&["verify"]),
            str![[r#"
COLUMN     ROWS  OK  FAULTS
users.ssn  40    40  -

"#]]
        );
        place.ok(&["verify", "--all"]);
        plant(&place);
        for how in [
            &["verify"][..],
            &["verify", "--all"],
            &["verify", "--column", "users.ssn"],
        ] {
            let found = place.run(how).expect(3);
            let mut lines: Vec<_> = found.stdout.lines().map(str::trim_end).collect();
            // The order of a sample is random.
            lines[3..].sort_unstable();
            assert_data_eq!(
                lines.join("\n"),
                str![[r#"
COLUMN     ROWS  OK  FAULTS
users.ssn  39    34  2 elsewhere, 1 no-context, 1 other-format, 1 plaintext

FAULT         ROW                  WHY
elsewhere     users.ssn of row 12  the value belongs elsewhere: it opens as users.ssn of row 9
elsewhere     users.ssn of row 15  the value belongs elsewhere: it belongs to encryption context purpose=pii tenantId=t-0, and opens there in this row: the row names another context
no-context    users.ssn of row 20  the column of the encryption context's pair "tenantId" is NULL in this row
other-format  users.ssn of row 25  format version 254 is unknown: not a ciphertext, or written by a later version of encx
plaintext     users.ssn of row 5   this is text, not a ciphertext: was the value never encrypted? Rows from before encryption are moved by an adoption, as docs/adoption.md says; is this the right column?
"#]]
            );
            assert!(!found.stdout.contains("123-45") && !found.stderr.contains("123-45"));
        }
        let few = place.run(&["verify", "--sample", "3", "--show", "0", "--format", "json"]);
        let few = lines(&few.stdout).remove(0);
        assert_eq!((&few["looked_at"], &few["complete"]), (&3.into(), &true.into()));

        let found = place
            .run(&["verify", "--all", "--show", "1", "--format", "json"])
            .expect(3);
        let events = lines(&found.stdout);
        let of = |name: &str| {
            let found = events.iter().filter(|line| line["event"] == name);
            found.collect::<Vec<_>>()
        };
        assert!(of("started")[0]["total"].as_u64().unwrap() > 0);
        assert_eq!(of("failed").len(), 5, "{events:?}");
        let report = events.last().unwrap();
        assert_eq!((&report["looked_at"], &report["ok"]), (&39.into(), &34.into()));
        assert_eq!(report["faults"]["elsewhere"]["rows"], 2);
        assert_eq!(
            report["faults"]["elsewhere"]["examples"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(report["faults"]["plaintext"]["examples"][0], "users.ssn of row 5");
        place
            .run(&["verify", "--column", "users.email"])
            .expect(1)
            .says("declares no column `users.email`: it has users.ssn");
    });
}

#[test]
fn a_census_says_under_which_keys_rows_are() {
    on_both(|place| {
        fill(&place, 30);
        let all = place.ok(&["census", "--format", "json"]);
        let all = lines(&all);
        assert_eq!(all.len(), 3);
        assert!(
            all.iter()
                .all(|line| line["rows"] == 10 && line["state"] == "active" && line["version"] == 1)
        );
        assert_eq!(all[0]["context"]["purpose"], "pii");

        let text = literal(&place, b"123-45-6789");
        update(&place, &format!("UPDATE users SET ssn = {text} WHERE id = 5"));
        let found = place.run(&["census"]).expect(3).says("1 rows hold no ciphertext");
        // Keys created in the same millisecond have no order.
        let mut rows: Vec<_> = stable(&found.stdout)
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .filter(|word| word.len() != 36)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        rows.sort_unstable();
        assert_eq!(
            rows,
            [
                "COLUMN ROWS KEY STATE VERSION CONTEXT",
                "users.ssn 1 no ciphertext none - -",
                "users.ssn 10 active 1 purpose=pii tenantId=t-0",
                "users.ssn 10 active 1 purpose=pii tenantId=t-1",
                "users.ssn 9 active 1 purpose=pii tenantId=t-2",
            ]
        );
        // Deletes the row of a key.
        place.sql(
            "DELETE FROM encx.wrapped_keys; DELETE FROM encx.data_keys WHERE context->>'tenantId' = 't-1'",
            "DELETE FROM encx_wrapped_keys; DELETE FROM encx_data_keys WHERE json_extract(context, '$.tenantId') = 't-1'",
        );
        let found = place
            .run(&["census", "--format", "json"])
            .expect(3)
            .says("10 rows are under keys that are missing");
        let missing: Vec<_> = lines(&found.stdout)
            .into_iter()
            .filter(|line| line["state"] == "missing")
            .collect();
        assert_eq!((missing.len(), &missing[0]["rows"]), (1, &10.into()));
        assert!(missing[0].get("context").is_none());
    });
}

#[test]
fn columns_are_compared_with_the_database() {
    on_both(|place| {
        fill(&place, 10);
        assert_data_eq!(
            place.ok(&["columns", "list"]),
            str![[r#"
COLUMN     ID  CONTEXT                           INDEX  PLAINTEXT  BOUND TO
users.ssn  id  purpose=pii tenantId={tenant_id}  -      -          -

"#]]
        );
        place
            .run(&["columns", "check"])
            .expect(0)
            .says("all well with 1 declared columns");
        // An undeclared column and a missing one.
        update(
            &place,
            "CREATE TABLE notes AS SELECT id, tenant_id, ssn AS note FROM users",
        );
        declare(
            &place,
            "[[column]]\ntable = \"orders\"\ncolumn = \"iban\"\nid = { column = \"id\", kind = \"integer\" }\n\
             context = { purpose = \"pii\" }\n",
        );
        let found = place.run(&["columns", "check"]).expect(3);
        let folder = place.path("");
        assert_data_eq!(
            found.stdout.replace(&folder, ""),
            str![[r#"
COLUMN       FINDING
orders.iban  `column[2]` in encx.toml, line 6 declares orders.iban, and there is no table orders; names are taken as they are, upper case too
notes.note   is not declared, and 10 of 10 values look like ciphertexts, of keys of this key store: a rotation would leave them out

[[column]]
table = "notes"
column = "note"
id = { column = "id", kind = "integer" }
context = { tenantId = { column = "tenant_id" } }

"#]]
        );
        let found = place.run(&["columns", "check", "--format", "json"]).expect(3);
        let kinds: Vec<_> = lines(&found.stdout)
            .iter()
            .map(|line| line["kind"].clone())
            .collect();
        assert_eq!(kinds, ["gone", "undeclared"]);
    });
}

#[test]
fn rows_move_to_the_active_version() {
    on_both(|place| {
        fill(&place, 30);
        declare(
            &place,
            "[[column]]\ntable = \"tokens\"\ncolumn = \"sealed\"\nid = { column = \"id\", kind = \"integer\" }\n\
             context = { purpose = \"pii\" }\nbound = [\"state\"]\n",
        );
        for tenant in 0..3 {
            let context = format!("tenantId=t-{tenant}");
            place.ok(&["keys", "rotate", "-c", &context, "-c", "purpose=pii"]);
        }
        let only = ["--column", "users.ssn"];
        let dry = place.ok(&[&["reencrypt", "--dry-run"][..], &only].concat());
        assert_data_eq!(
            dry,
            str![[r#"
users.ssn: finished; 30 changed, 0 unchanged, 0 failed

"#]]
        );
        assert_eq!(users::opened(&place), 30);
        let moved = place.ok(&[&["reencrypt"][..], &only].concat());
        assert_data_eq!(
            moved,
            str![[r#"
users.ssn: finished; 30 changed, 0 unchanged, 0 failed

"#]]
        );
        assert_eq!(users::opened(&place), 30);
        let after = lines(&place.ok(&[&["census", "--format", "json"][..], &only].concat()));
        assert!(
            after.len() == 3 && after.iter().all(|line| line["version"] == 2),
            "{after:?}"
        );
        // A column bound to others cannot be walked, and the command says so.
        let all = place.run(&["reencrypt", "--format", "json"]).expect(3);
        let all = all.says("tokens.sealed is left as it is, because its values are bound to state");
        let report = lines(&all.stdout).pop().unwrap();
        assert_eq!(
            (&report["column"], &report["unchanged"]),
            (&"users.ssn".into(), &30.into())
        );
        place
            .run(&["verify"])
            .expect(0)
            .says("tokens.sealed was not looked at to its end");
        place.run(&["verify", "--column", "tokens.sealed"]).expect(3);
    });
}

#[test]
fn a_plaintext_column_is_adopted() {
    on_both(|place| {
        users::create(&place);
        declare(
            &place,
            "plaintext = { column = \"plain\", kind = \"text\", until = \"2999-12-31\" }\n",
        );
        let values: Vec<_> = (1..=20)
            .map(|id| format!("({id}, 't-{}', '{}')", id % 3, users::value(id)))
            .collect();
        update(
            &place,
            &format!(
                "INSERT INTO users (id, tenant_id, plain) VALUES {}",
                values.join(", ")
            ),
        );
        place
            .run(&["adopt", "verify"])
            .expect(3)
            .says("run `backfill` first");
        place.ok(&["adopt", "backfill", "--dry-run"]);
        assert_eq!(number(&place, "SELECT count(ssn) FROM users"), 0);
        assert_data_eq!(
            place.ok(&["adopt", "backfill"]),
            str![[r#"
users.ssn: finished; 20 changed, 0 unchanged, 0 failed

"#]]
        );
        assert_data_eq!(
            place.ok(&["adopt", "verify"]),
            str![[r#"
users.ssn: finished; 0 changed, 20 unchanged, 0 failed

"#]]
        );
        assert_eq!(users::opened(&place), 20);
        update(&place, "UPDATE users SET plain = 'another' WHERE id = 7");
        let refused = place
            .run(&["adopt", "verify"])
            .expect(3)
            .says("users.ssn of row 7");
        assert!(!refused.stderr.contains("another'"));
        // It asks for confirmation, but there is no terminal.
        place.run(&["adopt", "contract"]).expect(1).says("say --yes");
        assert_eq!(number(&place, "SELECT count(plain) FROM users"), 20);
        place.run(&["adopt", "contract", "--yes"]).expect(3);
        assert_eq!(number(&place, "SELECT count(plain) FROM users"), 1);
        assert_data_eq!(
            place.ok(&["adopt", "status"]),
            str![[r#"
COLUMN     PLAINTEXT  UNTIL       PLAINTEXT ONLY  BOTH  CIPHERTEXT ONLY  CONTRACTED
users.ssn  plain      2999-12-31  0               1     19               yes

"#]]
        );
        // New values in the plaintext column are not trusted.
        update(
            &place,
            "INSERT INTO users (id, tenant_id, plain) VALUES (21, 't-0', 'planted')",
        );
        let refused = place.run(&["adopt", "backfill"]).expect(4);
        assert!(
            refused.stdout.contains("users.plain was contracted"),
            "{}",
            refused.stdout
        );
        declare(&place, "");
        place
            .run(&["adopt", "status"])
            .expect(1)
            .says("names no plaintext column for users.ssn");
    });
}

#[test]
fn a_database_that_is_down_is_2_and_no_declaration_is_1() {
    on_both(|mut place| {
        fill(&place, 3);
        place.sql("DROP TABLE users", "DROP TABLE users");
        for command in [&["verify"][..], &["verify", "--all"], &["census"], &["reencrypt"]] {
            place.run(command).expect(1).says("there is no table users");
        }
        let url = place.env["ENCX_KEY_STORE"].clone();
        let down = match place.database {
            crate::support::Database::Postgres => "postgres://app:hunter2@127.0.0.1:1/app".to_owned(),
            crate::support::Database::Sqlite => format!("sqlite:{}", place.path("no/such/folder.db")),
        };
        place.env.insert("ENCX_KEY_STORE".to_owned(), down);
        for command in [&["verify"][..], &["census"], &["columns", "check"]] {
            let refused = place.run(command).expect(2);
            assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
        }
        place.env.insert("ENCX_KEY_STORE".to_owned(), url);
        place.write_private("encx.toml", "");
        place
            .run(&["verify"])
            .expect(1)
            .says("declares no encrypted columns");
    });
}
