//! Every row is opened, and rows that do not open are named.

use encx::jobs::JobEnd;
use encx::store::JobTally;
use encx_test_support::SSN;

use crate::on_both;
use crate::support::{TestDatabase, ssn, tenant};

on_both![
    rows_that_open_are_counted_and_those_that_do_not_are_named,
    a_row_that_an_upsert_kept_under_another_id_is_found,
];

async fn rows_that_open_are_counted_and_those_that_do_not_are_named(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 60).await;
    let job = || db.rows().verify(&crypto, [ssn()]).unwrap().range_size(20);
    let report = db.in_time(job().run()).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run, JobTally::new(0, 60, 0));

    let garbage = db.literal(b"123-45-6789");
    db.run(&format!("UPDATE users SET ssn = {garbage} WHERE id = 5"))
        .await;
    db.run("UPDATE users SET ssn = (SELECT ssn FROM users WHERE id = 7) WHERE id = 10")
        .await;
    db.run("UPDATE users SET tenant_id = NULL WHERE id = 20").await;
    db.run("UPDATE users SET ssn = NULL WHERE id = 30").await;
    let before = db.bytes("SELECT ssn FROM users ORDER BY id").await;
    for job in [job(), job().dry_run()] {
        let report = db.in_time(job.run()).await;
        assert!(matches!(report.ended_by, JobEnd::Finished) && !report.is_complete());
        assert_eq!(report.run, JobTally::new(0, 56, 3), "{report}");
        let mut failed: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
        failed.sort();
        let expected = [
            ("users.ssn of row 10", "opens as users.ssn of row 7"),
            ("users.ssn of row 20", "NULL"),
            ("users.ssn of row 5", ""),
        ];
        for (failed, (row, why)) in failed.iter().zip(expected) {
            assert!(failed.starts_with(row) && failed.contains(why), "{failed}");
            assert!(!failed.contains("123-45"));
        }
    }
    assert_eq!(db.bytes("SELECT ssn FROM users ORDER BY id").await, before);
}

async fn a_row_that_an_upsert_kept_under_another_id_is_found(db: TestDatabase) {
    let crypto = db.process().await;
    db.run("CREATE TABLE users (id {int} PRIMARY KEY, tenant_id {text}, ssn {bytes}, plain {text} UNIQUE)")
        .await;
    let upsert = async |id: i64| {
        let sealed = crypto.encrypt(&tenant(1), "ada", SSN.row(id)).await.unwrap();
        let sealed = db.literal(sealed.as_bytes());
        db.run(&format!(
            "INSERT INTO users VALUES ({id}, 't-1', {sealed}, 'ada@example.org')
                 ON CONFLICT (plain) DO UPDATE SET ssn = excluded.ssn"
        ))
        .await;
    };
    upsert(100).await;
    db.run("INSERT INTO users VALUES (1, 't-1', NULL, 'nothing')")
        .await;
    let job = || db.rows().verify(&crypto, [ssn()]).unwrap();
    assert!(db.in_time(job().run()).await.is_complete());
    // The row keeps id 100, but its value is bound to 101.
    upsert(101).await;
    let report = db.in_time(job().run()).await;
    assert_eq!(report.run, JobTally::new(0, 0, 1), "{report}");
    let failed = report.failures[0].to_string();
    assert!(
        failed.starts_with("users.ssn of row 100: ") && failed.contains("belongs to another row"),
        "{failed}"
    );
    // A census counts it under its key, so that the key is not destroyed.
    let counts = db.rows().census([ssn()]).unwrap().count().await.unwrap();
    assert_eq!(counts.iter().map(|count| count.rows).sum::<u64>(), 1);
    upsert(100).await;
    assert!(db.in_time(job().run()).await.is_complete());
}
