//! Rows are re-encrypted despite concurrent changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use encx::Crypto;
use encx::jobs::{JobEnd, JobEvent, JobReport};
use encx::store::JobTally;
use encx_tables::Reencrypt;
use encx_test_support::SSN;

use crate::on_both;
use crate::support::{TestDatabase, ssn, tenant, value};

on_both![
    rows_under_an_old_version_are_reencrypted_and_the_others_left_alone,
    a_dry_run_counts_and_writes_nothing,
    a_row_that_does_not_open_is_named_and_skipped,
    several_workers_and_writers_at_once_lose_nothing,
    a_worker_that_is_killed_in_the_middle_leaves_the_rest_to_the_next,
    a_row_that_the_database_refuses_holds_up_no_other,
    a_row_that_was_locked_or_deleted_since_is_seen_to,
];

fn job(db: &TestDatabase, crypto: &Crypto) -> encx::jobs::Job<Reencrypt> {
    db.rows().reencrypt(crypto, [ssn()]).unwrap().range_size(20)
}

async fn run(db: &TestDatabase, crypto: &Crypto) -> JobReport {
    db.in_time(job(db, crypto).run()).await
}

fn tally(changed: u64, unchanged: u64, failed: u64) -> JobTally {
    JobTally::new(changed, unchanged, failed)
}

fn values(count: i64) -> Vec<Option<String>> {
    (1..=count).map(|id| Some(value(id, 0))).collect()
}

async fn rows_under_an_old_version_are_reencrypted_and_the_others_left_alone(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 100).await;
    db.run("UPDATE users SET ssn = NULL WHERE id = 50").await;
    crypto.key_manager().rotate(&tenant(1)).await.unwrap();
    let before = db
        .bytes("SELECT ssn FROM users WHERE id % 3 <> 1 ORDER BY id")
        .await;

    let report = run(&db, &crypto).await;
    assert!(report.is_complete(), "{report}");
    // Tenants 1, 2 and 0 have 34, 33 and 33 rows; row 50 belongs to tenant 2.
    assert_eq!(report.run, tally(34, 65, 0));
    let (read, old) = db.read_users(&crypto).await;
    let mut expected = values(100);
    expected[49] = None;
    assert_eq!((read, old), (expected, 0));
    let after = db
        .bytes("SELECT ssn FROM users WHERE id % 3 <> 1 ORDER BY id")
        .await;
    assert_eq!(before, after);
    assert_eq!(run(&db, &crypto).await.run, tally(0, 99, 0));
}

async fn a_dry_run_counts_and_writes_nothing(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 30).await;
    db.rotate(&crypto).await;
    let before = db.bytes("SELECT ssn FROM users ORDER BY id").await;
    let report = job(&db, &crypto).dry_run().run().await;
    assert_eq!(report.run, tally(30, 0, 0));
    assert_eq!(db.bytes("SELECT ssn FROM users ORDER BY id").await, before);
}

async fn a_row_that_does_not_open_is_named_and_skipped(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 60).await;
    db.rotate(&crypto).await;
    // Not a ciphertext; another row's; a context without keys; and no context.
    let garbage = db.literal(b"123-45-6789");
    db.run(&format!("UPDATE users SET ssn = {garbage} WHERE id = 5"))
        .await;
    db.run("UPDATE users SET ssn = (SELECT ssn FROM users WHERE id = 7) WHERE id = 10")
        .await;
    db.run("UPDATE users SET tenant_id = 'absent' WHERE id = 15")
        .await;
    db.run("UPDATE users SET tenant_id = NULL WHERE id = 20").await;
    let before = db
        .bytes("SELECT ssn FROM users WHERE id IN (5, 10, 15, 20) ORDER BY id")
        .await;

    let report = run(&db, &crypto).await;
    assert!(matches!(report.ended_by, JobEnd::Finished) && !report.is_complete());
    assert_eq!(report.run, tally(56, 0, 4));
    let mut failed: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
    failed.sort();
    let expected = [
        ("users.ssn of row 10", "does not authenticate"),
        ("users.ssn of row 15", "no data key"),
        ("users.ssn of row 20", "NULL"),
        ("users.ssn of row 5", "not a ciphertext"),
    ];
    for (failed, (row, why)) in failed.iter().zip(expected) {
        assert!(failed.starts_with(row) && failed.contains(why), "{failed}");
        assert!(!failed.contains("123-45"));
    }
    let after = db
        .bytes("SELECT ssn FROM users WHERE id IN (5, 10, 15, 20) ORDER BY id")
        .await;
    assert_eq!(before, after);
}

