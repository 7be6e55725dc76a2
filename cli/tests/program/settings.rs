//! Output of commands about settings, tables and validation, as table and JSON.

use serde_json::Value;
use snapbox::{assert_data_eq, str};

use crate::support::{Database, Place, on_both, stable};

/// Replaces what differs by place: the folder, the key store's address, decimal numbers, the process id, and
/// alignment.
fn settled(place: &Place, text: &str) -> String {
    let folder = place.path("");
    let folder = folder.trim_end_matches('/');
    let lines = stable(text).replace(folder, "FOLDER");
    let lines = lines.lines().map(|line| {
        let mut words = line.split_whitespace().map(|word| match word {
            word if word.starts_with("postgres://") || word.starts_with("sqlite:") => "KEY_STORE",
            word if is_decimal(word) => "0.0",
            word if word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_digit()) => "00",
            word => word,
        });
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |line, word| line + " " + word) + "\n"
    });
    lines.collect()
}

/// Tells whether a text is this program's process name: `encx` and a number.
fn is_process(text: &str) -> bool {
    let number = text.strip_prefix("encx ").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_decimal(word: &str) -> bool {
    word.split_once('.').is_some_and(|(whole, part)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(whole) && digits(part)
    })
}

/// Returns the JSON values that a command writes, without the fields in `unstable`.
fn json(place: &Place, args: &[&str], code: i32, unstable: &[&str]) -> String {
    let written = place.run(&[args, &["--format", "json"]].concat()).expect(code);
    let values = serde_json::Deserializer::from_str(&written.stdout).into_iter::<Value>();
    let lines = values.map(|value| {
        let mut value = value.unwrap();
        remove(&mut value, unstable);
        format!("{value}\n")
    });
    let text: String = lines.collect();
    let folder = place.path("");
    let text = stable(&text).replace(folder.trim_end_matches('/'), "FOLDER");
    // The key store's address contains no quotes.
    let mut parts = text.split('"').map(|part| match part {
        part if part.starts_with("postgres://") || part.starts_with("sqlite:") => "KEY_STORE",
        part if is_process(part) => "encx 00",
        part => part,
    });
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "\"" + part)
}

fn remove(value: &mut Value, unstable: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !unstable.contains(&name.as_str()));
            fields.values_mut().for_each(|value| remove(value, unstable));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remove(value, unstable)),
        _ => {}
    }
}

