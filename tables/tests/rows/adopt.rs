//! A plaintext column becomes an encrypted one while a service uses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use encx::jobs::{JobEnd, JobError, JobEvent, JobReport};
use encx::record::{EncryptedColumn, FieldCodec, RowIdKind};
use encx::store::{JobTally, KeyStore};
use encx::{Ciphertext, Clock, Error, Field};
use encx_tables::{Adoption, AdoptionJobs, PlaintextColumn, RowsError, read_either};
use encx_test_support::SSN;
use uuid::Uuid;

use crate::on_both;
use crate::support::{TestDatabase, UNTIL, USERS, ssn, tenant, value};

on_both![
    a_column_is_backfilled_verified_and_contracted,
    values_of_every_kind_are_encoded_as_fields_are,
    what_does_not_agree_stays_and_is_named,
    the_status_counts_rows_by_what_they_have,
    a_service_may_write_during_the_job,
    a_backfill_keeps_to_its_pace_and_tells_how_far_it_is,
    a_backfill_that_is_killed_goes_on_where_it_was,
    a_plaintext_that_may_not_be_null_is_not_contracted,
    either_column_is_read,
    after_its_end_an_adoption_believes_no_plaintext,
    a_backfill_that_lasts_beyond_the_end_stops,
    what_is_put_into_a_contracted_column_is_not_encrypted,
    what_the_database_says_only_narrows_an_adoption,
];

fn tally(changed: u64, unchanged: u64, failed: u64) -> JobTally {
    JobTally::new(changed, unchanged, failed)
}

/// Users with plaintexts and without ciphertexts.
async fn plain_users(db: &TestDatabase, count: i64) {
    db.run(USERS).await;
    let rows: Vec<_> = (1..=count)
        .map(|id| format!("({id}, 't-{}', NULL, '{}')", id % 3, value(id, 0)))
        .collect();
    db.run(&format!("INSERT INTO users VALUES {}", rows.join(", ")))
        .await;
}

async fn adoption(db: &TestDatabase) -> AdoptionJobs {
    let crypto = db.process().await;
    db.rows()
        .adopt(&crypto, PlaintextColumn::text("plain"), ssn(), UNTIL)
        .unwrap()
}

async fn a_column_is_backfilled_verified_and_contracted(db: TestDatabase) {
    plain_users(&db, 100).await;
    db.run("UPDATE users SET plain = NULL WHERE id = 7").await;
    db.run("UPDATE users SET plain = '' WHERE id = 8").await;
    let adoption = adoption(&db).await;
    let dry = db.in_time(adoption.backfill().dry_run().run()).await;
    assert_eq!(dry.run, tally(99, 0, 0));
    let early = db.in_time(adoption.contract().run()).await;
    assert_eq!(early.run, tally(0, 0, 99));
    assert!(
        early.failures[0].to_string().contains("backfill"),
        "{}",
        early.failures[0]
    );

    let report = db.in_time(adoption.backfill().range_size(30).run()).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run, tally(99, 0, 0));
    assert_eq!(db.in_time(adoption.backfill().run()).await.run, tally(0, 0, 0));
    assert_eq!(db.in_time(adoption.verify().run()).await.run, tally(0, 99, 0));
    assert_eq!(db.number("SELECT count(plain) FROM users").await, 99);

    let report = db.in_time(adoption.contract().range_size(30).run()).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run, tally(99, 0, 0));
    assert_eq!(db.number("SELECT count(plain) FROM users").await, 0);
    let (read, old) = db.read_users(&db.process().await).await;
    let mut expected: Vec<_> = (1..=100).map(|id| Some(value(id, 0))).collect();
    (expected[6], expected[7]) = (None, Some(String::new()));
    assert_eq!((read, old), (expected, 0));
}

