//! jobs and the registry specific to PostgreSQL: hints, the connection's own defaults, and foreign rows.

use std::time::Duration;

use encx::store::{
    AuditLog, AuditQuery, Fence, JobFaults, JobTally, KeyStore, ProcessId, ProcessInfo, RangeClaim,
    StoreError, Timestamp,
};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Executor};

use crate::common::postgres::on_a_database;

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_fence_is_notified_once_it_is_raised() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let mut listener = PgListener::connect_with(&database.pool().await).await.unwrap();
        listener.listen("encx_keys").await.unwrap();
        for _ in 0..2 {
            let fence = store.processes().unwrap().raise_fence().await.unwrap();
            let heard = tokio::time::timeout(Duration::from_secs(30), listener.recv()).await;
            let heard = heard.unwrap().unwrap();
            assert_eq!(heard.payload(), format!("fence:{}", fence.get()));
            // The change is visible to a process that gets the hint.
            let process = ProcessInfo::new(ProcessId::random(), "p", LONG);
            assert_eq!(
                store.processes().unwrap().heartbeat(&process).await.unwrap(),
                fence
            );
        }
    });
}

/// A session may default to another isolation level; a lost race is still reported as lost, and is not an error.
#[test]
fn races_are_decided_whatever_a_session_s_defaults() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let defaults = [
            ("default_transaction_isolation", "serializable"),
            ("default_transaction_read_only", "on"),
            ("synchronous_commit", "off"),
        ];
        let pool = sqlx::PgPool::connect_with(database.options().options(defaults))
            .await
            .unwrap();
        let store = PostgresKeyStore::from_pool(pool);
        let run = store.jobs().unwrap().open_job("walk", "plan").await.unwrap();
        for round in 0..4_u8 {
            let after = round.checked_sub(1).map(|before| vec![before]);
            let mut racers = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let (store, run, after) = (store.clone(), run.clone(), after.clone());
                racers.spawn(async move {
                    let holder = ProcessId::random();
                    let upto = Some(&[round][..]);
                    store
                        .jobs()
                        .unwrap()
                        .extend_job(&run, after.as_deref(), upto, holder, LONG)
                        .await
                });
            }
            let results = racers.join_all().await;
            let won = results.into_iter().filter_map(Result::unwrap).count();
            assert_eq!(won, 1);
        }
    });
}

/// A process that stopped while it locked a claim's row does not block others that want another range.
#[test]
fn a_range_that_is_locked_is_passed_over() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let run = store.jobs().unwrap().open_job("walk", "plan").await.unwrap();
        let dead = ProcessId::random();
        let mut after: Option<&[u8]> = None;
        for upto in [b"a", b"b"] {
            let range = store
                .jobs()
                .unwrap()
                .extend_job(&run, after, Some(upto), dead, Duration::ZERO)
                .await;
            assert!(range.unwrap().is_some());
            after = Some(upto);
        }
        let mut other = database.connection().await;
        other.execute("BEGIN").await.unwrap();
        other
            .execute("SELECT FROM encx.job_ranges WHERE number = 1 FOR UPDATE")
            .await
            .unwrap();
        let claimed = store
            .jobs()
            .unwrap()
            .claim_range(&run, ProcessId::random(), LONG)
            .await
            .unwrap();
        let RangeClaim::Range(range) = claimed else {
            panic!("{claimed:?}");
        };
        assert_eq!(range.number, 2);
        let claimed = store
            .jobs()
            .unwrap()
            .claim_range(&run, ProcessId::random(), LONG)
            .await
            .unwrap();
        assert_eq!(claimed, RangeClaim::Frontier(Some(b"b".to_vec())));
    });
}

#[test]
fn a_process_that_ended_without_a_word_is_forgotten_when_another_begins() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let ended = ProcessInfo::new(ProcessId::random(), "ended", Duration::from_secs(7200));
        let other = ProcessInfo::new(ProcessId::random(), "other", Duration::from_secs(7200));
        store.processes().unwrap().heartbeat(&ended).await.unwrap();
        let mut connection = database.connection().await;
        for (hours, listed) in [("2 hours 59 minutes", 1), ("3 hours 1 minute", 0)] {
            let age = format!(
                "UPDATE encx.processes SET seen_at = now() - interval '{hours}', started_at = now() - interval '1 day'"
            );
            connection.execute(AssertSqlSafe(age)).await.unwrap();
            assert_eq!(
                store
                    .processes()
                    .unwrap()
                    .list_processes()
                    .await
                    .unwrap()
                    .processes
                    .len(),
                listed
            );
        }
        store.processes().unwrap().heartbeat(&other).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM encx.processes")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(rows, 1);
    });
}