#[test]
fn settings_are_shown_and_checked() {
    on_both(|place| {
        let shown = place.ok(&["config", "show"]);
        let set = |line: &&str| !line.trim_end().ends_with("default");
        let shown: Vec<_> = shown.lines().filter(set).collect();
        assert_data_eq!(
            settled(&place, &shown.join("\n")),
            str![[r#"
SETTING VALUE SET BY
kek.key_file FOLDER/kek.key `ENCX_KEK_KEY_FILE`
kms.default local:FOLDER/keks.encx; key_file = FOLDER/kek.key `ENCX_KMS`
key_store.url KEY_STORE `ENCX_KEY_STORE`

"#]]
        );
        let shown = json(&place, &["config", "show"], 0, &[]);
        let shown: Vec<Value> = serde_json::from_str(&shown).unwrap();
        assert!(shown.len() > 30, "defaults are shown too");
        let set = shown.iter().filter(|setting| setting["is_default"] == false);
        let set: Vec<_> = set.map(Value::to_string).collect();
        assert_data_eq!(
            set.join("\n"),
            str![[r#"
{"is_default":false,"key":"kek.key_file","origin":"`ENCX_KEK_KEY_FILE`","value":"FOLDER/kek.key","variable":"ENCX_KEK_KEY_FILE"}
{"is_default":false,"key":"kms.default","origin":"`ENCX_KMS`","value":"local:FOLDER/keks.encx; key_file = FOLDER/kek.key","variable":null}
{"is_default":false,"key":"key_store.url","origin":"`ENCX_KEY_STORE`","value":"KEY_STORE","variable":"ENCX_KEY_STORE"}
"#]]
        );
        assert_data_eq!(
            settled(&place, &place.ok(&["config", "check"])),
            str![[r#"
WHAT NAME ANSWER
KEK default:local/00000000-0000-0000-0000-000000000000 enabled
key store KEY_STORE has its tables

"#]]
        );
        assert_data_eq!(
            json(&place, &["config", "check"], 0, &[]),
            str![[r#"
{"answer":"enabled","name":"default:local/00000000-0000-0000-0000-000000000000","what":"KEK"}
{"answer":"has its tables","name":"KEY_STORE","what":"key store"}

"#]]
        );
    });
}

#[test]
fn the_steps_of_the_tables_are_listed() {
    for database in [Database::Sqlite, Database::Postgres] {
        let place = Place::bare(database);
        let status = &["migrate", "status"];
        let before = place.run(status).expect(3).says("encx migrate run").stdout;
        let before_json = json(&place, status, 3, &[]);
        // What it did is talk, not data, in either format.
        let run = place.run(&["migrate", "run"]).expect(0);
        assert_eq!(run.says("the key store's tables are up to date now").stdout, "");
        let run = place.run(&["migrate", "run", "--format", "json"]).expect(0);
        assert_eq!(run.says("were up to date already").stdout, "");
        let (after, after_json) = (place.ok(status), json(&place, status, 0, &[]));
        match database {
            Database::Sqlite => {
                assert_data_eq!(
                    before,
                    str![[r#"
STEP  NAME          RAN
1     keys          no
2     coordination  no
3     application   no
4     lists         no
5     faults        no
6     versions      no

"#]]
                );
                assert_data_eq!(
                    before_json,
                    str![[r#"
{"is_applied":false,"name":"keys","version":1}
{"is_applied":false,"name":"coordination","version":2}
{"is_applied":false,"name":"application","version":3}
{"is_applied":false,"name":"lists","version":4}
{"is_applied":false,"name":"faults","version":5}
{"is_applied":false,"name":"versions","version":6}

"#]]
                );
                assert_data_eq!(
                    after,
                    str![[r#"
STEP  NAME          RAN
1     keys          yes
2     coordination  yes
3     application   yes
4     lists         yes
5     faults        yes
6     versions      yes

"#]]
                );
                assert_data_eq!(
                    after_json,
                    str![[r#"
{"is_applied":true,"name":"keys","version":1}
{"is_applied":true,"name":"coordination","version":2}
{"is_applied":true,"name":"application","version":3}
{"is_applied":true,"name":"lists","version":4}
{"is_applied":true,"name":"faults","version":5}
{"is_applied":true,"name":"versions","version":6}

"#]]
                );
            }
            Database::Postgres => {
                assert_data_eq!(
                    before,
                    str![[r#"
STEP  NAME          RAN
1     keys          no
2     coordination  no
3     lists         no
4     faults        no
5     versions      no

"#]]
                );
                assert_data_eq!(
                    before_json,
                    str![[r#"
{"is_applied":false,"name":"keys","version":1}
{"is_applied":false,"name":"coordination","version":2}
{"is_applied":false,"name":"lists","version":3}
{"is_applied":false,"name":"faults","version":4}
{"is_applied":false,"name":"versions","version":5}

"#]]
                );
                assert_data_eq!(
                    after,
                    str![[r#"
STEP  NAME          RAN
1     keys          yes
2     coordination  yes
3     lists         yes
4     faults        yes
5     versions      yes

"#]]
                );
                assert_data_eq!(
                    after_json,
                    str![[r#"
{"is_applied":true,"name":"keys","version":1}
{"is_applied":true,"name":"coordination","version":2}
{"is_applied":true,"name":"lists","version":3}
{"is_applied":true,"name":"faults","version":4}
{"is_applied":true,"name":"versions","version":5}

"#]]
                );
            }
        }
    }
}

#[test]
fn the_status_and_a_validation_are_tables_and_json() {
    on_both(|place| {
        place.create("tenantId=t-1");
        assert_data_eq!(
            settled(&place, &place.ok(&["validate", "-c", "tenantId=t-1"])),
            str![[r#"
STEP KEK RESULT MS
generate_data_key default:local/00000000-0000-0000-0000-000000000000 pass 0.0
unwrap_key default:local/00000000-0000-0000-0000-000000000000 pass 0.0
wrap_key default:local/00000000-0000-0000-0000-000000000000 pass 0.0
unwrap_wrapped default:local/00000000-0000-0000-0000-000000000000 pass 0.0
wrong_context default:local/00000000-0000-0000-0000-000000000000 pass 0.0
encrypt - pass 0.0
decrypt - pass 0.0
key_retrieval - pass 0.0
cache_hit - pass 0.0

"#]]
        );
        let status = settled(&place, &place.ok(&["status"]));
        // The counts depend on when processes last reported theirs.
        let (before, counted) = status.split_once("USE BY DAY").unwrap();
        assert!(
            counted.contains("COST") && counted.contains("USD a month"),
            "{counted}"
        );
        assert_data_eq!(
            before,
            str![[r#"
KEKs
KMS PROVIDER KEK STATE ROTATION NEXT ROTATION
default local local/00000000-0000-0000-0000-000000000000 enabled - -

KEYS
USAGE STATE VERSIONS OLDEST ACTIVE SINCE
data active 1 YYYY-MM-DDThh:mm:ssZ

DUE
0 versions

PROCESSES
none


"#]]
        );
        let unstable = ["cost", "days", "states_age_seconds"];
        assert_data_eq!(
            json(&place, &["status"], 0, &unstable),
            str![[r#"
{"cache":{"hit_rate":null,"hits":0,"keyrings":0,"keys":0,"misses":0},"due":{"first":[],"unreadable":0,"versions":0},"health":{"checks":[{"data":{"circuit":"closed","kek":"local/00000000-0000-0000-0000-000000000000","kms":"default","last_call":"ok","last_success_at":"YYYY-MM-DDThh:mm:ssZ","provider":"local"},"name":"kms","status":"UP"},{"data":{"last_call":"ok","last_success_at":"YYYY-MM-DDThh:mm:ssZ"},"name":"key_store","status":"UP"},{"data":{"decrypt":false,"encrypt":false,"keys":0},"name":"keys","status":"UP"}],"status":"UP"},"kms":[{"circuit":"closed","keks":[{"description":{"current_material":"00000000-0000-0000-0000-000000000001","kek":"local/00000000-0000-0000-0000-000000000000","state":"enabled"},"name":"local/00000000-0000-0000-0000-000000000000"}],"name":"default","provider":"local"}],"processes":[],"unreadable_versions":0,"versions":[{"oldest_activated_at":"YYYY-MM-DDThh:mm:ssZ","state":"active","usage":"data","versions":1}]}

"#]]
        );
    });
}
