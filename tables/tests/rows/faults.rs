//! Planted faults: each kind of row that does not open is reported as that kind only.

use encx::jobs::JobReport;
use encx::keys::{DataKeyId, KeyState, KeyUsage};
use encx::record::EncryptedColumn;
use encx::store::{JobFaults, KeyStore};
use encx::{Ciphertext, Crypto, Field};
use encx_tables::{Rows, RowsError};
use encx_test_support::with_unknown_key;

use crate::on_both;
use crate::support::{TestDatabase, ssn, tenant};

on_both![
    each_fault_is_its_own_finding,
    keys_that_cannot_be_used_are_told_apart,
    a_sample_finds_what_is_in_it,
    a_batch_of_faults_is_tried_a_bounded_number_of_times,
    the_key_store_remembers_what_was_found,
];

const NOTE: Field = Field::new("users", "note");

/// Describes a second column of the same rows.
fn note() -> EncryptedColumn {
    EncryptedColumn::of(&NOTE)
        .row_id("id", encx::record::RowIdKind::Integer)
        .context_column("tenantId", "tenant_id")
        .context_value("purpose", "pii")
}

/// Fills both columns of `count` rows.
async fn fill(db: &TestDatabase, crypto: &Crypto, count: i64) {
    db.users(crypto, count).await;
    db.run("ALTER TABLE users ADD COLUMN note {bytes}").await;
    for id in 1..=count {
        let sealed = crypto.encrypt(&tenant(id), "a note", NOTE.row(id)).await.unwrap();
        let sealed = db.literal(sealed.as_bytes());
        db.run(&format!("UPDATE users SET note = {sealed} WHERE id = {id}"))
            .await;
    }
}

fn kinds(faults: &JobFaults) -> Vec<(String, u64)> {
    faults
        .iter()
        .map(|(kind, fault)| (kind.to_owned(), fault.items))
        .collect()
}

async fn verify(db: &TestDatabase, crypto: &Crypto, columns: &[EncryptedColumn]) -> JobReport {
    let job = db.rows().verify(crypto, columns.to_vec()).unwrap();
    db.in_time(job.run()).await
}

