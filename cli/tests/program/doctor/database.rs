//! Faults of the database: its tables, server and role, and poolers in front of it.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use super::{Report, Ward, on_both};
use crate::pooler::Pooler;
use crate::server::{self, Server};
use crate::support::{Database, Place, run_sql};

#[test]
fn tables_that_are_missing_or_of_another_version() {
    for database in [Database::Sqlite, Database::Postgres] {
        let place = Place::bare(database);
        let ran = place.run(&["doctor", "--format", "json"]).expect(3);
        assert!(ran.stdout.contains("schema-behind"), "{}", ran.stdout);
    }
    on_both(|ward| {
        ward.place.create("tenantId=t-1");
        ward.sql(
            "DELETE FROM encx.migrations WHERE version > 4",
            "DELETE FROM encx_migrations WHERE version > 5",
        );
        let report = ward.finds(&[("schema-behind", "error")]);
        report.says("encx migrate run");
        assert_eq!(report.not_checked().len(), 6, "{:?}", report.not_checked());
        ward.sql(
            "INSERT INTO encx.migrations (version, compatible_from) VALUES (100, 100)",
            "INSERT INTO encx_migrations (version, compatible_from) VALUES (100, 100)",
        );
        ward.finds(&[("schema-newer", "error")]);
    });
}

/// The tests' server disables durability for speed, which a service must not do.
#[test]
fn a_server_that_a_crash_may_empty() {
    let ward = Ward::new(Database::Postgres);
    let shows = |setting: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let url = &ward.admin;
        runtime.unwrap().block_on(async {
            use sqlx::Connection as _;
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            let shown: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            shown
        })
    };
    let ran = ward.place.run(&["doctor", "--format", "json"]);
    for (setting, code) in [
        ("fsync", "fsync-off"),
        ("full_page_writes", "full-page-writes-off"),
    ] {
        let is_found = ran.stdout.contains(&format!("\"{code}\""));
        assert_eq!(is_found, shows(setting) == "off", "{}", ran.stdout);
    }
}

/// No such server runs here, so a function that the role finds first says that this one is.
#[test]
fn a_server_that_is_too_old() {
    let ward = Ward::new(Database::Postgres);
    ward.place.create("tenantId=t-1");
    let role = ward.role();
    let is_of = |number: u32, name: &str| {
        run_sql(
            &ward.admin,
            &format!(
                "CREATE SCHEMA IF NOT EXISTS old;
                 CREATE OR REPLACE FUNCTION old.current_setting(setting text) RETURNS text LANGUAGE sql AS $$
                     SELECT CASE setting WHEN 'server_version_num' THEN '{number}' WHEN 'server_version' THEN '{name}'
                            ELSE pg_catalog.current_setting(setting) END $$;
                 GRANT USAGE ON SCHEMA old TO {role};
                 ALTER ROLE {role} SET search_path = old, pg_catalog, public"
            ),
        );
    };
    is_of(120_022, "12.22");
    ward.finds(&[("postgres-version", "error")])
        .says("it is PostgreSQL 12.22, and encx needs 13 or later")
        .checked_all();
    is_of(130_000, "13.0");
    ward.finds(&[]).checked_all();
}

#[test]
fn a_role_with_too_many_rights() {
    let mut ward = Ward::new(Database::Postgres);
    ward.place.create("tenantId=t-1");
    let role = ward.role().to_owned();
    let cases = [
        (
            "GRANT UPDATE, TRUNCATE ON encx.audit_log TO app",
            "role-may-edit-audit",
            "REVOKE UPDATE, TRUNCATE ON encx.audit_log FROM app",
        ),
        // On one column only.
        (
            "GRANT UPDATE (reason) ON encx.audit_log TO app",
            "role-may-edit-audit",
            "REVOKE UPDATE (reason) ON encx.audit_log FROM app",
        ),
        (
            "GRANT DELETE ON encx.data_keys TO app",
            "role-excess-rights",
            "REVOKE DELETE ON encx.data_keys FROM app",
        ),
        (
            "GRANT CREATE ON SCHEMA encx TO app",
            "role-excess-rights",
            "REVOKE CREATE ON SCHEMA encx FROM app",
        ),
        (
            "ALTER ROLE app CREATEROLE",
            "role-attributes",
            "ALTER ROLE app NOCREATEROLE",
        ),
        (
            "GRANT pg_read_server_files TO app",
            "role-attributes",
            "REVOKE pg_read_server_files FROM app",
        ),
        (
            "ALTER ROLE app SUPERUSER",
            "role-superuser",
            "ALTER ROLE app NOSUPERUSER",
        ),
        (
            "ALTER TABLE encx.jobs OWNER TO app",
            "role-owns-tables",
            "ALTER TABLE encx.jobs OWNER TO CURRENT_USER",
        ),
    ];
    for (plant, code, undo) in cases {
        run_sql(&ward.admin, &plant.replace("app", &role));
        ward.finds(&[(code, "warning")]).says(&role).checked_all();
        run_sql(&ward.admin, &undo.replace("app", &role));
    }
    run_sql(
        &ward.admin,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON encx.jobs TO {role}"),
    );
    ward.finds(&[]).checked_all();
    // The role may not read this table, so one check reports that it could not run.
    run_sql(
        &ward.admin,
        &format!("REVOKE SELECT ON encx.audit_log FROM {role}"),
    );
    let not_checked = ward.finds(&[]).not_checked();
    assert!(
        matches!(not_checked.as_slice(), [one] if one.contains("permission denied")),
        "{not_checked:?}"
    );
    ward.set("ENCX_KEY_STORE", ward.admin.clone());
    ward.finds(&[("role-superuser", "warning")]);
}

