//! Failures: message, exit code, and no secret in the output.

use crate::support::{Database, Place, on_both, run_sql};

#[test]
fn wrong_usage_and_wrong_settings_are_1() {
    let mut place = Place::new(Database::Sqlite);
    place
        .run(&["keys", "lits"])
        .expect(1)
        .says("unrecognized subcommand");
    place
        .run(&["keys", "list", "--state", "dead"])
        .expect(1)
        .says("write one of pre-active, active");
    place
        .run(&["keys", "create", "--context", "tenant"])
        .expect(1)
        .says("KEY=VALUE");
    place
        .run(&["keys", "show", "0190163d-8694-739a-abb7-1bb3fa4d6a6f"])
        .expect(1)
        .says("encx keys list");
    place
        .run(&["--config", "nowhere.toml", "keys", "list"])
        .expect(1)
        .says("nowhere.toml");
    place.env.insert("ENCX_CACHE_TTL".to_owned(), "60".to_owned());
    place.run(&["status"]).expect(1).says("has no unit");
    place.env.remove("ENCX_CACHE_TTL");
    place.env.remove("ENCX_KEY_STORE");
    place.run(&["keys", "list"]).expect(1).says("ENCX_KEY_STORE");
}

#[test]
fn a_wrong_passphrase_is_1_and_is_not_shown() {
    let mut place = Place::new(Database::Sqlite);
    place.write_private("passphrase", "correct horse\n");
    place.write_private("wrong", "wrong horse\n");
    let file = place.path("second.encx");
    place.env.remove("ENCX_KEK_KEY_FILE");
    place.ok(&[
        "local",
        "init",
        &file,
        "--passphrase-file",
        &place.path("passphrase"),
    ]);
    place.env.insert("ENCX_KMS".to_owned(), format!("local:{file}"));
    place
        .env
        .insert("ENCX_KEK_PASSPHRASE_FILE".to_owned(), place.path("wrong"));
    let refused = place
        .run(&["keys", "create", "-c", "tenantId=t-1"])
        .expect(1)
        .says("passphrase");
    assert!(!refused.stderr.contains("wrong horse"), "{}", refused.stderr);
    std::fs::set_permissions(
        place.path("wrong"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    place
        .run(&["validate", "-c", "tenantId=t-1"])
        .expect(1)
        .says("chmod 600");
}

#[test]
fn a_database_that_is_down_is_2() {
    on_both(|mut place| {
        let down = match place.database {
            Database::Postgres => "postgres://app:hunter2@127.0.0.1:1/app?connect_timeout=1".to_owned(),
            Database::Sqlite => format!("sqlite:{}", place.path("no/such/folder.db")),
        };
        place.env.insert("ENCX_KEY_STORE".to_owned(), down);
        for command in [
            &["keys", "list"][..],
            &["status"],
            &["audit", "list"],
            &["maintain", "--once"],
        ] {
            let refused = place.run(command).expect(2);
            assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
        }
    });
}

#[test]
fn a_kms_that_is_down_is_2() {
    let mut place = Place::new(Database::Sqlite);
    place.create("tenantId=t-1");
    for (name, value) in [
        (
            "ENCX_KMS",
            "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        ),
        ("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        place.env.insert(name.to_owned(), value.to_owned());
    }
    place.env.remove("ENCX_KEK_KEY_FILE");
    // Listing needs no KMS.
    assert_eq!(place.ok(&["keys", "list", "--format", "json"]).lines().count(), 1);
    place
        .run(&["keys", "create", "-c", "tenantId=t-2"])
        .expect(2)
        .says("127.0.0.1:1");
    place.run(&["keks", "check"]).expect(2);
    place.run(&["config", "check"]).expect(2).says("127.0.0.1:1");
}

#[test]
fn a_role_that_may_only_read_lists_and_changes_nothing() {
    let mut place = Place::new(Database::Postgres);
    let id = place.create("tenantId=t-1");
    let (admin, role) = (
        place.env["ENCX_KEY_STORE"].clone(),
        format!("encx_auditor_{}", std::process::id()),
    );
    run_sql(
        &admin,
        &format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'hunter2'; GRANT USAGE ON SCHEMA encx TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA encx TO {role}"
        ),
    );
    let (scheme, rest) = admin.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    place.env.insert(
        "ENCX_KEY_STORE".to_owned(),
        format!("{scheme}://{role}:hunter2@{host}"),
    );
    assert_eq!(place.ok(&["keys", "list", "--format", "json"]).lines().count(), 1);
    let refused = place
        .run(&["keys", "suspend", &id, "--yes"])
        .expect(2)
        .says("permission denied");
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    run_sql(&admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