async fn each_fault_is_its_own_finding(db: TestDatabase) {
    let crypto = db.process().await;
    fill(&db, &crypto, 30).await;
    assert!(verify(&db, &crypto, &[ssn(), note()]).await.is_complete());
    db.run("CREATE TABLE kept AS SELECT * FROM users").await;
    let of_row_5 = db
        .bytes("SELECT ssn FROM users WHERE id = 5")
        .await
        .remove(0)
        .unwrap();
    let flipped = {
        let mut bytes = of_row_5.clone();
        bytes[50] ^= 1;
        db.literal(&bytes)
    };
    let index = crypto.key_manager().for_usage(KeyUsage::Index);
    let index = index.create(&tenant(5)).await.unwrap().id;
    let under = |id: DataKeyId| {
        let mut bytes = of_row_5.clone();
        bytes[2..18].copy_from_slice(&id.to_bytes());
        db.literal(&bytes)
    };
    let unknown = Ciphertext::parse(of_row_5.clone()).unwrap();
    let unknown = under(with_unknown_key(&unknown).key_id());
    let other_version = {
        let mut bytes = of_row_5.clone();
        bytes[0] = 9;
        db.literal(&bytes)
    };
    let plants = [
        (
            format!("ssn = {flipped}"),
            "damaged",
            "was damaged, or it belongs to another row or column",
        ),
        (
            "ssn = (SELECT ssn FROM users WHERE id = 8)".to_owned(),
            "elsewhere",
            "belongs elsewhere: it opens as users.ssn of row 8",
        ),
        (
            "ssn = note".to_owned(),
            "elsewhere",
            "belongs elsewhere: it opens as users.note of row 5",
        ),
        (
            "ssn = (SELECT ssn FROM users WHERE id = 6)".to_owned(),
            "elsewhere",
            "it belongs to encryption context purpose=pii tenantId=t-0, and opens as users.ssn of row 6",
        ),
        (
            "tenant_id = 't-1'".to_owned(),
            "elsewhere",
            "it belongs to encryption context purpose=pii tenantId=t-2, and opens there in this row",
        ),
        (
            format!("ssn = {}", under(index)),
            "elsewhere",
            "its key is for `index` and encrypts no column",
        ),
        (
            format!("ssn = {}", db.literal(b"123-45-6789")),
            "plaintext",
            "this is text, not a ciphertext",
        ),
        (
            format!("ssn = {}", db.literal(b"")),
            "plaintext",
            "was it cut short?",
        ),
        (
            format!("ssn = {}", db.literal(&[0xfe; 32])),
            "other-format",
            "format version 254 is unknown",
        ),
        (
            format!("ssn = {other_version}"),
            "other-format",
            "format version 9 is unknown",
        ),
        (
            format!("ssn = {}", db.literal(&of_row_5[..57])),
            "other-format",
            "was it cut short?",
        ),
        (format!("ssn = {unknown}"), "missing-key", "there is no data key"),
        ("tenant_id = NULL".to_owned(), "no-context", "is NULL in this row"),
        (
            "tenant_id = ''".to_owned(),
            "no-context",
            "this row has no encryption context",
        ),
    ];
    for (set, kind, says) in plants {
        db.run(&format!("UPDATE users SET {set} WHERE id = 5")).await;
        // The other column belongs to the same context.
        let both = set.contains("tenant_id");
        let report = verify(&db, &crypto, &[ssn(), note()]).await;
        assert_eq!(
            kinds(&report.faults),
            [(kind.to_owned(), 1 + u64::from(both))],
            "{set}: {report}"
        );
        let mut failed: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
        failed.sort();
        let failed = failed.pop().unwrap();
        assert!(
            failed.starts_with("users.ssn of row 5: ") && failed.contains(says),
            "{failed}"
        );
        assert!(!failed.contains("123-45"), "{failed}");
        let examples = &report.faults.get(kind).unwrap().examples;
        assert!(
            examples.contains(&"users.ssn of row 5".to_owned()),
            "{examples:?}"
        );
        db.run("UPDATE users SET ssn = (SELECT k.ssn FROM kept k WHERE k.id = users.id), tenant_id = 't-2' WHERE id = 5")
            .await;
        assert!(
            verify(&db, &crypto, &[ssn(), note()]).await.is_complete(),
            "{set}"
        );
    }
    if !db.is_postgres() {
        for (value, kind) in [
            ("12", "unreadable"),
            ("'123-45-6789'", "plaintext"),
            (
                "(SELECT CAST(k.ssn AS TEXT) FROM kept k WHERE k.id = 7)",
                "unreadable",
            ),
        ] {
            db.run(&format!("UPDATE users SET ssn = {value} WHERE id = 7"))
                .await;
            let report = verify(&db, &crypto, &[ssn()]).await;
            assert_eq!(kinds(&report.faults), [(kind.to_owned(), 1)], "{value}: {report}");
        }
    }
}

async fn keys_that_cannot_be_used_are_told_apart(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 30).await;
    db.rotate(&crypto).await;
    let manager = crypto.key_manager();
    let old = manager.list(&tenant(1)).await.unwrap()[0].id;
    let context = tenant(1);
    for state in [KeyState::Suspended, KeyState::Compromised] {
        manager.set_state(&context, old, state).await.unwrap();
        // A new process, like the command-line program.
        let report = verify(&db, &db.process().await, &[ssn()]).await;
        assert_eq!(kinds(&report.faults), [(state.name().to_owned(), 10)], "{report}");
    }
    manager.destroy_with_data(&context, old, "a test").await.unwrap();
    let report = verify(&db, &db.process().await, &[ssn()]).await;
    assert_eq!(kinds(&report.faults), [("destroyed".to_owned(), 10)], "{report}");
    // Values of another tenant with a suspended key still belong to that tenant.
    let other = manager.list(&tenant(2)).await.unwrap()[0].id;
    manager
        .set_state(&tenant(2), other, KeyState::Suspended)
        .await
        .unwrap();
    db.run("UPDATE users SET tenant_id = 't-0' WHERE id = 2").await;
    let report = verify(&db, &db.process().await, &[ssn()]).await;
    let found = kinds(&report.faults);
    let expected = [("destroyed", 10), ("elsewhere", 1), ("suspended", 9)];
    assert_eq!(
        found,
        expected.map(|(kind, rows)| (kind.to_owned(), rows)),
        "{report}"
    );
}

