//! `encx doctor`: a healthy setup has no finding, and each planted fault has only its own, on SQLite and
//! PostgreSQL.

mod columns;
mod database;
mod keys;
mod kms;
mod replica;
mod shreddings;

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;
use snapbox::{assert_data_eq, str};

use crate::support::{Database, Place, Ran, run_sql, stable};

/// Faults that the tests' server has on purpose.
const OF_TESTS: [&str; 4] = ["--accept", "fsync-off", "--accept", "full-page-writes-off"];

/// A healthy setup: on PostgreSQL a role with the README's rights, on SQLite a private file.
pub(crate) struct Ward {
    pub(crate) place: Place,
    /// The administrator's URL.
    pub(crate) admin: String,
    /// Dropped after the place, whose tables refer to it.
    _role: Option<Role>,
}

/// A role on the server.
struct Role {
    server: String,
    name: String,
}

impl Drop for Role {
    fn drop(&mut self) {
        run_sql(&self.server, &format!("DROP ROLE {}", self.name));
    }
}

/// Runs a test on a healthy setup, on both databases.
pub(crate) fn on_both(test: impl Fn(Ward)) {
    for database in [Database::Sqlite, Database::Postgres] {
        test(Ward::new(database));
    }
}

impl Ward {
    pub(crate) fn new(database: Database) -> Self {
        let mut place = Place::new(database);
        let admin = place.env["ENCX_KEY_STORE"].clone();
        let role = match database {
            Database::Sqlite => {
                place.chmod("keys.db", 0o600);
                None
            }
            Database::Postgres => {
                let (before, name) = admin.rsplit_once('/').unwrap();
                let role = format!("{name}_service");
                run_sql(&admin, &format!("CREATE ROLE {role} LOGIN; {}", grants(&role)));
                let (scheme, rest) = before.split_once("://").unwrap();
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                let url = format!("{scheme}://{role}@{host}/{name}");
                place.env.insert("ENCX_KEY_STORE".to_owned(), url);
                Some(Role {
                    server: format!("{before}/postgres"),
                    name: role,
                })
            }
        };
        Self {
            place,
            admin,
            _role: role,
        }
    }

    /// Returns the name of the database role.
    pub(crate) fn role(&self) -> &str {
        &self._role.as_ref().unwrap().name
    }

    /// Changes the database as an administrator.
    pub(crate) fn sql(&self, on_postgres: &str, on_sqlite: &str) {
        match self.place.database {
            Database::Postgres => run_sql(&self.admin, on_postgres),
            Database::Sqlite => run_sql(&self.admin, on_sqlite),
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.place.database == Database::Postgres
    }

    pub(crate) fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.place.env.insert(variable.to_owned(), value.into());
    }

    fn args<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["doctor", "--format", "json"];
        if self.is_postgres() {
            args.extend(OF_TESTS);
        }
        args.extend(more);
        args
    }

    /// Runs the doctor. It must report exactly these codes and severities, with the matching exit code.
    #[track_caller]
    pub(crate) fn finds(&self, expected: &[(&str, &str)]) -> Report {
        self.finds_with(&[], expected)
    }

    #[track_caller]
    pub(crate) fn finds_with(&self, more: &[&str], expected: &[(&str, &str)]) -> Report {
        let args = self.args(more);
        Report::new(self.place.run(&args), expected)
    }

    /// Like `finds`, with the program's clock shifted by `offset`.
    #[track_caller]
    pub(crate) fn finds_at(&self, offset: &str, expected: &[(&str, &str)]) -> Report {
        let (args, inner) = (self.args(&[]), self.place.command(&[]));
        let mut command = Command::new("faketime");
        command
            .args(["-m", "--exclude-monotonic", "-f", offset])
            .arg(inner.get_program())
            .args(&args)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .envs(&self.place.env)
            .current_dir(inner.get_current_dir().unwrap());
        let output = command.output().expect(
            "faketime is needed: run ./scripts/test, which installs it, or `apt-get install faketime`",
        );
        Report::new(Ran::new(&args, output), expected)
    }
}

impl Place {
    pub(crate) fn chmod(&self, file: &str, mode: u32) {
        set_permissions(self.path(file), Permissions::from_mode(mode)).unwrap();
    }
}

