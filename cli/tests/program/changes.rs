//! Tests what commands that change something write, as table and JSON, on both databases.

use serde_json::Value;
use snapbox::{IntoData, assert_data_eq, str};

use crate::support::{Place, Ran, id_of, on_both, stable};

/// Compares the table of one command and the JSON of another of the same kind.
#[track_caller]
fn write(place: &Place, for_table: &[&str], for_json: &[&str], table: impl IntoData, json: impl IntoData) {
    assert_data_eq!(stable(&place.ok(for_table)), table);
    let written = place.run(&[for_json, &["--format", "json"]].concat()).expect(0);
    assert_data_eq!(in_order(&written), json);
}

/// Formats JSON lines with sorted fields.
fn in_order(written: &Ran) -> String {
    let values = serde_json::Deserializer::from_str(&written.stdout).into_iter::<Value>();
    let lines = values.map(|value| format!("{}\n", value.unwrap()));
    stable(&lines.collect::<String>())
}

#[test]
fn changes_of_keys_write_the_key() {
    on_both(|place| {
        let [one, two] = ["tenantId=t-1", "tenantId=t-2"];
        write(
            &place,
            &["keys", "create", "-c", one],
            &["keys", "create", "-c", two],
            str![[r#"
id            00000000-0000-0000-0000-000000000000
usage         data
version       1
state         active
context       tenantId=t-1
KEK           default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at       YYYY-MM-DDThh:mm:ssZ
active since  YYYY-MM-DDThh:mm:ssZ
changed at    YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":1}

"#]],
        );
        let id = |context: &str| {
            id_of(&place.ok(&[
                "keys", "list", "-c", context, "--state", "active", "--format", "json",
            ]))
        };
        let old = [id(one), id(two)];
        let [first, second] = &old;
        for command in ["suspend", "resume"] {
            let told = place.run(&["keys", command, first, "--yes"]).expect(0);
            let as_json = place
                .run(&["keys", command, second, "--yes", "--format", "json"])
                .expect(0);
            let told = (stable(&told.stdout), in_order(&as_json));
            match command {
                "suspend" => {
                    assert_data_eq!(
                        told.0,
                        str![[r#"
id            00000000-0000-0000-0000-000000000000
usage         data
version       1
state         suspended (was active)
context       tenantId=t-1
KEK           default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at       YYYY-MM-DDThh:mm:ssZ
active since  YYYY-MM-DDThh:mm:ssZ
changed at    YYYY-MM-DDThh:mm:ssZ

"#]]
                    );
                    assert_data_eq!(
                        told.1,
                        str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"suspended","suspended_from":"active","usage":"data","version":1}

"#]]
                    );
                }
                _ => {
                    assert_data_eq!(
                        told.0,
                        str![[r#"
id            00000000-0000-0000-0000-000000000000
usage         data
version       1
state         active
context       tenantId=t-1
KEK           default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at       YYYY-MM-DDThh:mm:ssZ
active since  YYYY-MM-DDThh:mm:ssZ
changed at    YYYY-MM-DDThh:mm:ssZ

"#]]
                    );
                    assert_data_eq!(
                        told.1,
                        str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":1}

"#]]
                    );
                }
            }
        }
        write(
            &place,
            &["keys", "rotate", "-c", one],
            &["keys", "rotate", "-c", two],
            str![[r#"
id            00000000-0000-0000-0000-000000000000
usage         data
version       2
state         active
context       tenantId=t-1
KEK           default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at       YYYY-MM-DDThh:mm:ssZ
active since  YYYY-MM-DDThh:mm:ssZ
changed at    YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":2}

"#]],
        );
        write(
            &place,
            &["keys", "compromise", first, "--yes"],
            &["keys", "compromise", second, "--yes"],
            str![[r#"
id              00000000-0000-0000-0000-000000000000
usage           data
version         1
state           compromised
context         tenantId=t-1
KEK             default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at         YYYY-MM-DDThh:mm:ssZ
active since    YYYY-MM-DDThh:mm:ssZ
deactivated at  YYYY-MM-DDThh:mm:ssZ
changed at      YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":"YYYY-MM-DDThh:mm:ssZ","destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"compromised","usage":"data","version":1}

"#]],
        );
        let destroy = ["--without-census", "--without-quarantine", "a test", "--yes"];
        write(
            &place,
            &[&["keys", "destroy", first], &destroy[..]].concat(),
            &[&["keys", "destroy", second], &destroy[..]].concat(),
            str![[r#"
id              00000000-0000-0000-0000-000000000000
usage           data
version         1
state           destroyed
context         tenantId=t-1
made at         YYYY-MM-DDThh:mm:ssZ
active since    YYYY-MM-DDThh:mm:ssZ
deactivated at  YYYY-MM-DDThh:mm:ssZ
destroyed at    YYYY-MM-DDThh:mm:ssZ
changed at      YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":"YYYY-MM-DDThh:mm:ssZ","destroyed_at":"YYYY-MM-DDThh:mm:ssZ","id":"00000000-0000-0000-0000-000000000000","keks":[],"state":"destroyed","usage":"data","version":1}

"#]],
        );
        for context in [one, two] {
            let active = id(context);
            place.ok(&["keys", "suspend", &active, "--yes"]);
            place.ok(&[&["keys", "destroy", &active], &destroy[..]].concat());
        }
        write(
            &place,
            &["keys", "revive", "-c", one],
            &["keys", "revive", "-c", two],
            str![[r#"
id            00000000-0000-0000-0000-000000000000
usage         data
version       3
state         active
context       tenantId=t-1
KEK           default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at       YYYY-MM-DDThh:mm:ssZ
active since  YYYY-MM-DDThh:mm:ssZ
changed at    YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-2"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":3}

"#]],
        );
        write(&place, &["keks", "check"], &["keks", "check"], str![], str![]);
        write(
            &place,
            &["rewrap"],
            &["rewrap"],
            str![[r#"
finished; 0 changed, 2 unchanged, 0 failed

"#]],
            str![[r#"
{"changed":0,"event":"started","failed":0,"unchanged":0}
{"changed":0,"event":"progress","failed":0,"unchanged":2}
{"changed":0,"ended_by":"finished","event":"report","failed":0,"is_complete":true,"unchanged":2}

"#]],
        );
        let exported = place.ok(&["audit", "export"]);
        let mut entries = serde_json::Deserializer::from_str(&exported).into_iter::<Value>();
        assert_data_eq!(
            stable(&without_writer(entries.next().unwrap().unwrap())),
            str![[
                r#"{"at":"YYYY-MM-DDThh:mm:ssZ","from":null,"key":"00000000-0000-0000-0000-000000000000","number":1,"reason":null,"to":"active","what":"added"}"#
            ]]
        );
    });
}

/// Formats an audit entry without its writer, which depends on the database.
fn without_writer(mut entry: Value) -> String {
    let fields = entry.as_object_mut().unwrap();
    fields.retain(|name, _| name != "db_user" && name != "application");
    entry.to_string()
}

#[test]
fn changes_of_a_kek_file_write_the_kek() {
    let place = Place::new(crate::support::Database::Sqlite);
    let [one, two] = [place.path("one.encx"), place.path("two.encx")];
    place.write_private("new.key", &"6b".repeat(32));
    let new_key = place.path("new.key");
    let new_key: &[&str] = &["--new-key-file", &new_key];
    for (command, more) in [
        ("init", &[][..]),
        ("add-kek", &[]),
        ("rotate", &[]),
        ("passwd", new_key),
    ] {
        let mut written = Vec::new();
        for (file, format) in [(&one, "table"), (&two, "json")] {
            let mut args = vec!["local", command, file, "--format", format];
            args.extend(more);
            written.push(stable(&place.ok(&args)));
        }
        let [table, json] = &written[..] else {
            panic!("{written:?}")
        };
        match command {
            "init" => {
                assert_data_eq!(
                    table,
                    str![[r#"
KEK                                         DEFAULT  STATE    ALIASES  MATERIALS
local/00000000-0000-0000-0000-000000000000  yes      enabled           1

"#]]
                );
                assert_data_eq!(
                    json,
                    str![[r#"
{"kek":"local/00000000-0000-0000-0000-000000000000","is_default":true,"state":"enabled","aliases":[],"materials":["00000000-0000-0000-0000-000000000001"]}

"#]]
                );
            }
            "add-kek" => {
                assert_data_eq!(
                    table,
                    str![[r#"
KEK                                         DEFAULT  STATE    ALIASES  MATERIALS
local/00000000-0000-0000-0000-000000000000  yes      enabled           1
local/00000000-0000-0000-0000-000000000001  no       enabled           1

"#]]
                );
                assert_data_eq!(
                    json,
                    str![[r#"
{"kek":"local/00000000-0000-0000-0000-000000000000","is_default":true,"state":"enabled","aliases":[],"materials":["00000000-0000-0000-0000-000000000001"]}
{"kek":"local/00000000-0000-0000-0000-000000000002","is_default":false,"state":"enabled","aliases":[],"materials":["00000000-0000-0000-0000-000000000003"]}

"#]]
                );
            }
            "rotate" => {
                assert_data_eq!(
                    table,
                    str![[r#"
KEK                                         DEFAULT  STATE    ALIASES  MATERIALS
local/00000000-0000-0000-0000-000000000000  yes      enabled           2
local/00000000-0000-0000-0000-000000000001  no       enabled           1

"#]]
                );
                assert_data_eq!(
                    json,
                    str![[r#"
{"kek":"local/00000000-0000-0000-0000-000000000000","is_default":true,"state":"enabled","aliases":[],"materials":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002"]}
{"kek":"local/00000000-0000-0000-0000-000000000003","is_default":false,"state":"enabled","aliases":[],"materials":["00000000-0000-0000-0000-000000000004"]}

"#]]
                );
            }
            _ => {
                assert_data_eq!(table, str![]);
                assert_data_eq!(json, str![]);
            }
        }
    }
}
