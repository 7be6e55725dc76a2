//! Tests that the store's own statements use the indexes.

#[allow(
    dead_code,
    reason = "shared with the tests that know only the public interface"
)]
#[path = "../../tests/common/postgres.rs"]
mod database;

use encx_core::key::{DataKeyId, KekId, KeyState, KeyUsage, KmsName, Scope};
use encx_core::store::{AuditQuery, KeyQuery};
use sqlx::{AssertSqlSafe, Execute, Executor, PgConnection};

use super::*;
use database::on_a_database;

/// Four versions in each of 3000 scopes, as in a typical service: few active and suspended, most deactivated.
const FILL: &str = "
    INSERT INTO encx.data_keys (id, scope, usage, version, state, suspended_from, context, key_check, revision,
        created_at, activated_at, changed_at)
    SELECT (lpad(to_hex(1767225600000 + n), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
           sha256(int4send(n / 4)), 1 + n / 4 % 4, 1 + n % 4,
           CASE WHEN n % 4 = 3 THEN 'active' WHEN n % 997 = 0 THEN 'suspended' ELSE 'deactivated' END,
           CASE WHEN n % 4 <> 3 AND n % 997 = 0 THEN 'deactivated' END,
           jsonb_build_object('tenantId', CASE WHEN n / 4 % 2 = 0 THEN 't' ELSE 't-' || n / 4 END, 'purpose', 'pii'),
           sha256(''), 1, moment, moment, moment
    FROM generate_series(0, 11999) AS n,
         LATERAL (SELECT timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute') AS m (moment);
    INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext)
    SELECT id, 'default', 'kek-' || (row_number() OVER (ORDER BY id)) / 1000, sha256('') FROM encx.data_keys;
    INSERT INTO encx.audit_log (at, key_id, scope, what, to_state)
    SELECT created_at, id, scope, 'added', 'pre-active' FROM encx.data_keys ORDER BY created_at;
";

async fn plan(connection: &mut PgConnection, mut query: Query<'_, Postgres, PgArguments>) -> String {
    let arguments = query.take_arguments().unwrap().unwrap_or_default();
    let explain = format!("EXPLAIN {}", query.sql().as_str());
    let lines: Vec<String> = sqlx::query_scalar_with(AssertSqlSafe(explain), arguments)
        .fetch_all(connection)
        .await
        .unwrap();
    lines.join("\n")
}

#[test]
fn statements_use_the_indexes() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let mut connection = database.connection().await;
        connection.execute(FILL).await.unwrap();
        // The server does this by itself after a while.
        connection.execute("VACUUM ANALYZE").await.unwrap();
        let row = sqlx::query("SELECT id, scope FROM encx.data_keys ORDER BY id OFFSET 5000 LIMIT 1")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let id: DataKeyId = row.get::<Uuid, _>("id").try_into().unwrap();
        let scope = Scope::from_bytes(row.get::<Vec<u8>, _>("scope").try_into().unwrap());
        let scopes: Vec<_> = (0..20_u8).map(|n| vec![n; 32]).collect();
        let moment = Timestamp::from_micros(1_767_225_600_000_000 + 60_000_000 * 6000);
        let (kms, kek) = (KmsName::default(), KekId::new("kek-7").unwrap());

        // With a custom plan for these values, and with a generic plan.
        for mode in ["auto", "force_generic_plan"] {
            let set = format!("SET plan_cache_mode = {mode}");
            connection.execute(AssertSqlSafe(set)).await.unwrap();
            let page = || KeyQuery::new(100).after(id);
            let pages = [
                page(),
                page().activated_before(moment),
                page().state(KeyState::Suspended),
                page().usage(KeyUsage::Pepper),
                page().usage(KeyUsage::Data).state(KeyState::Active),
                page().state(KeyState::Active).activated_before(moment),
                page().scope(scope),
                page().wrapped_by(kms.clone(), kek.clone()),
                page()
                    .wrapped_by(kms.clone(), kek.clone())
                    .state(KeyState::Active),
            ];
            let mut queries = vec![
                ("load", sqlx::query(sql::LOAD).bind(scopes.clone())),
                ("get", sqlx::query(sql::GET).bind(vec![Uuid::from(id); 20])),
                (
                    "changed_since",
                    sqlx::query(sql::CHANGES)
                        .bind(Moment(moment))
                        .bind(Uuid::nil())
                        .bind(1001_i64),
                ),
                (
                    "the rows of a scope",
                    sqlx::query(sql::LOCK_ROWS).bind(scopes[0].clone()),
                ),
                ("the time of a write", sqlx::query(sql::WRITE_TIME)),
            ];
            let (ids, ones) = (vec![Uuid::from(id); 20], vec![1_i64; 20]);
            let texts = vec!["kek-7".to_owned(); 20];
            queries.extend([
                ("keys to lock", sqlx::query(sql::LOCK_KEYS).bind(ids.clone())),
                (
                    "keys to lock if free",
                    sqlx::query(sql::LOCK_FREE_KEYS).bind(ids.clone()),
                ),
                (
                    "keys that get other wraps",
                    sqlx::query(sql::TOUCH_KEYS)
                        .bind(ids.clone())
                        .bind(ones.clone())
                        .bind(ones)
                        .bind(Moment(moment)),
                ),
                (
                    "the only wraps of keys",
                    sqlx::query(sql::REPLACE_ONLY_WRAPS)
                        .bind(ids.clone())
                        .bind(texts.clone())
                        .bind(texts)
                        .bind(vec![vec![1_u8]; 20])
                        .bind(vec![None::<String>; 20]),
                ),
                ("the wraps of keys", sqlx::query(sql::DELETE_WRAPS_OF).bind(ids)),
            ]);
            queries.extend(pages.iter().map(|query| ("page", page_query(query).unwrap())));
            let log = || AuditQuery::new(100).after(3);
            let logs = [
                log(),
                log().key(id),
                log().key(id).scope(scope),
                log().scope(scope),
            ];
            queries.extend(logs.iter().map(|query| ("audit log", audit::audit_query(query))));
            for (what, query) in queries {
                let plan = plan(&mut connection, query).await;
                assert!(
                    !plan.contains("Seq Scan on data_keys"),
                    "{what} with {mode} reads the whole table:\n{plan}"
                );
                assert!(
                    !what.contains("wraps of keys") || !plan.contains("Seq Scan on wrapped_keys"),
                    "{what} with {mode} reads all wraps:\n{plan}"
                );
                assert!(
                    plan.contains("Index"),
                    "{what} with {mode} uses an index:\n{plan}"
                );
            }
        }
        // A page of rare keys does not walk through frequent ones.
        let rare = plan(
            &mut connection,
            page_query(&KeyQuery::new(100).state(KeyState::Suspended)).unwrap(),
        )
        .await;
        assert!(rare.contains("data_keys_listed"), "{rare}");
        // The same holds for pairs that few keys have. That statement never gets a generic plan.
        connection.execute("SET plan_cache_mode = auto").await.unwrap();
        for (tenant, index) in [("t-77", "data_keys_context"), ("t", "data_keys_pkey")] {
            let pages = [
                KeyQuery::new(2).context_pair("tenantId", tenant),
                KeyQuery::new(1000)
                    .context_pair("tenantId", tenant)
                    .context_pair("purpose", "pii")
                    .state(KeyState::Active),
            ];
            for query in pages {
                let query = page_query(&query).unwrap();
                assert!(!Execute::persistent(&query));
                let plan = plan(&mut connection, query).await;
                assert!(plan.contains(index), "{tenant}: {plan}");
            }
        }
        // The last hour of a long log.
        let last = AuditQuery::new(100).since(Timestamp::from_micros(
            1_767_225_600_000_000 + 60_000_000 * 11_950,
        ));
        let plan = plan(&mut connection, audit::audit_query(&last)).await;
        assert!(plan.contains("audit_log_at"), "{plan}");
    });
}

