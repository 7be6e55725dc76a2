//! Rows with unreadable values: each fails alone and by name.

use encx::Field;
use encx::jobs::JobReport;
use encx::record::{EncryptedColumn, RowIdKind};
use encx::store::JobTally;

use crate::on_both;
use crate::support::{Pool, TestDatabase, on_postgres, ssn, tenant};

on_both![ids_that_are_too_long_for_a_position_are_passed];

/// The failures as text, sorted.
fn failed(report: &JobReport) -> Vec<String> {
    let mut failed: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
    failed.sort();
    failed
}

fn are(failed: &[String], expected: &[&str]) {
    assert_eq!(failed.len(), expected.len(), "{failed:#?}");
    for (failed, expected) in failed.iter().zip(expected) {
        assert!(failed.contains(expected), "{failed} and {expected}");
    }
}

/// Describes `notes.x`, whose rows all have the context of one tenant.
fn note(kind: RowIdKind) -> EncryptedColumn {
    EncryptedColumn::new("notes", "x")
        .row_id("id", kind)
        .context_value("tenantId", "t-1")
        .context_value("purpose", "pii")
}

const NOTE: Field = Field::new("notes", "x");

async fn ids_that_are_too_long_for_a_position_are_passed(db: TestDatabase) {
    let crypto = db.process().await;
    db.run("CREATE TABLE notes (id {text} PRIMARY KEY, x {bytes})")
        .await;
    let ids = ["a", "b", "c"]
        .map(str::to_owned)
        .into_iter()
        .chain(["b", "z"].map(|id| id.repeat(9000)));
    let mut count = 0;
    for id in ids {
        let sealed = crypto.encrypt(&tenant(1), "text", NOTE.row(&*id)).await.unwrap();
        let sealed = db.literal(sealed.as_bytes());
        db.run(&format!("INSERT INTO notes VALUES ('{id}', {sealed})"))
            .await;
        count += 1;
    }
    crypto.key_manager().rotate(&tenant(1)).await.unwrap();
    let job = db.rows().reencrypt(&crypto, [note(RowIdKind::Text)]).unwrap();
    let report = db.in_time(job.range_size(1).run()).await;
    assert_eq!(report.run, JobTally::new(count, 0, 0), "{report}");
    let verify = db.rows().verify(&crypto, [note(RowIdKind::Text)]).unwrap();
    assert!(db.in_time(verify.run()).await.is_complete());
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use encx::store::KeyCensus;
    use encx_tables::PlaintextColumn;

    use super::*;
    use crate::support::{UNTIL, USERS, on_sqlite, value};

    #[test]
    fn ciphertexts_and_contexts_of_another_class_fail_alone() {
        on_sqlite(|db| async move {
            let crypto = db.process().await;
            db.users(&crypto, 60).await;
            db.rotate(&crypto).await;
            for set in [
                "ssn = 'text' WHERE id = 11",
                "ssn = CAST(ssn AS TEXT) WHERE id = 12",
                "ssn = 12 WHERE id = 13",
                "ssn = 1.5 WHERE id = 14",
                "tenant_id = CAST(x'61ff' AS TEXT) WHERE id = 15",
                "tenant_id = x'0102' WHERE id = 16",
                "tenant_id = NULL WHERE id = 17",
            ] {
                db.run(&format!("UPDATE users SET {set}")).await;
            }
            let expected = [
                "users.ssn of row 11: users.ssn is text",
                "users.ssn of row 12: users.ssn is text",
                "users.ssn of row 13: users.ssn is integer",
                "users.ssn of row 14: users.ssn is real",
                "users.ssn of row 15: users.tenant_id is text that is not UTF-8",
                "users.ssn of row 16: users.tenant_id is bytes",
                "users.ssn of row 17: the column of the encryption context's pair \"tenantId\" is NULL",
            ];
            let job = || db.rows().reencrypt(&crypto, [ssn()]).unwrap();
            for (job, tally) in [
                (job().dry_run(), JobTally::new(53, 0, 7)),
                (job().range_size(7), JobTally::new(53, 0, 7)),
                (job(), JobTally::new(0, 53, 7)),
            ] {
                let report = db.in_time(job.run()).await;
                assert_eq!(report.run, tally, "{report}");
                are(&failed(&report), &expected);
            }
            let verify = db.rows().verify(&crypto, [ssn()]).unwrap();
            let report = db.in_time(verify.run()).await;
            assert_eq!(report.run, JobTally::new(0, 53, 7), "{report}");
            are(&failed(&report), &expected);
        });
    }

    #[test]
    fn plaintexts_of_another_class_fail_alone() {
        on_sqlite(|db| async move {
            let crypto = db.process().await;
            db.run(USERS).await;
            let rows: Vec<_> = (1..=60)
                .map(|id| format!("({id}, 't-{}', NULL, '{}')", id % 3, value(id, 0)))
                .collect();
            db.run(&format!("INSERT INTO users VALUES {}", rows.join(", ")))
                .await;
            db.run("UPDATE users SET plain = CAST(plain AS BLOB) WHERE id = 25")
                .await;
            db.run("UPDATE users SET plain = CAST(x'61ff' AS TEXT) WHERE id = 26")
                .await;
            let adoption = db
                .rows()
                .adopt(&crypto, PlaintextColumn::text("plain"), ssn(), UNTIL)
                .unwrap();
            let expected = [
                "users.ssn of row 25: users.plain is blob",
                "users.ssn of row 26: users.plain is text that is not UTF-8",
            ];
            for (job, tally) in [
                (adoption.backfill(), JobTally::new(58, 0, 2)),
                (adoption.verify(), JobTally::new(0, 58, 2)),
                (adoption.contract(), JobTally::new(58, 0, 2)),
            ] {
                let report = db.in_time(job.run()).await;
                assert_eq!(report.run, tally, "{report}");
                are(&failed(&report), &expected);
            }
        });
    }

    #[test]
    fn row_ids_of_another_class_fail_alone_and_are_passed() {
        on_sqlite(|db| async move {
            let crypto = db.process().await;
            db.run("CREATE TABLE notes (id UNIQUE, x BLOB)").await;
            for id in 1..=20 {
                let sealed = crypto.encrypt(&tenant(1), "text", NOTE.row(id)).await.unwrap();
                let sealed = db.literal(sealed.as_bytes());
                db.run(&format!("INSERT INTO notes VALUES ({id}, {sealed})"))
                    .await;
            }
            let odd = [
                "-1.5",
                "7.5",
                "'seven'",
                "'8'",
                "CAST(x'38ff' AS TEXT)",
                "x'00ff'",
                "x''",
            ];
            for id in odd {
                db.run(&format!(
                    "INSERT INTO notes SELECT {id}, x FROM notes WHERE id = 1"
                ))
                .await;
            }
            db.run("INSERT INTO notes SELECT NULL, x FROM notes WHERE id = 1")
                .await;
            crypto.key_manager().rotate(&tenant(1)).await.unwrap();
            let job = || db.rows().reencrypt(&crypto, [note(RowIdKind::Integer)]).unwrap();
            for size in [1, 2, 3, 100] {
                let report = db.in_time(job().range_size(size).dry_run().run()).await;
                assert_eq!(
                    report.run,
                    JobTally::new(20, 0, 7),
                    "in ranges of {size}: {report}"
                );
            }
            // Ranges of one row: every odd id becomes a position in the key store.
            let report = db.in_time(job().range_size(1).run()).await;
            assert_eq!(report.run, JobTally::new(20, 0, 7), "{report}");
            let expected = [
                "row \"8\": notes.id is text",
                "row \"seven\": notes.id is text",
                "row -1.5: notes.id is a real number",
                "row 0x00ff: notes.id is bytes",
                "row 0x38ff: notes.id is text that is not UTF-8",
                "row 0x: notes.id is bytes",
                "row 7.5: notes.id is a real number",
            ];
            are(&failed(&report), &expected);
        });
    }

    /// The key of a row stored as text must not be destroyed.
    #[test]
    fn a_census_counts_ciphertexts_that_are_no_blobs() {
        on_sqlite(|db| async move {
            let crypto = db.process().await;
            db.users(&crypto, 9).await;
            db.run("UPDATE users SET ssn = CAST(ssn AS TEXT) WHERE id = 4")
                .await;
            db.run("UPDATE users SET ssn = 12 WHERE id = 5").await;
            let census = db.rows().census([ssn()]).unwrap();
            let counts = census.count().await.unwrap();
            let named: Vec<_> = counts.iter().filter(|count| count.key.is_some()).collect();
            assert_eq!(named.iter().map(|count| count.rows).sum::<u64>(), 8, "{counts:?}");
            let key = crypto.key_manager().list(&tenant(4)).await.unwrap()[0].id;
            assert_eq!(census.rows_under(key).await.unwrap()[0].rows, 3);
        });
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use encx_tables::PlaintextColumn;
    use sqlx::{AssertSqlSafe, Executor};

    use super::*;
    use encx_test_support::SSN;

    use crate::support::UNTIL;

    fn pool(db: &TestDatabase) -> sqlx::PgPool {
        match &db.pool {
            Pool::Postgres(pool) => pool.clone(),
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(_) => unreachable!(),
        }
    }

    /// A value partly lost by the server, such as after a disk fault.
    #[test]
    fn a_row_that_the_server_cannot_read_fails_alone() {
        on_postgres(|db| async move {
            let crypto = db.process().await;
            db.users(&crypto, 60).await;
            db.run("CREATE EXTENSION pg_surgery").await;
            db.run("ALTER TABLE users ALTER COLUMN ssn SET STORAGE EXTERNAL")
                .await;
            let sealed = crypto
                .encrypt(&tenant(33), vec![7; 8000], SSN.row(33))
                .await
                .unwrap();
            let sealed = db.literal(sealed.as_bytes());
            db.run(&format!("UPDATE users SET ssn = {sealed} WHERE id = 33"))
                .await;
            db.run(
                "DO $$ DECLARE t regclass; BEGIN
                         SELECT reltoastrelid INTO t FROM pg_class WHERE oid = 'users'::regclass;
                         PERFORM heap_force_kill(t, ARRAY['(0,1)'::tid]);
                     END $$",
            )
            .await;
            db.rotate(&crypto).await;
            let expected = ["users.ssn of row 33: the rows could not be read or written: "];
            let job = || db.rows().reencrypt(&crypto, [ssn()]).unwrap();
            let report = db.in_time(job().range_size(20).run()).await;
            assert_eq!(report.run, JobTally::new(59, 0, 1), "{report}");
            are(&failed(&report), &expected);
            let verify = db.rows().verify(&crypto, [ssn()]).unwrap();
            let report = db.in_time(verify.run()).await;
            assert_eq!(report.run, JobTally::new(0, 59, 1), "{report}");
            are(&failed(&report), &expected);
            assert_eq!(report.faults.get("unreadable").unwrap().items, 1);
        });
    }

    /// An `SQL_ASCII` database accepts text in any encoding.
    #[test]
    fn text_that_is_not_utf_8_fails_alone() {
        on_postgres(|db| async move {
            let options = (*pool(&db).connect_options()).clone();
            let name = format!("encx_test_{}", uuid::Uuid::new_v4().simple());
            let create = format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'");
            db.run(&create).await;
            let ascii = sqlx::PgPool::connect_with(options.database(&name)).await.unwrap();
            let there = TestDatabase {
                pool: Pool::Postgres(ascii.clone()),
                ..db.clone()
            };
            let outcome = tokio::spawn(walked(there)).await;
            ascii.close().await;
            let drop = format!("DROP DATABASE {name} WITH (FORCE)");
            pool(&db).execute(AssertSqlSafe(drop)).await.unwrap();
            if let Err(error) = outcome {
                std::panic::resume_unwind(error.into_panic());
            }
        });
    }

    async fn walked(db: TestDatabase) {
        let crypto = db.process().await;
        db.run("CREATE TABLE notes (id text PRIMARY KEY, tenant text, x bytea, plain text)")
            .await;
        for id in ["a", "b", "c", "d", "e"] {
            db.run(&format!("INSERT INTO notes VALUES ('{id}', 't-1', NULL, 'text')"))
                .await;
        }
        let odd = "convert_from('\\x61ff', 'SQL_ASCII')";
        for (set, row) in [("id", 'b'), ("tenant", 'c'), ("plain", 'd')] {
            db.run(&format!("UPDATE notes SET {set} = {odd} WHERE id = '{row}'"))
                .await;
        }
        let described = EncryptedColumn::new("notes", "x")
            .row_id("id", RowIdKind::Text)
            .context_column("tenantId", "tenant")
            .context_value("purpose", "pii");
        let adoption = db
            .rows()
            .adopt(&crypto, PlaintextColumn::text("plain"), described, UNTIL)
            .unwrap();
        // Ranges of one row: the odd id becomes a position, too.
        let report = db.in_time(adoption.backfill().range_size(1).run()).await;
        assert_eq!(report.run, JobTally::new(2, 0, 3), "{report}");
        let failed = failed(&report).join("\n");
        for column in [
            "row 0x61ff: notes.id is text that is not UTF-8",
            "row \"c\": the rows could not be read",
            "row \"d\": the rows could not be read",
        ] {
            assert!(failed.contains(column), "{column}: {failed}");
        }
    }
}