/// Returns the statements with which the README grants a service its rights.
fn grants(role: &str) -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```sql\n").unwrap();
    let (grants, _) = rest.split_once("```").unwrap();
    assert!(grants.contains(" TO app;"), "{grants}");
    grants.replace(" TO app;", &format!(" TO {role};"))
}

/// The doctor's output.
pub(crate) struct Report {
    pub(crate) json: Value,
    text: String,
}

impl Report {
    #[track_caller]
    fn new(ran: Ran, expected: &[(&str, &str)]) -> Self {
        let ran = ran.expect(if expected.is_empty() { 0 } else { 3 });
        let report = Self {
            json: serde_json::from_str(&ran.stdout).unwrap(),
            text: ran.stdout,
        };
        let mut found: Vec<_> = report
            .findings()
            .map(|finding| {
                let text = |key: &str| finding[key].as_str().unwrap().to_owned();
                assert!(
                    !text("what").is_empty() && !text("remedy").is_empty() && !text("subject").is_empty()
                );
                (text("code"), text("severity"))
            })
            .collect();
        found.sort();
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(code, severity)| ((*code).to_owned(), (*severity).to_owned()))
            .collect();
        expected.sort();
        assert_eq!(found, expected, "{}", report.text);
        assert_eq!(report.json["findings"], found.len(), "{}", report.text);
        report
    }

    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.json["checks"].as_array().unwrap().iter()
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        let all = self
            .checks()
            .flat_map(|check| check["findings"].as_array().unwrap());
        all.filter(|finding| finding["accepted"] != true)
    }

    /// Lists what could not be checked, prefixed with the name of the check.
    pub(crate) fn not_checked(&self) -> Vec<String> {
        let of_check = |check: &Value| {
            let name = check["name"].as_str().unwrap().to_owned();
            let why = check["not_checked"].as_array().cloned().unwrap_or_default();
            why.into_iter()
                .map(move |why| format!("{name}: {}", why.as_str().unwrap()))
        };
        self.checks().flat_map(of_check).collect()
    }

    /// Fails unless everything was checked.
    #[track_caller]
    pub(crate) fn checked_all(&self) {
        assert_eq!(self.not_checked(), Vec::<String>::new());
    }

    /// Fails unless a finding contains this text.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "{text}: {}", self.text);
        self
    }
}

#[test]
fn a_healthy_place_has_no_finding() {
    on_both(|ward| {
        // Without keys, there is no context to test.
        let empty = ward.finds(&[]).not_checked();
        assert!(
            matches!(empty.as_slice(), [one] if one.contains("no active data key")),
            "{empty:?}"
        );
        let id = ward.place.create("tenantId=t-1");
        ward.place.create("tenantId=t-2");
        for args in [
            &["keys", "rotate", "-c", "tenantId=t-1"][..],
            &["keys", "suspend", &id, "--yes"],
            &["maintain", "--once"],
            &["rewrap"],
            &["status"],
            &["validate", "-c", "tenantId=t-1"],
            &["audit", "list"],
        ] {
            ward.place.ok(args);
        }
        ward.finds(&[]).checked_all();
        ward.finds_with(&["--deep"], &[]).checked_all();
        let mut args = vec!["doctor"];
        if ward.is_postgres() {
            args.extend(OF_TESTS);
        }
        let table = ward.place.run(&args).expect(0).says("no finding");
        assert!(table.stdout.starts_with("CHECK"), "{}", table.stdout);
    });
}

#[test]
fn nothing_is_told_of_a_database_that_is_down() {
    on_both(|mut ward| {
        let down = match ward.place.database {
            Database::Postgres => "postgres://app:hunter2@127.0.0.1:1/app?connect_timeout=1".to_owned(),
            Database::Sqlite => format!("sqlite:{}", ward.place.path("no/such/folder.db")),
        };
        ward.set("ENCX_KEY_STORE", down);
        let ran = ward.place.run(&["doctor"]).expect(2);
        assert!(
            !ran.stderr.contains("hunter2") && ran.stdout.is_empty(),
            "{}",
            ran.stderr
        );
    });
}

