//! What each command writes, as table and JSON, on both databases.

use serde_json::Value;
use snapbox::{IntoData, assert_data_eq, str};

use crate::support::{Place, on_both, stable};

/// Runs a command in both formats and compares the output.
#[track_caller]
fn writes(place: &Place, args: &[&str], code: i32, table: impl IntoData, json: impl IntoData) {
    let written = place.run(args).expect(code).stdout;
    assert_data_eq!(stable(&written), table);
    let written = place
        .run(&[args, &["--format", "json"]].concat())
        .expect(code)
        .stdout;
    assert_data_eq!(stable(&steady(&written)), json);
}

/// Formats JSON without values that differ by run or database.
fn steady(text: &str) -> String {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let lines = values.map(|value| {
        let mut value = value.unwrap();
        make_steady(&mut value);
        format!("{value}\n")
    });
    lines.collect()
}

fn make_steady(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("db_user");
            fields.remove("application");
            fields.values_mut().for_each(make_steady);
        }
        Value::Array(values) => values.iter_mut().for_each(make_steady),
        Value::Number(number) if number.is_f64() => *value = 0.into(),
        _ => {}
    }
}

#[test]
fn every_command_writes_a_table_and_json() {
    on_both(|place| {
        let id = place.create("tenantId=t-1");
        place.ok(&["keys", "suspend", &id, "--yes"]);
        place.ok(&["keys", "resume", &id]);
        writes(
            &place,
            &["keys", "list"],
            0,
            str![[r#"
ID                                    USAGE  VERSION  STATE   CONTEXT       KEK                                                 ACTIVE SINCE          DUE
00000000-0000-0000-0000-000000000000  data   1        active  tenantId=t-1  default:local/00000000-0000-0000-0000-000000000001  YYYY-MM-DDThh:mm:ssZ  YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-1"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"due_at":"YYYY-MM-DDThh:mm:ssZ","id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":1}

"#]],
        );
        writes(
            &place,
            &["keys", "show", &id],
            0,
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
due at        YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-1"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"due_at":"YYYY-MM-DDThh:mm:ssZ","id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":1}

"#]],
        );
        writes(
            &place,
            &["keks", "list"],
            0,
            str![[r#"
KMS      KEK                                         RULE  STATE    ROTATION  NEXT  VERSIONS  SOLE
default  local/00000000-0000-0000-0000-000000000000  yes   enabled  -         -     1         1

"#]],
            str![[r#"
{"deletion_at":null,"is_in_rule":true,"kek":"local/00000000-0000-0000-0000-000000000000","kms":"default","last_rotation":null,"multi_region":null,"next_rotation":null,"rotation":null,"rotation_days":null,"sole":1,"state":"enabled","versions":1}

"#]],
        );
        writes(
            &place,
            &["maintain", "--once"],
            0,
            str![[r#"
0 made, 0 promoted, 0 failed

"#]],
            str![[r#"
{"failed":[],"held_elsewhere":false,"promoted":[],"published":[],"stopped":null}

"#]],
        );
        let file = place.path("keks.encx");
        writes(
            &place,
            &["local", "info", &file],
            0,
            str![[r#"
KEK                                         DEFAULT  STATE    ALIASES  MATERIALS
local/00000000-0000-0000-0000-000000000000  yes      enabled           1

"#]],
            str![[r#"
{"aliases":[],"is_default":true,"kek":"local/00000000-0000-0000-0000-000000000000","materials":["00000000-0000-0000-0000-000000000001"],"state":"enabled"}

"#]],
        );
        let value = format!("0101{}{}", id.replace('-', ""), "00".repeat(83));
        writes(
            &place,
            &["inspect", &value, "--resolve"],
            0,
            str![[r#"
suite        KcXaes256Gcm
key          00000000-0000-0000-0000-000000000000
key made at  YYYY-MM-DDThh:mm:ssZ
plaintext    11 bytes
ciphertext   101 bytes
usage        data
version      1
state        active
context      tenantId=t-1
KEKs         default:local/00000000-0000-0000-0000-000000000001

"#]],
            str![[r#"
{"bytes":101,"key":{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-1"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":1},"key_id":"00000000-0000-0000-0000-000000000000","key_made_at":"YYYY-MM-DDThh:mm:ssZ","plaintext_bytes":11,"suite":"KcXaes256Gcm"}

"#]],
        );
        place.age(100);
        writes(
            &place,
            &["keys", "needs-rotation"],
            3,
            str![[r#"
ID                                    USAGE  VERSION  STATE   CONTEXT       KEK                                                 ACTIVE SINCE          DUE
00000000-0000-0000-0000-000000000000  data   1        active  tenantId=t-1  default:local/00000000-0000-0000-0000-000000000001  YYYY-MM-DDThh:mm:ssZ  YYYY-MM-DDThh:mm:ssZ

"#]],
            str![[r#"
{"activated_at":"YYYY-MM-DDThh:mm:ssZ","changed_at":"YYYY-MM-DDThh:mm:ssZ","context":{"tenantId":"t-1"},"created_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"due_at":"YYYY-MM-DDThh:mm:ssZ","id":"00000000-0000-0000-0000-000000000000","keks":[{"kek":"local/00000000-0000-0000-0000-000000000001","kms":"default","material":"00000000-0000-0000-0000-000000000002"}],"state":"active","usage":"data","version":1}

"#]],
        );
        let rotated = place.ok(&["keys", "rotate", "-c", "tenantId=t-1", "--format", "json"]);
        assert_data_eq!(
            stable(&rotated),
            str![[r#"
{
  "id": "00000000-0000-0000-0000-000000000000",
  "usage": "data",
  "version": 2,
  "state": "active",
  "context": {
    "tenantId": "t-1"
  },
  "keks": [
    {
      "kms": "default",
      "kek": "local/00000000-0000-0000-0000-000000000001",
      "material": "00000000-0000-0000-0000-000000000002"
    }
  ],
  "created_at": "YYYY-MM-DDThh:mm:ssZ",
  "activated_at": "YYYY-MM-DDThh:mm:ssZ",
  "deactivated_at": null,
  "destroyed_at": null,
  "changed_at": "YYYY-MM-DDThh:mm:ssZ"
}

"#]]
        );
        assert_data_eq!(
            steady_of(&place, &["audit", "list"]),
            str![[r#"
{"at":"YYYY-MM-DDThh:mm:ssZ","from":null,"key":"00000000-0000-0000-0000-000000000000","number":1,"reason":null,"to":"active","what":"added"}
{"at":"YYYY-MM-DDThh:mm:ssZ","from":"active","key":"00000000-0000-0000-0000-000000000000","number":2,"reason":null,"to":"suspended","what":"state"}
{"at":"YYYY-MM-DDThh:mm:ssZ","from":"suspended","key":"00000000-0000-0000-0000-000000000000","number":3,"reason":null,"to":"active","what":"state"}
{"at":"YYYY-MM-DDThh:mm:ssZ","from":null,"key":"00000000-0000-0000-0000-000000000001","number":4,"reason":null,"to":"pre-active","what":"added"}
{"at":"YYYY-MM-DDThh:mm:ssZ","from":"active","key":"00000000-0000-0000-0000-000000000000","number":5,"reason":null,"to":"deactivated","what":"state"}
{"at":"YYYY-MM-DDThh:mm:ssZ","from":"pre-active","key":"00000000-0000-0000-0000-000000000001","number":6,"reason":null,"to":"active","what":"state"}

"#]]
        );
        assert_data_eq!(
            steady_of(&place, &["validate", "-c", "tenantId=t-1"]),
            str![[r#"
{"latency_ms":{"cache_hit":0,"decrypt":0,"encrypt":0,"generate_data_key":0,"key_retrieval":0,"unwrap_key":0,"unwrap_wrapped":0,"wrap_key":0,"wrong_context":0},"overall_status":"PASS","tests":{"cache_hit":"PASS","decrypt":"PASS","encrypt":"PASS","generate_data_key":"PASS","key_retrieval":"PASS","unwrap_key":"PASS","unwrap_wrapped":"PASS","wrap_key":"PASS","wrong_context":"PASS"}}

"#]]
        );
        let kek = serde_json::from_str::<Value>(&place.ok(&["keks", "list", "--format", "json"])).unwrap();
        let kek = kek["kek"].as_str().unwrap();
        writes(
            &place,
            &["keks", "can-retire", kek],
            3,
            str![[r#"
KEK                        default:local/00000000-0000-0000-0000-000000000000
can be retired             no
versions it wraps          2
of these, by no other KEK  2
wraps new keys             yes

"#]],
            str![[r#"
{"can_retire":false,"kek":"local/00000000-0000-0000-0000-000000000000","kms":"default","sole":2,"versions":2,"wraps_new_keys":true}

"#]],
        );
    });
}

fn steady_of(place: &Place, args: &[&str]) -> String {
    stable(&steady(&place.ok(&[args, &["--format", "json"]].concat())))
}
