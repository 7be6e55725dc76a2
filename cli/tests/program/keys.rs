//! `encx keys` and `encx audit`: from the first key to a destroyed one.

use snapbox::{assert_data_eq, str};

use crate::support::{Database, Place, id_of, on_both, stable};

#[test]
fn a_key_lives_from_create_to_destroy_and_the_audit_log_has_it_all() {
    on_both(|place| {
        let of = ["--context", "tenantId=t-1", "--context", "purpose=pii"];
        let with = |before: &[&'static str], after: &[&'static str]| [before, &of, after].concat();
        place
            .run(&with(&["keys", "rotate"], &[]))
            .expect(4)
            .says("has no key yet");
        let first = id_of(&place.ok(&with(
            &["keys", "create"],
            &["--format", "json", "--because", "onboarding"],
        )));
        place
            .run(&with(&["keys", "create"], &[]))
            .expect(4)
            .says("has keys already");
        let second = id_of(&place.ok(&with(&["keys", "rotate"], &["--format", "json"])));
        assert!(second > first);

        assert_data_eq!(
            stable(&place.ok(&["keys", "list"])),
            str![[r#"
ID                                    USAGE  VERSION  STATE        CONTEXT                   KEK                                                 ACTIVE SINCE          DUE
00000000-0000-0000-0000-000000000000  data   1        deactivated  purpose=pii tenantId=t-1  default:local/00000000-0000-0000-0000-000000000001  YYYY-MM-DDThh:mm:ssZ  -
00000000-0000-0000-0000-000000000002  data   2        active       purpose=pii tenantId=t-1  default:local/00000000-0000-0000-0000-000000000001  YYYY-MM-DDThh:mm:ssZ  YYYY-MM-DDThh:mm:ssZ

"#]]
        );
        assert_data_eq!(
            stable(&place.ok(&["keys", "list", "--format", "json", "--state", "active"])),
            str![[r#"
{"id":"00000000-0000-0000-0000-000000000000","usage":"data","version":2,"state":"active","context":{"purpose":"pii","tenantId":"t-1"},"keks":[{"kms":"default","kek":"local/00000000-0000-0000-0000-000000000001","material":"00000000-0000-0000-0000-000000000002"}],"created_at":"YYYY-MM-DDThh:mm:ssZ","activated_at":"YYYY-MM-DDThh:mm:ssZ","deactivated_at":null,"destroyed_at":null,"changed_at":"YYYY-MM-DDThh:mm:ssZ","due_at":"YYYY-MM-DDThh:mm:ssZ"}

"#]]
        );
        assert_data_eq!(
            stable(&place.ok(&["keys", "show", &second])),
            str![[r#"
id            00000000-0000-0000-0000-000000000000
usage         data
version       2
state         active
context       purpose=pii tenantId=t-1
KEK           default:local/00000000-0000-0000-0000-000000000001, material 00000000-0000-0000-0000-000000000002
made at       YYYY-MM-DDThh:mm:ssZ
active since  YYYY-MM-DDThh:mm:ssZ
changed at    YYYY-MM-DDThh:mm:ssZ
due at        YYYY-MM-DDThh:mm:ssZ

"#]]
        );

        place
            .run(&["keys", "suspend", &second])
            .expect(1)
            .says("there is no terminal to ask, so say --yes");
        place
            .run(&["keys", "suspend", &second, "--dry-run"])
            .expect(0)
            .says("would suspend version 2");
        place.ok(&["keys", "suspend", &second, "--yes", "--because", "looks leaked"]);
        assert!(
            place
                .ok(&["keys", "show", &second])
                .contains("suspended (was active)")
        );
        place
            .run(&["keys", "suspend", &second, "--yes"])
            .expect(4)
            .says("it is suspended");
        place.ok(&["keys", "resume", &second]);
        place
            .run(&["keys", "resume", &second])
            .expect(4)
            .says("this version is active, not suspended");
        place
            .run(&["keys", "destroy", &second, "--yes"])
            .expect(4)
            .says("rotate first");

        place.ok(&["keys", "compromise", &first, "--yes"]);
        let destroy = ["keys", "destroy", &first, "--yes"];
        place
            .run(&destroy)
            .expect(4)
            .says("encx.toml declares no encrypted columns");
        let with_data = ["keys", "destroy", &first, "--yes", "--with-data", "tenant left"];
        let gone = place.ok(&with_data);
        assert!(gone.contains("destroyed"), "{gone}");

        let listed = stable(&audit(&place, &["list"]));
        match place.database {
            Database::Sqlite => assert_data_eq!(
                listed,
                str![[r#"
NUMBER  AT                    KEY                                   WHAT   FROM         TO           BY    REASON
1       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000000  added  -            active       encx  onboarding
2       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000001  added  -            pre-active   encx  -
3       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000000  state  active       deactivated  encx  -
4       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000001  state  pre-active   active       encx  -
5       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000001  state  active       suspended    encx  looks leaked
6       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000001  state  suspended    active       encx  -
7       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000000  state  deactivated  compromised  encx  -
8       YYYY-MM-DDThh:mm:ssZ  00000000-0000-0000-0000-000000000000  state  compromised  destroyed    encx  destroy_with_data: tenant left

"#]]
            ),
            Database::Postgres => assert!(listed.contains("/encx  "), "{listed}"),
        }
        let exported = audit(&place, &["export"]);
        let entries: Vec<serde_json::Value> = exported
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(entries[0]["reason"], "onboarding");
        let of_first = audit(&place, &["export", "--key", &first]);
        assert!(
            of_first.lines().count() < entries.len() && of_first.contains("destroy_with_data: tenant left")
        );
        let none = audit(&place, &["export", "--until", "2020-01-01T00:00:00Z"]);
        assert_eq!(none.trim(), "");
    });
}

fn audit(place: &Place, args: &[&str]) -> String {
    place.ok(&[&["audit"], args].concat())
}

#[test]
fn a_version_that_no_row_uses_is_destroyed_after_its_quarantine() {
    on_both(|place| {
        place.write_private(
            "encx.toml",
            "[[column]]\ntable = \"users\"\ncolumn = \"ssn\"\nid = { column = \"id\", kind = \"integer\" }\ncontext = { tenantId = \"t-1\" }\n",
        );
        place.sql(
            "CREATE TABLE users (id bigint PRIMARY KEY, ssn bytea)",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, ssn BLOB)",
        );
        let first = place.create("tenantId=t-1");
        place.ok(&["keys", "rotate", "--context", "tenantId=t-1"]);
        // A ciphertext's first bytes name its key.
        let header = format!("0101{}", first.replace('-', ""));
        place.sql(
            &format!("INSERT INTO users VALUES (1, '\\x{header}{}')", "00".repeat(80)),
            &format!("INSERT INTO users VALUES (1, X'{header}{}')", "00".repeat(80)),
        );
        let destroy = ["keys", "destroy", &first, "--yes", "--without-quarantine", "test"];
        place.run(&destroy).expect(4).says("users.ssn");
        place.sql("DELETE FROM users", "DELETE FROM users");
        let quarantined = ["keys", "destroy", &first, "--yes"];
        place.run(&quarantined).expect(3).says("suspended until");
        place.run(&quarantined).expect(3).says("call this again then");
        let gone = place.ok(&destroy);
        assert!(gone.contains("destroyed"), "{gone}");
        let receipt = place.ok(&["audit", "export", "--key", &first]);
        assert!(receipt.contains("without_quarantine: test"), "{receipt}");
    });
}

#[test]
fn a_shredded_context_is_revived_by_name_alone() {
    on_both(|place| {
        let of = ["--context", "tenantId=t-9"];
        let id = place.create("tenantId=t-9");
        place.ok(&["keys", "suspend", &id, "--yes"]);
        place.ok(&["keys", "destroy", &id, "--yes", "--with-data", "left"]);
        place
            .run(&[&["keys", "create"][..], &of].concat())
            .expect(4)
            .says("`revive`");
        place
            .run(&[&["keys", "revive"][..], &of, &["--dry-run"]].concat())
            .expect(0)
            .says("stays unreadable");
        let revived = place.ok(&[&["keys", "revive"][..], &of].concat());
        assert!(revived.contains("active"), "{revived}");
    });
}

#[test]
fn lists_are_filtered_and_go_on_where_they_ended() {
    on_both(|place| {
        for tenant in 1..=5 {
            place.create(&format!("tenantId=t-{tenant}"));
        }
        place.ok(&["keys", "create", "-c", "tenantId=t-1", "--usage", "index"]);
        let list = |args: &[&str]| {
            let ran = place
                .run(&[&["keys", "list", "--format", "json"][..], args].concat())
                .expect(0);
            let ids: Vec<_> = ran.stdout.lines().map(id_of).collect();
            (ids, ran.stderr)
        };
        let (all, said) = list(&[]);
        assert_eq!((all.len(), said.as_str()), (6, ""));
        let (two, said) = list(&["--limit", "2"]);
        assert_eq!(two, all[..2]);
        let next = said.trim().rsplit_once(' ').unwrap().1;
        assert_eq!(list(&["--limit", "4", "--after", next]).0, all[2..]);
        assert_eq!(list(&["--context", "tenantId=t-1"]).0.len(), 2);
        assert_eq!(
            list(&["--context", "tenantId=t-1", "--usage", "data"]).0,
            all[..1]
        );
        assert_eq!(
            list(&["--context", "tenantId=t-1", "--context", "purpose=pii"])
                .0
                .len(),
            0
        );
        assert_eq!(list(&["--state", "deactivated"]).0.len(), 0);
        assert_eq!(
            list(&["--kek", "local/00000000-0000-4000-8000-000000000000"])
                .0
                .len(),
            0
        );
        place.age(10);
        assert_eq!(list(&["--older-than", "9days"]).0.len(), 6);
        assert_eq!(list(&["--older-than", "11days"]).0.len(), 0);
    });
}

/// A row whose context was edited may be due: its scope says so no longer.
#[test]
fn a_row_of_which_nobody_knows_whether_it_is_due_is_told() {
    on_both(|place| {
        let id = place.create("tenantId=t-1");
        place.create("tenantId=t-2");
        place.age(91);
        place.sql(
            &format!("UPDATE encx.data_keys SET context = '{{\"tenantId\":\"t-9\"}}' WHERE id = '{id}'"),
            &format!(
                "UPDATE encx_data_keys SET context = '{{\"tenantId\":\"t-9\"}}' WHERE id = x'{}'",
                id.replace('-', "")
            ),
        );
        for args in [
            &["keys", "list", "--due", "--format", "json"][..],
            &["keys", "needs-rotation", "--format", "json"],
        ] {
            let told = place
                .run(args)
                .expect(3)
                .says("1 rows of active versions were edited");
            assert_eq!(told.stdout.lines().count(), 1, "{}", told.stdout);
        }
    });
}

#[test]
fn what_is_due_is_a_finding_until_it_is_rotated() {
    on_both(|mut place| {
        place
            .env
            .insert("ENCX_ROTATION_PUBLISH_DEADLINE".to_owned(), "1s".to_owned());
        place.create("tenantId=t-1");
        place.create("tenantId=t-2");
        place
            .run(&["keys", "needs-rotation"])
            .expect(0)
            .says("nothing is due");
        place.age(91);
        let due = place
            .run(&["keys", "needs-rotation"])
            .expect(3)
            .says("2 versions are due: run `encx maintain --once`");
        assert_data_eq!(
            stable(&due.stdout),
            str![[r#"
ID                                    USAGE  VERSION  STATE   CONTEXT       KEK                                                 ACTIVE SINCE          DUE
00000000-0000-0000-0000-000000000000  data   1        active  tenantId=t-1  default:local/00000000-0000-0000-0000-000000000001  YYYY-MM-DDThh:mm:ssZ  YYYY-MM-DDThh:mm:ssZ
00000000-0000-0000-0000-000000000002  data   1        active  tenantId=t-2  default:local/00000000-0000-0000-0000-000000000001  YYYY-MM-DDThh:mm:ssZ  YYYY-MM-DDThh:mm:ssZ

"#]]
        );
        assert_eq!(
            place
                .ok(&["keys", "list", "--due", "--format", "json"])
                .lines()
                .count(),
            2
        );
        let of_one = place
            .run(&["keys", "needs-rotation", "-c", "tenantId=t-2", "--format", "json"])
            .expect(3);
        assert_eq!(of_one.stdout.lines().count(), 1);
        place
            .run(&["maintain", "--once", "--dry-run"])
            .expect(0)
            .says("would rotate 2");
        assert_data_eq!(
            place.ok(&["maintain", "--once"]),
            str![[r#"
2 made, 2 promoted, 0 failed

"#]]
        );
        place.run(&["keys", "needs-rotation"]).expect(0);
        let audit = place.ok(&["audit", "export"]);
        assert!(audit.contains("encx maintain"), "{audit}");
    });
}