async fn a_sample_finds_what_is_in_it(db: TestDatabase) {
    let crypto = db.process().await;
    fill(&db, &crypto, 40).await;
    let garbage = db.literal(b"123-45-6789");
    db.run(&format!("UPDATE users SET ssn = {garbage} WHERE id = 3"))
        .await;
    db.run("UPDATE users SET ssn = NULL WHERE id = 4").await;
    db.run("UPDATE users SET ssn = (SELECT ssn FROM users WHERE id = 8) WHERE id = 5")
        .await;
    let before = db.bytes("SELECT ssn FROM users ORDER BY id").await;
    let sample = async |rows| {
        db.rows()
            .verify_sample(&crypto, [ssn(), note()], rows)
            .await
            .unwrap()
    };
    let all = sample(1000).await;
    let names: Vec<_> = all
        .iter()
        .map(|of| (of.table.as_str(), of.column.as_str()))
        .collect();
    assert_eq!(names, [("users", "ssn"), ("users", "note")]);
    assert_eq!(
        (all[0].looked_at, all[0].ok, all[1].looked_at, all[1].ok),
        (39, 37, 40, 40)
    );
    assert_eq!(
        kinds(&all[0].faults),
        [("elsewhere".to_owned(), 1), ("plaintext".to_owned(), 1)]
    );
    assert_eq!(all[0].failures.len(), 2);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let some = sample(5).await;
        assert_eq!(some[0].looked_at, 5);
        assert_eq!(some[0].ok + some[0].failures.len() as u64, 5);
        seen.extend(some[0].failures.iter().map(|failure| failure.what.clone()));
    }
    // 40 samples of 5 out of 39 miss one row in 1 of 200 runs, and both in 1 of 40 000.
    assert!(!seen.is_empty());
    assert_eq!(db.bytes("SELECT ssn FROM users ORDER BY id").await, before);
    let gone = ssn().stored_in("nowhere", "ssn");
    let refused = db.rows().verify_sample(&crypto, [gone], 5).await.unwrap_err();
    assert!(
        refused.to_string().contains("there is no table nowhere"),
        "{refused}"
    );
}

async fn a_batch_of_faults_is_tried_a_bounded_number_of_times(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 500).await;
    // Shift the values by one row, so that none opens in its own.
    db.run("CREATE TABLE kept AS SELECT * FROM users").await;
    db.run("UPDATE users SET tenant_id = 't-1', ssn = (SELECT k.ssn FROM kept k WHERE k.id = users.id % 500 + 1)")
        .await;
    let report = verify(&db, &crypto, &[ssn()]).await;
    assert_eq!(report.run.failed, 500);
    let found = kinds(&report.faults);
    assert!(
        found
            .iter()
            .all(|(kind, _)| kind == "elsewhere" || kind == "damaged"),
        "{found:?}"
    );
    let refusals = crypto.stats().refused;
    // Only the refusals of the rows themselves.
    assert!(
        refusals.unknown_key + refusals.authentication <= 500,
        "{refusals:?}"
    );
}

async fn the_key_store_remembers_what_was_found(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 50).await;
    db.run("UPDATE users SET tenant_id = NULL WHERE id = 9").await;
    assert!(!verify(&db, &crypto, &[ssn()]).await.is_complete());
    let name = Rows::verify_job_name(&ssn()).unwrap();
    let job = db.keys.jobs().unwrap().job(&name).await.unwrap().unwrap();
    assert!(job.finished && job.completed_at.is_some());
    assert_eq!((job.tally.unchanged, job.tally.failed), (49, 1));
    assert_eq!(kinds(&job.faults), [("no-context".to_owned(), 1)]);
    assert!(
        db.in_time(db.rows().reencrypt(&crypto, [ssn()]).unwrap().run())
            .await
            .run
            .failed
            == 1
    );
    let name = Rows::reencrypt_job_name(&ssn()).unwrap();
    assert!(db.keys.jobs().unwrap().job(&name).await.unwrap().is_some());
    let no_id = EncryptedColumn::new("users", "ssn");
    assert!(matches!(
        Rows::verify_job_name(&no_id),
        Err(RowsError::Description { .. })
    ));
}