async fn values_of_every_kind_are_encoded_as_fields_are(db: TestDatabase) {
    db.run("CREATE TABLE t (id {int} PRIMARY KEY, a {bytes}, b {int}, c {text}, d {uuid}, x {bytes})")
        .await;
    let uuid = Uuid::from_u128(77);
    let literal = if db.is_postgres() {
        format!("'{uuid}'")
    } else {
        db.literal(uuid.as_bytes())
    };
    let bytes = db.literal(&[0, 255, 1]);
    db.run(&format!(
        "INSERT INTO t VALUES (1, {bytes}, -5, 'größe', {literal}, NULL)"
    ))
    .await;
    let crypto = db.process().await;
    let described = || {
        EncryptedColumn::new("t", "x")
            .row_id("id", RowIdKind::Integer)
            .context_value("tenantId", "t-0")
            .context_value("purpose", "pii")
    };
    let (bytes, text) = (vec![0_u8, 255, 1], "größe".to_owned());
    let columns = [
        (PlaintextColumn::bytes("a"), bytes.encode().unwrap()),
        (PlaintextColumn::integer("b"), (-5_i32).encode().unwrap()),
        (PlaintextColumn::text("c"), text.encode().unwrap()),
        (PlaintextColumn::uuid("d"), uuid.encode().unwrap()),
    ];
    for (plain, expected) in columns {
        let adoption = db.rows().adopt(&crypto, plain, described(), UNTIL).unwrap();
        assert_eq!(db.in_time(adoption.backfill().run()).await.run, tally(1, 0, 0));
        let sealed = db.bytes("SELECT x FROM t").await.remove(0).unwrap();
        let sealed = Ciphertext::parse(sealed).unwrap();
        let opened = crypto
            .decrypt(&tenant(0), &sealed, Field::new("t", "x").row(1))
            .await
            .unwrap();
        assert_eq!(opened.as_bytes(), expected.as_bytes());
        assert_eq!(db.in_time(adoption.contract().run()).await.run, tally(1, 0, 0));
        db.run("UPDATE t SET x = NULL").await;
    }
    assert_eq!(
        db.number("SELECT count(a) + count(b) + count(c) + count(d) FROM t")
            .await,
        0
    );
}

async fn the_status_counts_rows_by_what_they_have(db: TestDatabase) {
    plain_users(&db, 30).await;
    db.run("UPDATE users SET plain = NULL WHERE id = 7").await;
    let adoption = adoption(&db).await;
    let status = async || {
        let status = adoption.status().await.unwrap();
        let counts = [status.plaintext_only, status.both, status.ciphertext_only];
        (counts, status.contracted)
    };
    assert_eq!(status().await, ([29, 0, 0], false));
    assert!(db.in_time(adoption.backfill().run()).await.is_complete());
    db.run("UPDATE users SET ssn = NULL WHERE id = 8").await;
    db.run("UPDATE users SET plain = NULL WHERE id = 9").await;
    assert_eq!(status().await, ([1, 27, 1], false));
    assert!(db.in_time(adoption.contract().dry_run().run()).await.run.failed == 1);
    assert_eq!(status().await, ([1, 27, 1], false));
    assert_eq!(db.in_time(adoption.contract().run()).await.run.changed, 27);
    assert_eq!(status().await, ([1, 0, 28], true));
}

async fn what_does_not_agree_stays_and_is_named(db: TestDatabase) {
    plain_users(&db, 30).await;
    let adoption = adoption(&db).await;
    assert!(db.in_time(adoption.backfill().run()).await.is_complete());
    // A write of the plaintext only, a copied ciphertext, and a missing backfill.
    db.run("UPDATE users SET plain = 'secret' WHERE id = 4").await;
    db.run("UPDATE users SET ssn = (SELECT ssn FROM users WHERE id = 9) WHERE id = 12")
        .await;
    db.run("UPDATE users SET ssn = NULL WHERE id = 20").await;
    for job in [adoption.verify(), adoption.contract()] {
        let report = db.in_time(job.run()).await;
        assert_eq!(report.run.failed, 3, "{report}");
        let mut failed: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
        failed.sort();
        assert!(
            failed[0].starts_with("users.ssn of row 12") && failed[0].contains("authenticate"),
            "{failed:?}"
        );
        assert!(
            failed[1].starts_with("users.ssn of row 20") && failed[1].contains("backfill"),
            "{failed:?}"
        );
        assert!(
            failed[2].starts_with("users.ssn of row 4") && failed[2].contains("another value"),
            "{failed:?}"
        );
        assert!(!format!("{report} {report:?}").contains("secret"));
    }
    let left = db
        .texts("SELECT plain FROM users WHERE plain IS NOT NULL ORDER BY id")
        .await;
    assert_eq!(
        left,
        [Some("secret".to_owned()), Some(value(12, 0)), Some(value(20, 0))]
    );
}