/// A key in each of 10 000 scopes, all active and for data.
const FILL_ALIKE: &str = "
    INSERT INTO encx.data_keys (id, scope, usage, version, state, context, key_check, revision, created_at,
        activated_at, changed_at)
    SELECT (lpad(to_hex(1767225600000 + n), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
           sha256(int4send(n)), 1, 1, 'active', '{\"tenantId\": \"t\"}', sha256(''), 1, now(), now(), now()
    FROM generate_series(1, 10000) AS n";

#[test]
fn where_all_keys_are_alike_no_query_walks_through_them_for_others() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let mut connection = database.connection().await;
        connection.execute(FILL_ALIKE).await.unwrap();
        connection.execute("VACUUM ANALYZE").await.unwrap();
        for mode in ["auto", "force_generic_plan"] {
            let set = format!("SET plan_cache_mode = {mode}");
            connection.execute(AssertSqlSafe(set)).await.unwrap();
            let not_destroyed = KeyState::ALL
                .into_iter()
                .filter(|state| *state != KeyState::Destroyed);
            let query = not_destroyed.fold(KeyQuery::new(1000), KeyQuery::state);
            for query in [query.clone(), query.usage(KeyUsage::Pepper)] {
                let plan = plan(&mut connection, page_query(&query).unwrap()).await;
                assert!(plan.contains("data_keys_listed"), "{mode}: {plan}");
                assert!(!plan.contains("Filter: ((usage"), "{mode}: {plan}");
            }
        }
    });
}

