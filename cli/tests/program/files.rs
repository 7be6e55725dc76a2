//! Commands that need no server: KEK files, ciphertexts, settings, completions, manual pages.

use std::process::Stdio;

use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};

use crate::support::{Database, Place, on_both, stable};

#[test]
fn a_kek_file_is_made_rotated_and_reprotected() {
    let place = Place::new(Database::Sqlite);
    let file = place.path("keks.encx");
    place.create("tenantId=t-1");
    place
        .run(&["local", "init", &file])
        .expect(1)
        .says("exists already");
    assert_data_eq!(
        stable(&place.ok(&["local", "info", &file])),
        str![[r#"
KEK                                         DEFAULT  STATE    ALIASES  MATERIALS
local/00000000-0000-0000-0000-000000000000  yes      enabled           1

"#]]
    );
    place
        .run(&["local", "rotate", &file])
        .expect(0)
        .says("back the file up");
    assert_data_eq!(
        stable(&place.ok(&["local", "info", &file, "--format", "json"])),
        str![[r#"
{"kek":"local/00000000-0000-0000-0000-000000000000","is_default":true,"state":"enabled","aliases":[],"materials":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002"]}

"#]]
    );

    place.write_private("new.key", &"5b".repeat(32));
    place.ok(&["local", "passwd", &file, "--new-key-file", &place.path("new.key")]);
    place.run(&["local", "info", &file]).expect(1).says("key");
    place.ok(&["local", "info", &file, "--key-file", &place.path("new.key")]);
    // The keys that it wrapped still unwrap.
    let mut place = place;
    place
        .env
        .insert("ENCX_KEK_KEY_FILE".to_owned(), place.path("new.key"));
    place.ok(&["validate", "--context", "tenantId=t-1"]);
}

#[test]
fn a_ciphertext_is_inspected_in_every_form() {
    on_both(|place| {
        let id = place.create("tenantId=t-1");
        let hex = format!("0101{}{}", id.replace('-', ""), "00".repeat(24 + 11 + 16 + 32));
        let inspected = place.ok(&["inspect", &hex]);
        assert_data_eq!(
            stable(&inspected),
            str![[r#"
suite        KcXaes256Gcm
key          00000000-0000-0000-0000-000000000000
key made at  YYYY-MM-DDThh:mm:ssZ
plaintext    11 bytes
ciphertext   101 bytes

"#]]
        );
        assert_eq!(place.ok(&["inspect", &format!("\\x{hex}")]), inspected);
        std::fs::write(place.path("value"), format!("{hex}\n")).unwrap();
        assert_eq!(place.ok(&["inspect", &place.path("value")]), inspected);
        let mut from_stdin = place.command(&["inspect", "-"]);
        from_stdin.stdin(Stdio::from(std::fs::File::open(place.path("value")).unwrap()));
        assert_eq!(
            String::from_utf8(from_stdin.output().unwrap().stdout).unwrap(),
            inspected
        );
        let resolved = place.ok(&["inspect", &hex, "--resolve"]);
        assert!(
            resolved.contains("tenantId=t-1") && resolved.contains("active"),
            "{resolved}"
        );
        let elsewhere = hex.replace(&id.replace('-', ""), "0190163d8694739aabb71bb3fa4d6a6f");
        place
            .run(&["inspect", &elsewhere, "--resolve"])
            .expect(3)
            .says("no such key");
        place
            .run(&["inspect", "no such file"])
            .expect(1)
            .says("neither base64 nor hex");
        place
            .run(&["inspect", "00ff"])
            .expect(1)
            .says("no ciphertext of encx");
    });
}

#[test]
fn settings_are_shown_without_secrets_and_checked() {
    on_both(|mut place| {
        place
            .run(&["config", "check"])
            .expect(0)
            .says("the settings are good");
        let shown = place.ok(&["config", "show"]);
        assert!(
            shown.contains("cache.ttl") && shown.contains("ENCX_KMS"),
            "{shown}"
        );
        place.env.insert(
            "ENCX_KEY_STORE".to_owned(),
            "postgres://app:hunter2@127.0.0.1:1/app".to_owned(),
        );
        let shown = place.ok(&["config", "show", "--format", "json"]);
        assert!(
            !shown.contains("hunter2") && shown.contains("[REDACTED]"),
            "{shown}"
        );
        let refused = place.run(&["config", "check"]).expect(2);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    });
}

#[test]
fn tables_are_made_in_steps_that_can_be_read_first() {
    for database in [Database::Sqlite, Database::Postgres] {
        let place = Place::bare(database);
        place
            .run(&["migrate", "status"])
            .expect(3)
            .says("encx migrate run");
        place.run(&["keys", "list"]).expect(2).says("migrate");
        let sql = place.ok(&["migrate", "sql"]);
        assert!(sql.contains("CREATE TABLE"), "{sql}");
        place.ok(&["migrate", "run"]);
        let status = place.ok(&["migrate", "status"]);
        assert!(!status.contains(" no"), "{status}");
        assert_eq!(place.ok(&["migrate", "sql"]), "");
    }
}

#[test]
fn shells_and_pages_know_every_command() {
    let place = Place::new(Database::Sqlite);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            place.ok(&["completions", shell]).contains("needs-rotation"),
            "{shell}"
        );
    }
    assert!(place.ok(&["man"]).contains(".TH"));
    place.ok(&["man", "--dir", &place.path("man")]);
    assert!(std::path::Path::new(&place.path("man/encx-keys-list.1")).exists());
    assert_eq!(
        place.ok(&["version"]),
        format!("encx {}\n", env!("CARGO_PKG_VERSION"))
    );
    let version: Value = serde_json::from_str(&place.ok(&["version", "--format", "json"])).unwrap();
    assert_eq!(version, json!({ "version": env!("CARGO_PKG_VERSION") }));
}