async fn a_service_may_write_during_the_job(db: TestDatabase) {
    const ROWS: i64 = 300;
    plain_users(&db, ROWS).await;
    let adoption = adoption(&db).await;
    let over = AtomicBool::new(false);
    // Writes both columns in one statement, as services must from the first step on.
    let write = async {
        let (service, mut written) = (db.process().await, vec![0_u32; 300]);
        let mut id = 0;
        while !over.load(Ordering::SeqCst) {
            id += 11;
            let row = id % ROWS + 1;
            let place = usize::try_from(row - 1).unwrap();
            let next = value(row, written[place] + 1);
            let sealed = service.encrypt(&tenant(row), &next, SSN.row(row)).await.unwrap();
            let sealed = db.literal(sealed.as_bytes());
            db.run(&format!(
                "UPDATE users SET ssn = {sealed}, plain = '{next}' WHERE id = {row}"
            ))
            .await;
            written[place] += 1;
        }
        written
    };
    let work = async {
        let job = || adoption.backfill().range_size(20);
        let (a, b) = tokio::join!(job().run(), job().run());
        over.store(true, Ordering::SeqCst);
        (a, b)
    };
    let (written, (a, b)) = db.in_time(async { tokio::join!(write, work) }).await;
    assert!(a.is_complete() && b.is_complete(), "{a}\n{b}");
    assert_eq!(db.in_time(adoption.verify().run()).await.run, tally(0, 300, 0));
    let (read, _) = db.read_users(&db.process().await).await;
    let expected: Vec<_> = (1..)
        .zip(&written)
        .map(|(id, times)| Some(value(id, *times)))
        .collect();
    assert_eq!(read, expected);
}

async fn a_backfill_keeps_to_its_pace_and_tells_how_far_it_is(db: TestDatabase) {
    plain_users(&db, 40).await;
    let adoption = adoption(&db).await;
    let mut run = adoption.backfill().range_size(10).throttle(20).start();
    let (mut began, mut told, mut failed) = (None, Vec::new(), 0);
    while let Some(event) = db.in_time(run.next_event()).await {
        match event {
            JobEvent::Started { .. } => began = Some(db.clock.elapsed()),
            JobEvent::RangeDone { worker, .. } => told.push(worker.changed),
            JobEvent::ItemFailed(_) => failed += 1,
            _ => {}
        }
    }
    let took = db.clock.elapsed() - began.unwrap();
    // Ranges after the last row are empty.
    told.dedup();
    assert_eq!((told, failed), (vec![10, 20, 30, 40], 0));
    // The first starts at once; the last waits for the 30 rows before it.
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    assert!(run.report().await.is_complete());
}

async fn a_backfill_that_is_killed_goes_on_where_it_was(db: TestDatabase) {
    plain_users(&db, 200).await;
    let adoption = adoption(&db).await;
    // Slow enough to be killed before it is done.
    let mut run = adoption.backfill().range_size(20).throttle(20).start();
    while !matches!(
        db.in_time(run.next_event()).await,
        Some(JobEvent::RangeDone { .. })
    ) {}
    drop(run);
    // Its last writes may still arrive.
    let kept = db.bytes("SELECT ssn FROM users ORDER BY id").await;
    let done = kept.iter().flatten().count();
    assert!((20..200).contains(&done), "{done}");
    db.clock.advance(Duration::from_secs(31));
    let report = db.in_time(adoption.backfill().range_size(20).run()).await;
    assert!(report.is_complete(), "{report}");
    let changed = usize::try_from(report.worker.changed).unwrap();
    assert!((1..=200 - done).contains(&changed), "{changed} and {done}");
    let now = db.bytes("SELECT ssn FROM users ORDER BY id").await;
    assert!(now.iter().all(Option::is_some));
    let mut rows = kept.iter().zip(&now).filter(|(kept, _)| kept.is_some());
    assert!(rows.all(|(kept, now)| kept == now), "nothing is encrypted twice");
    assert_eq!(db.in_time(adoption.verify().run()).await.run, tally(0, 200, 0));
}