#[test]
fn a_file_that_others_may_read() {
    let ward = Ward::new(Database::Sqlite);
    ward.place.create("tenantId=t-1");
    for (mode, expected) in [
        (0o644, Some(("database-file-readable", "warning"))),
        (0o646, Some(("database-file-writable", "error"))),
        (0o640, None),
    ] {
        ward.place.chmod("keys.db", mode);
        ward.finds(expected.as_slice()).checked_all();
    }
}

#[test]
fn a_damaged_file() {
    let ward = Ward::new(Database::Sqlite);
    for tenant in 0..20 {
        ward.place.create(&format!("tenantId=t-{tenant}"));
    }
    // Pages that no table or index uses.
    ward.sql(
        "",
        "CREATE INDEX lost ON encx_data_keys (created_at);
         PRAGMA writable_schema = ON;
         DELETE FROM sqlite_schema WHERE name = 'lost'",
    );
    ward.finds_with(&["--deep"], &[("database-damaged", "error")]);
}

#[test]
fn a_pooler_by_which_no_hint_arrives() {
    let mut ward = Ward::new(Database::Postgres);
    ward.place.create("tenantId=t-1");
    let direct = ward.place.env["ENCX_KEY_STORE"].clone();
    let options = PgConnectOptions::from_str(&direct).unwrap();
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let pooler = Pooler::start(&(host.clone(), port, ward.role().to_owned()));
    let pooled = direct.replace(&format!("{host}:{port}"), &format!("127.0.0.1:{}", pooler.port));
    assert_ne!(pooled, direct);
    ward.set("ENCX_KEY_STORE", pooled.clone());
    ward.set("ENCX_KEY_STORE_TRANSACTION_POOLER", "true");
    let finding = [("hints-do-not-arrive", "warning")];
    let all_but_columns = |report: &Report| {
        let not_checked = report.not_checked();
        let columns = |why: &String| why.starts_with("columns: ");
        assert!(
            not_checked.len() == 1 && not_checked.iter().all(columns),
            "{not_checked:?}"
        );
    };
    all_but_columns(ward.finds(&finding).says("ENCX_LISTEN_URL"));
    ward.set("ENCX_LISTEN_URL", pooled.clone());
    all_but_columns(ward.finds(&finding).says("leads to a transaction pooler"));
    ward.set("ENCX_LISTEN_URL", "postgres://app:hunter2@127.0.0.1:1/app");
    let report = ward.finds(&finding);
    report.says("nothing can listen there");
    assert!(!report.json.to_string().contains("hunter2"));
    ward.set("ENCX_LISTEN_URL", direct);
    all_but_columns(&ward.finds(&[]));
    // The check also detects it without the setting.
    ward.place.env.remove("ENCX_KEY_STORE_TRANSACTION_POOLER");
    ward.place.env.remove("ENCX_LISTEN_URL");
    ward.set("ENCX_KEY_STORE", format!("{pooled}?statement-cache-capacity=0"));
    all_but_columns(&ward.finds(&finding));

    // This pooler accepts the drivers' startup parameters, so it shows only when statements fail.
    let server = (host.clone(), port, ward.role().to_owned());
    let hidden = Pooler::start_with(&server, "ignore_startup_parameters = extra_float_digits\n");
    let url = pooled.replace(&pooler.port.to_string(), &hidden.port.to_string());
    ward.set("ENCX_KEY_STORE", url);
    let ran = ward.place.run(&ward.args(&[]));
    assert!(
        ran.stdout.contains("\"pooler-not-declared\""),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
}

/// A standby in place of its primary.
#[test]
fn a_server_that_takes_no_writes() {
    let server = Server::take();
    let url = format!("postgres://postgres@127.0.0.1:{}", server.address().get_port());
    run_sql(&format!("{url}/postgres"), "CREATE DATABASE standby");
    let mut place = Place::bare(Database::Sqlite);
    place
        .env
        .insert("ENCX_KEY_STORE".to_owned(), format!("{url}/standby"));
    place.ok(&["migrate", "run"]);
    place.create("tenantId=t-1");
    let accepted = [
        "doctor",
        "--format",
        "json",
        "--accept",
        "fsync-off",
        "--accept",
        "role-superuser",
    ];
    let healthy = place.run(&accepted).expect(0).stdout;
    assert!(!healthy.contains("not-checked"), "{healthy}");
    server.start_standby();
    let report = Report::new(place.run(&accepted), &[("not-primary", "error")]);
    report.checked_all();
    drop(server);
    server::stop();
}