async fn several_workers_and_writers_at_once_lose_nothing(db: TestDatabase) {
    const ROWS: i64 = 400;
    let crypto = db.process().await;
    db.users(&crypto, ROWS).await;
    db.rotate(&crypto).await;
    let over = AtomicBool::new(false);
    let write = async {
        let (service, mut written) = (db.process().await, vec![0_u32; 400]);
        let mut id = 0;
        while !over.load(Ordering::SeqCst) {
            id = id % ROWS + 7;
            let row = (id - 1) % ROWS + 1;
            let place = usize::try_from(row - 1).unwrap();
            let next = value(row, written[place] + 1);
            let sealed = service.encrypt(&tenant(row), next, SSN.row(row)).await.unwrap();
            let sealed = db.literal(sealed.as_bytes());
            db.run(&format!("UPDATE users SET ssn = {sealed} WHERE id = {row}"))
                .await;
            written[place] += 1;
        }
        written
    };
    let work = async {
        let (a, b, c) = (db.process().await, db.process().await, db.process().await);
        let reports = tokio::join!(job(&db, &a).run(), job(&db, &b).run(), job(&db, &c).run());
        over.store(true, Ordering::SeqCst);
        <[JobReport; 3]>::from(reports)
    };
    let (written, reports) = db.in_time(async { tokio::join!(write, work) }).await;
    let mut sum = JobTally::default();
    for report in &reports {
        assert!(report.is_complete(), "{report}");
        sum += report.worker;
    }
    assert_eq!(reports[0].run, sum);
    assert_eq!(sum.changed + sum.unchanged, 400);
    assert!(written.iter().sum::<u32>() > 0);
    // The service's last values are there, and no row is under an old version.
    let (read, old) = db.read_users(&crypto).await;
    let expected: Vec<_> = (1..)
        .zip(&written)
        .map(|(id, times)| Some(value(id, *times)))
        .collect();
    assert_eq!(read, expected);
    assert_eq!(old, 0);
}

async fn a_worker_that_is_killed_in_the_middle_leaves_the_rest_to_the_next(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 200).await;
    db.rotate(&crypto).await;
    // Slow enough to be killed before it is done.
    let mut run = job(&db, &crypto).throttle(20).start();
    let mut ranges = 0;
    while ranges < 2 {
        let event = db.in_time(run.next_event()).await;
        ranges += u32::from(matches!(event, Some(JobEvent::RangeDone { .. })));
    }
    drop(run);
    let (read, old) = db.read_users(&crypto).await;
    assert_eq!(read, values(200));
    assert!((1..=160).contains(&old), "{old}");

    // Its ranges are free when its claims expire.
    db.clock.advance(Duration::from_secs(31));
    let report = self::run(&db, &db.process().await).await;
    assert!(report.is_complete(), "{report}");
    // Its last writes may have arrived after the count.
    let changed = usize::try_from(report.worker.changed).unwrap();
    assert!((1..=old).contains(&changed), "{changed} and {old}");
    assert_eq!(report.run.changed + report.run.unchanged, 200);
    assert_eq!(db.read_users(&crypto).await, (values(200), 0));
}

async fn a_row_that_the_database_refuses_holds_up_no_other(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 50).await;
    db.rotate(&crypto).await;
    let statements: &[&str] = if db.is_postgres() {
        &[
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'not this one'; END $$",
            "CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.id = 33) EXECUTE FUNCTION refuse()",
        ]
    } else {
        &["CREATE TRIGGER refuse BEFORE UPDATE ON users WHEN OLD.id = 33
               BEGIN SELECT RAISE(ABORT, 'not this one'); END"]
    };
    for statement in statements {
        db.run(statement).await;
    }
    let report = run(&db, &crypto).await;
    assert_eq!(report.run, tally(49, 0, 1));
    let failed = report.failures[0].to_string();
    assert!(
        failed.starts_with("users.ssn of row 33") && failed.contains("not this one"),
        "{failed}"
    );
}

async fn a_row_that_was_locked_or_deleted_since_is_seen_to(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 40).await;
    db.rotate(&crypto).await;
    // The walk has read the rows and waits for the keys' old versions.
    let reader = db.process().await;
    db.kms.hold();
    let mut run = job(&db, &reader).start();
    let waiting = async {
        tokio::select! {
            biased;
            event = async { loop { if let Some(JobEvent::RangeDone { .. }) = run.next_event().await { break } } } => event,
            () = db.kms.until_in_flight(3) => {}
        }
    };
    db.in_time(waiting).await;
    db.run("DELETE FROM users WHERE id IN (3, 4)").await;
    db.run("UPDATE users SET ssn = NULL WHERE id = 5").await;
    db.kms.release();
    let report = db.in_time(run.report()).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run.changed, 37);
    assert_eq!(report.run.unchanged, report.overtaken);
    assert_eq!(
        db.number("SELECT count(*) FROM users WHERE ssn IS NOT NULL")
            .await,
        37
    );
}
