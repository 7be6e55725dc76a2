//! `encx keks`, `encx rewrap` and `encx local`: moving from one KEK to the next.

use snapbox::{assert_data_eq, str};

use crate::support::{Place, on_both, stable};

/// Adds a KEK to the file and returns its name.
fn add_kek(place: &Place) -> String {
    let made = place
        .run(&[
            "local",
            "add-kek",
            &place.path("keks.encx"),
            "--alias",
            "alias/next",
        ])
        .expect(0);
    let named = made
        .stderr
        .split_whitespace()
        .find(|word| word.starts_with("local/"))
        .unwrap();
    named.trim_end_matches(':').to_owned()
}

#[test]
fn keys_move_to_another_kek_and_then_the_old_one_can_retire() {
    on_both(|mut place| {
        for tenant in 1..=3 {
            place.create(&format!("tenantId=t-{tenant}"));
        }
        place
            .run(&["keks", "check"])
            .expect(0)
            .says("all well with 1 KEKs");
        let old = place.ok(&["keks", "list", "--format", "json"]);
        let old: serde_json::Value = serde_json::from_str(&old).unwrap();
        let old = old["kek"].as_str().unwrap().to_owned();
        place
            .run(&["keks", "can-retire", &old])
            .expect(3)
            .says("`encx rewrap`");

        let new = add_kek(&place);
        place
            .run(&["rewrap", "--to", &new])
            .expect(4)
            .says("`also_unwrap`");
        place.env.insert("ENCX_KEK".to_owned(), old.clone());
        place.env.insert("ENCX_ALSO_UNWRAP".to_owned(), new.clone());
        assert_data_eq!(
            place.ok(&["rewrap", "--to", &new, "--dry-run"]),
            str![[r#"
finished; 3 changed, 0 unchanged, 0 failed

"#]]
        );
        assert_data_eq!(
            place.ok(&["rewrap", "--to", &new, "--because", "new KEK"]),
            str![[r#"
finished; 3 changed, 0 unchanged, 0 failed

"#]]
        );
        assert_data_eq!(
            place.ok(&["rewrap", "--to", &new, "--format", "json"]),
            str![[r#"
{"changed":0,"event":"started","failed":0,"unchanged":0}
{"changed":0,"event":"progress","failed":0,"unchanged":3}
{"changed":0,"ended_by":"finished","event":"report","failed":0,"is_complete":true,"unchanged":3}

"#]]
        );
        assert_data_eq!(
            stable(&place.ok(&["keks", "list"])),
            str![[r#"
KMS      KEK                                         RULE  STATE    ROTATION  NEXT  VERSIONS  SOLE
default  local/00000000-0000-0000-0000-000000000000  yes   enabled  -         -     0         0
default  local/00000000-0000-0000-0000-000000000001  yes   enabled  -         -     3         3

"#]]
        );
        // The KEK wraps no version, but still wraps new ones.
        place
            .run(&["keks", "can-retire", &old])
            .expect(3)
            .says("name another KEK first");
        place.env.insert("ENCX_KEK".to_owned(), new.clone());
        place.env.insert("ENCX_ALSO_UNWRAP".to_owned(), old.clone());
        assert_data_eq!(
            stable(&place.ok(&["keks", "can-retire", &old])),
            str![[r#"
KEK                        default:local/00000000-0000-0000-0000-000000000000
can be retired             yes
versions it wraps          0
of these, by no other KEK  0
wraps new keys             no

"#]]
        );
        place.run(&["keks", "can-retire", &new]).expect(3);
        place
            .run(&["keks", "can-retire", "local/misspelled"])
            .expect(1)
            .says("does not know it");
        assert_eq!(
            place
                .ok(&["keys", "list", "--kek", &new, "--format", "json"])
                .lines()
                .count(),
            3
        );

        // A rule without the KEK that wraps the keys.
        place.env.insert("ENCX_KEK".to_owned(), old);
        place.env.remove("ENCX_ALSO_UNWRAP");
        let missing = place.run(&["keks", "check"]).expect(3);
        assert!(
            missing.stdout.contains("the KEK rule does not allow it"),
            "{}",
            missing.stdout
        );
    });
}

#[test]
fn the_chain_is_validated_and_the_status_shows_what_is_there() {
    on_both(|place| {
        place.create("tenantId=t-1");
        let validated = place.ok(&["validate", "--context", "tenantId=t-1", "--format", "json"]);
        let validated: serde_json::Value = serde_json::from_str(&validated).unwrap();
        assert_eq!(validated["overall_status"], "PASS", "{validated}");
        assert_eq!(validated["tests"]["cache_hit"], "PASS");
        // Validation stored no key.
        assert_eq!(place.ok(&["keys", "list", "--format", "json"]).lines().count(), 1);
        let table = place.ok(&["validate", "--context", "tenantId=t-1"]);
        assert!(table.lines().count() >= 10 && !table.contains("FAIL"), "{table}");

        let status = place.ok(&["status"]);
        for title in ["KEKs", "KEYS", "DUE", "PROCESSES", "COST"] {
            assert!(status.contains(title), "{status}");
        }
        let status: serde_json::Value =
            serde_json::from_str(&place.ok(&["status", "--format", "json"])).unwrap();
        assert_eq!(status["versions"][0]["versions"], 1, "{status}");
    });
}