#[test]
fn a_finding_that_is_accepted_does_not_count() {
    on_both(|ward| {
        ward.place.create("tenantId=t-1");
        ward.age(400);
        ward.finds(&[("rotation-due", "warning")])
            .says("encx maintain --once")
            .checked_all();
        ward.finds_with(&["--accept", "rotation-due"], &[]);
        let accepted = ["--accept", "rotation-due"];
        let table: Vec<_> = ward
            .args(&accepted)
            .into_iter()
            .filter(|arg| !matches!(*arg, "--format" | "json"))
            .collect();
        let table = ward.place.run(&table).expect(0);
        assert!(
            table.stdout.contains("accepted: rotation-due"),
            "{}",
            table.stdout
        );
        ward.place
            .run(&["doctor", "--accept", "rotation"])
            .expect(1)
            .says("rotation-due");
    });
}

impl Ward {
    /// Makes all versions older.
    fn age(&self, days: u32) {
        self.sql(
            &format!("UPDATE encx.data_keys SET activated_at = activated_at - interval '{days} days'"),
            &format!("UPDATE encx_data_keys SET activated_at = activated_at - {days} * 86400000000"),
        );
    }
}

#[test]
fn settings_that_cannot_work_are_told_and_stop_no_other_check() {
    on_both(|mut ward| {
        ward.set("ENCX_ALLOW_INSECURE", "true");
        ward.finds(&[("insecure-allowed", "warning")]);
        ward.set("ENCX_KMS", "memory:");
        ward.finds(&[("kms-in-memory", "error")]);
        ward.place.env.remove("ENCX_ALLOW_INSECURE");
        ward.set("ENCX_KMS", format!("local:{}", ward.place.path("nowhere.encx")));
        let report = ward.finds(&[("settings-unusable", "error")]);
        assert_eq!(report.not_checked().len(), 4, "{:?}", report.not_checked());
    });
}

#[test]
fn findings_are_told_to_people_and_to_programs() {
    let ward = Ward::new(Database::Sqlite);
    let id = ward.place.create("tenantId=t-1");
    ward.place.create("tenantId=t-2");
    ward.age(400);
    ward.sql(
        "",
        &format!(
            "UPDATE encx_data_keys SET key_check = zeroblob(32) WHERE id = x'{}'",
            id.replace('-', "")
        ),
    );
    let table = ward.place.run(&["doctor"]).expect(3).says("2 findings");
    assert_data_eq!(
        stable(&table.stdout),
        str![[r#"
CHECK               RESULT
settings            OK
key store           OK
clock               OK
database role       OK
KEKs                OK
keys                1 finding
encryption context  OK
columns             OK
rotation            1 finding
processes           OK

error: key-check-mismatch: data key 00000000-0000-0000-0000-000000000000
  it unwraps to another key than its row says: the row was edited, or its wrap was replaced
  restore its rows of data_keys and wrapped_keys from a backup

warning: rotation-due: 2 versions
  they have encrypted for longer than the rotation periods allow
  `encx maintain --once`, and let it run as a service or from cron; `encx keys list --due` lists them

"#]]
    );
    let json = ward.place.run(&["doctor", "--format", "json"]).expect(3);
    assert_data_eq!(
        stable(&json.stdout),
        str![[r#"
{
  "checks": [
    {
      "name": "settings",
      "status": "ok",
      "findings": []
    },
    {
      "name": "key store",
      "status": "ok",
      "findings": []
    },
    {
      "name": "clock",
      "status": "ok",
      "findings": []
    },
    {
      "name": "database role",
      "status": "ok",
      "findings": []
    },
    {
      "name": "KEKs",
      "status": "ok",
      "findings": []
    },
    {
      "name": "keys",
      "status": "findings",
      "findings": [
        {
          "code": "key-check-mismatch",
          "severity": "error",
          "subject": "data key 00000000-0000-0000-0000-000000000000",
          "what": "it unwraps to another key than its row says: the row was edited, or its wrap was replaced",
          "remedy": "restore its rows of data_keys and wrapped_keys from a backup"
        }
      ]
    },
    {
      "name": "encryption context",
      "status": "ok",
      "findings": []
    },
    {
      "name": "columns",
      "status": "ok",
      "findings": []
    },
    {
      "name": "rotation",
      "status": "findings",
      "findings": [
        {
          "code": "rotation-due",
          "severity": "warning",
          "subject": "2 versions",
          "what": "they have encrypted for longer than the rotation periods allow",
          "remedy": "`encx maintain --once`, and let it run as a service or from cron; `encx keys list --due` lists them"
        }
      ]
    },
    {
      "name": "processes",
      "status": "ok",
      "findings": []
    }
  ],
  "findings": 2
}

"#]]
    );
}