#[test]
fn rows_that_encx_did_not_write_are_refused_or_errors() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let holder = ProcessId::random();
        store
            .leases()
            .unwrap()
            .acquire_lease("a", holder, LONG)
            .await
            .unwrap();
        let run = store.jobs().unwrap().open_job("walk", "plan").await.unwrap();
        let range = store
            .jobs()
            .unwrap()
            .extend_job(&run, None, Some(b"a"), holder, LONG)
            .await
            .unwrap()
            .unwrap();
        store
            .processes()
            .unwrap()
            .heartbeat(&ProcessInfo::new(holder, "p", LONG))
            .await
            .unwrap();
        store.processes().unwrap().raise_fence().await.unwrap();
        let mut connection = database.connection().await;
        for refused in [
            "UPDATE encx.leases SET name = ''",
            "UPDATE encx.leases SET term = 0",
            "UPDATE encx.leases SET until = since - interval '1 second'",
            "UPDATE encx.jobs SET run = 0",
            "UPDATE encx.jobs SET changed = -1",
            "UPDATE encx.jobs SET open_ranges = ranges + 1",
            "UPDATE encx.jobs SET finished = true",
            "UPDATE encx.jobs SET frontier = decode(repeat('00', 8193), 'hex')",
            "DELETE FROM encx.jobs",
            "UPDATE encx.job_ranges SET number = 0",
            "UPDATE encx.processes SET serves_for = -1",
            "UPDATE encx.processes SET acknowledged = -1",
            "UPDATE encx.fences SET number = 0",
            "INSERT INTO encx.fences VALUES (false, 1)",
            "UPDATE encx.migrations SET compatible_from = version + 1",
        ] {
            assert!(connection.execute(refused).await.is_err(), "{refused}");
        }
        connection
            .execute(
                "ALTER TABLE encx.jobs DROP CONSTRAINT jobs_failed_check; UPDATE encx.jobs SET failed = -1",
            )
            .await
            .unwrap();
        let error = store.jobs().unwrap().job("walk").await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt { what } if what.contains("failed")),
            "{error}"
        );
        connection
            .execute("UPDATE encx.jobs SET failed = 0")
            .await
            .unwrap();
        assert!(
            store
                .jobs()
                .unwrap()
                .complete_range(&range, JobTally::new(1, 0, 0), &JobFaults::default())
                .await
                .unwrap()
        );
        // Without a fence's row it restarts: only processes that acknowledged are ahead of it.
        connection.execute("DELETE FROM encx.fences").await.unwrap();
        assert_eq!(
            store.processes().unwrap().raise_fence().await.unwrap(),
            Fence::new(1)
        );
        let none = store.jobs().unwrap().job("never opened").await.unwrap();
        assert_eq!(none, None);
        connection.execute("DROP TABLE encx.leases").await.unwrap();
        let error = store
            .leases()
            .unwrap()
            .acquire_lease("a", holder, LONG)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::NotMigrated { .. }), "{error}");
        assert!(store.leases().is_some() && store.jobs().is_some() && store.processes().is_some());
    });
}

#[test]
fn counts_that_cannot_be_read_are_named_and_a_day_without_a_number_is_skipped() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let mut connection = database.connection().await;
        let long = "INSERT INTO encx.daily_counts VALUES ('2026-01-01', repeat('x', 65), 1)";
        assert!(connection.execute(long).await.is_err());
        let days = "INSERT INTO encx.daily_counts
                    VALUES (now()::date, 'hits', 2), ('infinity', 'hits', 1), ('-infinity', 'hits', 1)";
        connection.execute(days).await.unwrap();
        let registry = store.processes().unwrap();
        let ever = Timestamp::from_micros(i64::MIN);
        assert_eq!(registry.daily_counts(ever).await.unwrap().len(), 1);
        let bad = "ALTER TABLE encx.daily_counts DROP CONSTRAINT daily_counts_count_check;
                   UPDATE encx.daily_counts SET count = -1";
        connection.execute(bad).await.unwrap();
        let error = registry.daily_counts(ever).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt { what } if what.contains("count")),
            "{error}"
        );
    });
}

#[test]
fn a_forged_entry_of_the_audit_log_is_named_and_hides_no_other() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let mut connection = database.connection().await;
        let forged = "INSERT INTO encx.audit_log (at, key_id, scope, what, to_state)
                      VALUES (now(), gen_random_uuid(), sha256(''), 'added', 'active') RETURNING seq";
        let number = crate::count(&mut connection, forged).await;
        let page = store.audit_page(&AuditQuery::new(1)).await.unwrap();
        assert_eq!(
            (page.entries.len(), page.unreadable, page.next),
            (0, vec![number], None)
        );
    });
}
