//! PostgreSQL only: integer widths, locks held by others, and deadlocks.

use std::sync::atomic::{AtomicBool, Ordering};

use encx::Field;
use encx::jobs::JobEvent;
use encx::record::{EncryptedColumn, RowIdKind};
use encx::store::JobTally;
use sqlx::{Connection, Executor};

use crate::support::{Pool, TestDatabase, on_postgres, ssn, value};

fn pool(db: &TestDatabase) -> sqlx::PgPool {
    match &db.pool {
        Pool::Postgres(pool) => pool.clone(),
        #[cfg(feature = "sqlite")]
        Pool::Sqlite(_) => unreachable!(),
    }
}

#[test]
fn integers_of_every_width_varchars_and_domains_are_read() {
    on_postgres(|db| async move {
        db.run("CREATE DOMAIN tenant AS varchar(20) CHECK (VALUE <> '')")
            .await;
        db.run("CREATE DOMAIN secret AS bytea").await;
        let crypto = db.process().await;
        for (table, id) in [("a", "smallint"), ("b", "integer"), ("c", "bigint")] {
            db.run(&format!(
                "CREATE TABLE {table} (id {id} PRIMARY KEY, n integer, t tenant, u uuid, x secret)"
            ))
            .await;
            let uuid = uuid::Uuid::from_u128(0xabc);
            let context = encx::EncryptionContext::builder()
                .pair("n", 5)
                .pair("t", "x")
                .pair("u", uuid)
                .build()
                .unwrap();
            let field = Field::try_new(table, "x").unwrap();
            for id in [-3, 0, 9] {
                let sealed = crypto.encrypt(&context, "text", field.row(id)).await.unwrap();
                let sealed = db.literal(sealed.as_bytes());
                db.run(&format!(
                    "INSERT INTO {table} VALUES ({id}, 5, 'x', '{uuid}', {sealed})"
                ))
                .await;
            }
            crypto.key_manager().rotate(&context).await.unwrap();
            let column = EncryptedColumn::new(table, "x")
                .row_id("id", RowIdKind::Integer)
                .context_column("n", "n")
                .context_column("t", "t")
                .context_column("u", "u");
            let job = db.rows().reencrypt(&crypto, [column]).unwrap().range_size(1);
            let report = db.in_time(job.run()).await;
            assert_eq!(report.run, JobTally::new(3, 0, 0), "{report}");
        }
    });
}

#[test]
fn a_locked_row_is_left_until_it_is_free() {
    on_postgres(|db| async move {
        let crypto = db.process().await;
        db.users(&crypto, 60).await;
        db.rotate(&crypto).await;
        let mut other = pool(&db).acquire().await.unwrap().detach();
        other
            .execute("BEGIN; UPDATE users SET plain = 'x' WHERE id = 30")
            .await
            .unwrap();
        let mut run = db
            .rows()
            .reencrypt(&crypto, [ssn()])
            .unwrap()
            .range_size(20)
            .start();
        let until_busy = async {
            loop {
                if let JobEvent::Retrying { error } = run.next_event().await.unwrap() {
                    return error;
                }
            }
        };
        let error = db.in_time(until_busy).await;
        assert!(error.to_string().contains("hold"), "{error}");
        other.execute("COMMIT").await.unwrap();
        let report = db.in_time(run.report()).await;
        assert!(report.is_complete(), "{report}");
        assert_eq!(report.run.changed, 60);
        assert_eq!(db.read_users(&crypto).await.1, 0);
        other.close().await.unwrap();
    });
}

#[test]
fn a_batch_causes_no_deadlock() {
    on_postgres(|db| async move {
        let crypto = db.process().await;
        db.users(&crypto, 200).await;
        db.rotate(&crypto).await;
        let over = AtomicBool::new(false);
        // Locks a few rows at a time, in the opposite direction.
        let service = async {
            let mut count = 0_u32;
            while !over.load(Ordering::SeqCst) || count == 0 {
                let mut transaction = pool(&db).begin().await.unwrap();
                for id in (1..=200).rev().step_by(40) {
                    sqlx::query("UPDATE users SET plain = 'x' WHERE id BETWEEN $1 AND $2")
                        .bind(id - 39)
                        .bind(id)
                        .execute(&mut *transaction)
                        .await
                        .unwrap();
                }
                transaction.commit().await.unwrap();
                count += 1;
            }
        };
        let work = async {
            let job = || db.rows().reencrypt(&crypto, [ssn()]).unwrap().range_size(100);
            let reports = tokio::join!(job().run(), job().run());
            over.store(true, Ordering::SeqCst);
            reports
        };
        let ((), (a, _)) = Box::pin(db.in_time(async { tokio::join!(service, work) })).await;
        assert!(
            a.run.failed == 0 || a.failures.iter().all(|failure| failure.error.is_retryable()),
            "{a}"
        );
        let last = db
            .in_time(db.rows().reencrypt(&crypto, [ssn()]).unwrap().run())
            .await;
        assert!(last.is_complete(), "{last}");
        let (read, old) = db.read_users(&crypto).await;
        assert_eq!((read[0].clone(), old), (Some(value(1, 0)), 0));
    });
}

/// PostgreSQL quotes the whole row in the detail of such an error.
#[test]
fn a_refused_row_is_not_quoted() {
    on_postgres(|db| async move {
        let crypto = db.process().await;
        db.users(&crypto, 3).await;
        db.rotate(&crypto).await;
        db.run("UPDATE users SET plain = '123-45-6789' WHERE id = 2")
            .await;
        db.run("ALTER TABLE users ADD CONSTRAINT never CHECK (id <> 2) NOT VALID")
            .await;
        let job = db.rows().reencrypt(&crypto, [ssn()]).unwrap();
        let report = db.in_time(job.run()).await;
        assert_eq!(report.run, JobTally::new(2, 0, 1), "{report}");
        let mut said = format!("{report} {report:?}");
        let mut next: Option<&dyn std::error::Error> = Some(&report.failures[0].error);
        while let Some(error) = next {
            said += &format!(" {error} {error:?}");
            next = error.source();
        }
        assert!(!said.contains("6789") && !said.contains("Failing row"), "{said}");
        // The useful parts are kept.
        for part in ["23514", "check constraint", "never", "users"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    });
}