/// Ten thousand claims of one job, half of them abandoned, beside those of others.
const FILL_COORDINATION: &str = "
    INSERT INTO encx.leases SELECT 'lease-' || n, gen_random_uuid(), now(), now(), 1
    FROM generate_series(1, 3000) AS n;
    INSERT INTO encx.jobs
    SELECT 'job-' || n, 1, 'plan', 'frontier', false, false, 20000, 10000, 0, 0, 0 FROM generate_series(1, 3000) AS n;
    INSERT INTO encx.job_ranges
    SELECT 'job-' || CASE WHEN n <= 10000 THEN 1 ELSE n % 3000 + 2 END, 1, n, int4send(n), int4send(n + 1),
           gen_random_uuid(), now() + (n % 2 * 2 - 1) * n * interval '1 second'
    FROM generate_series(1, 12000) AS n WHERE n <= 10000 OR n % 3000 + 2 <= 3000;
    INSERT INTO encx.processes SELECT gen_random_uuid(), 'process', 3600000000, now(), now(), 0
    FROM generate_series(1, 3000) AS n;
";

#[test]
fn statements_of_shared_work_use_the_indexes() {
    let work = sql::shared_work::STATEMENTS;
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let mut connection = database.connection().await;
        connection.execute(FILL_COORDINATION).await.unwrap();
        connection.execute("VACUUM ANALYZE").await.unwrap();
        let (name, holder) = ("job-1", Uuid::from_u128(1));
        for mode in ["auto", "force_generic_plan"] {
            let set = format!("SET plan_cache_mode = {mode}");
            connection.execute(AssertSqlSafe(set)).await.unwrap();
            let of_job = |text| sqlx::query(text).bind(name).bind(1_i64);
            let of_range = |text| of_job(text).bind(77_i64).bind(holder);
            let claim = of_job(work.claim_range).bind(holder).bind(1_i64);
            let of_process = |text| sqlx::query(text).bind(holder);
            let queries = [
                ("release", sqlx::query(work.release_lease).bind(name).bind(holder)),
                ("job", sqlx::query(work.job).bind(name)),
                ("old ranges", of_job(work.delete_old_ranges)),
                ("claim", claim),
                (
                    "extend",
                    of_job(work.move_frontier).bind(vec![1_u8]).bind(vec![2_u8]),
                ),
                ("keep", of_range(work.keep_range).bind(1_i64)),
                (
                    "count",
                    of_job(work.count_range).bind(1_i64).bind(1_i64).bind(1_i64),
                ),
                ("delete", of_range(work.delete_range)),
                (
                    "heartbeat",
                    of_process(work.heartbeat).bind(name).bind(1_i64).bind("0.1.0"),
                ),
                ("acknowledge", of_process(work.acknowledge).bind(1_i64)),
                ("deregister", of_process(work.deregister)),
            ];
            for (what, query) in queries {
                let plan = plan(&mut connection, query).await;
                for table in ["leases", "jobs", "job_ranges", "processes"] {
                    let whole = format!("Seq Scan on {table}");
                    assert!(
                        !plan.contains(&whole),
                        "{what} with {mode} reads the whole table:\n{plan}"
                    );
                }
                if what == "claim" {
                    // It takes the first expired claim, and neither reads nor sorts the others.
                    assert!(plan.contains("job_ranges_until"), "with {mode}:\n{plan}");
                    assert!(!plan.contains("Sort"), "with {mode}:\n{plan}");
                }
            }
        }
    });
}