async fn a_plaintext_that_may_not_be_null_is_not_contracted(db: TestDatabase) {
    db.run("CREATE TABLE users (id {int} PRIMARY KEY, tenant_id {text}, ssn {bytes}, plain {text} NOT NULL)")
        .await;
    db.run("INSERT INTO users VALUES (1, 't-1', NULL, 'x')").await;
    let adoption = adoption(&db).await;
    assert!(db.in_time(adoption.backfill().run()).await.is_complete());
    let report = db.in_time(adoption.contract().run()).await;
    let JobEnd::GaveUp(error) = &report.ended_by else {
        panic!("{report}");
    };
    assert!(error.to_string().contains("NOT NULL"), "{error}");

    let crypto = db.process().await;
    let same = db
        .rows()
        .adopt(&crypto, PlaintextColumn::bytes("ssn"), ssn(), UNTIL);
    assert!(matches!(same, Err(RowsError::Description { .. })));
}

async fn either_column_is_read(db: TestDatabase) {
    let crypto = db.process().await;
    let sealed = crypto.encrypt(&tenant(1), "sealed", SSN.row(1)).await.unwrap();
    let read = |sealed: Option<Ciphertext>, plain: Option<&str>| {
        let (crypto, plain) = (crypto.clone(), plain.map(str::to_owned));
        async move { read_either(&crypto, &tenant(1), sealed.as_ref(), plain, SSN.row(1), UNTIL).await }
    };
    assert_eq!(
        read(Some(sealed.clone()), Some("plain")).await.unwrap().unwrap(),
        "sealed"
    );
    assert_eq!(read(None, Some("plain")).await.unwrap().unwrap(), "plain");
    assert_eq!(read(None, None).await.unwrap(), None);
    // A ciphertext that does not open does not make the plaintext trusted.
    let (context, text) = (tenant(1), Some("x".to_owned()));
    let other = read_either(&crypto, &context, Some(&sealed), text, SSN.row(2), UNTIL);
    assert!(matches!(other.await, Err(RowsError::Encx(Error::Decrypt { .. }))));
}

const DAY: Duration = Duration::from_secs(86_400);

/// The tests' clock starts in January 2026.
const JANUARY: Adoption = Adoption::until("2026-01-31");

async fn january(db: &TestDatabase) -> AdoptionJobs {
    let crypto = db.process().await;
    let jobs = db
        .rows()
        .adopt(&crypto, PlaintextColumn::text("plain"), ssn(), JANUARY);
    jobs.unwrap()
}

/// The error with which a run gave up.
fn gave_up(report: &JobReport) -> &RowsError {
    match &report.ended_by {
        JobEnd::GaveUp(JobError::Walk { source, .. }) => source.downcast_ref().unwrap(),
        _ => panic!("{report}"),
    }
}

async fn after_its_end_an_adoption_believes_no_plaintext(db: TestDatabase) {
    plain_users(&db, 6).await;
    let adoption = january(&db).await;
    let crypto = db.process().await;
    let sealed = crypto.encrypt(&tenant(1), "sealed", SSN.row(1)).await.unwrap();
    let read = async |sealed: Option<&Ciphertext>, plain: Option<&str>| {
        let plain = plain.map(str::to_owned);
        read_either(&crypto, &tenant(1), sealed, plain, SSN.row(1), JANUARY).await
    };
    // The last moment of the last day, then the first of the next.
    db.clock.advance(DAY * 31 - Duration::from_millis(1));
    assert_eq!(read(None, Some("plain")).await.unwrap().unwrap(), "plain");
    db.run("UPDATE users SET plain = NULL WHERE id > 3").await;
    assert_eq!(adoption.backfill().run().await.run, tally(3, 0, 0));

    db.clock.advance(Duration::from_millis(1));
    db.run("UPDATE users SET plain = 'forged' WHERE id > 3").await;
    let refused = read(None, Some("forged")).await.unwrap_err();
    assert!(matches!(refused, RowsError::AdoptionEnded { until } if until == JANUARY));
    let text = refused.to_string();
    assert!(
        text.contains("2026-01-31") && text.contains("`decrypt`"),
        "{text}"
    );
    assert_eq!(
        read(Some(&sealed), Some("forged")).await.unwrap().unwrap(),
        "sealed"
    );
    assert_eq!(read(None, None).await.unwrap(), None);

    for job in [adoption.backfill(), adoption.backfill().dry_run()] {
        let report = db.in_time(job.run()).await;
        assert!(matches!(gave_up(&report), RowsError::AdoptionEnded { .. }));
        assert_eq!(report.run, tally(0, 0, 0));
    }
    assert_eq!(db.number("SELECT count(ssn) FROM users").await, 3);
    // These trust no plaintext and may still run.
    assert_eq!(db.in_time(adoption.verify().run()).await.run, tally(0, 3, 3));
    assert_eq!(db.in_time(adoption.contract().run()).await.run, tally(3, 0, 3));
}

async fn a_backfill_that_lasts_beyond_the_end_stops(db: TestDatabase) {
    plain_users(&db, 60).await;
    let adoption = january(&db).await;
    db.clock.advance(DAY * 31 - Duration::from_secs(1));
    // The first range starts at once; the others wait for time to pass.
    let mut run = adoption.backfill().range_size(10).throttle(10).start();
    while !matches!(run.next_event().await, Some(JobEvent::RangeDone { .. })) {}
    db.clock.advance(Duration::from_secs(1));
    let report = db.in_time(run.report()).await;
    assert!(!report.is_complete(), "{report}");
    let ended = report.failures.iter().filter(|failure| {
        let JobError::Walk { source, .. } = &failure.error else {
            return false;
        };
        matches!(source.downcast_ref(), Some(RowsError::AdoptionEnded { .. }))
    });
    let (ended, sealed) = (ended.count(), db.number("SELECT count(ssn) FROM users").await);
    // The rows of a started range fail, and no other range starts.
    assert!(
        ended > 0 && sealed > 0 && sealed < 60,
        "{ended} {sealed} {report}"
    );
}

async fn what_is_put_into_a_contracted_column_is_not_encrypted(db: TestDatabase) {
    plain_users(&db, 30).await;
    let adoption = adoption(&db).await;
    // With no match yet, this contracts nothing, and neither do a verification and a dry run.
    assert_eq!(db.in_time(adoption.contract().run()).await.run, tally(0, 0, 30));
    assert!(db.in_time(adoption.backfill().run()).await.is_complete());
    assert!(db.in_time(adoption.verify().run()).await.is_complete());
    let dry = db.in_time(adoption.contract().dry_run().run()).await;
    assert_eq!(dry.run, tally(30, 0, 0));
    assert_eq!(db.in_time(adoption.backfill().run()).await.run, tally(0, 0, 0));

    assert!(db.in_time(adoption.contract().run()).await.is_complete());
    db.run("UPDATE users SET ssn = NULL, plain = 'forged' WHERE id = 7")
        .await;
    // Also from another process.
    let later = self::adoption(&db).await;
    for job in [adoption.backfill(), later.backfill(), later.backfill().dry_run()] {
        let report = db.in_time(job.job_name("another").run()).await;
        let error = gave_up(&report);
        assert!(matches!(error, RowsError::Contracted { column, .. } if column == "plain"));
        let text = error.to_string();
        assert!(text.starts_with("users.plain was contracted"), "{text}");
        assert!(text.contains("encx/contracted"), "{text}");
    }
    assert_eq!(
        db.number("SELECT count(*) FROM users WHERE id = 7 AND ssn IS NOT NULL")
            .await,
        0
    );
}

/// An attacker may write the job table.
async fn what_the_database_says_only_narrows_an_adoption(db: TestDatabase) {
    plain_users(&db, 3).await;
    let adoption = january(&db).await;
    // A forged record of a contraction: the backfill refuses within the adoption's time.
    let jobs = db.keys.jobs().unwrap();
    let name = "encx/contracted \"users\".\"plain\"";
    jobs.open_job(name, "another plan").await.unwrap();
    let report = db.in_time(adoption.backfill().run()).await;
    assert!(matches!(gave_up(&report), RowsError::Contracted { job, .. } if job == name));
    // A deleted record: the end of the adoption still applies.
    let keys = encx_testkit::MemoryKeyStore::with_clock(db.clock.clone());
    let forgetful = TestDatabase { keys, ..db.clone() };
    let adoption = january(&forgetful).await;
    db.clock.advance(DAY * 31);
    let report = db.in_time(adoption.backfill().run()).await;
    assert!(matches!(gave_up(&report), RowsError::AdoptionEnded { .. }));
}
