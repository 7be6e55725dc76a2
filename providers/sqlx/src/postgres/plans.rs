//! That the statements of the store use the indexes, asserted on the statements themselves.

#[allow(
    dead_code,
    reason = "shared with the tests that know only the public interface"
)]
#[path = "../../tests/common/postgres.rs"]
mod database;

use encx::{DataKeyId, KekId, KeyQuery, KeyState, KeyUsage, KmsName, Scope};
use sqlx::{AssertSqlSafe, Execute, Executor, PgConnection};

use super::*;
use database::on_a_database;

/// Four versions in each of 3000 scopes, as a service has them: few active and suspended, most deactivated.
const FILL: &str = "
    INSERT INTO encx.data_keys (id, scope, usage, version, state, suspended_from, context, key_check, revision,
        created_at, activated_at, changed_at)
    SELECT (lpad(to_hex(1767225600000 + n), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
           sha256(int4send(n / 4)), 1 + n / 4 % 4, 1 + n % 4,
           CASE WHEN n % 4 = 3 THEN 'active' WHEN n % 997 = 0 THEN 'suspended' ELSE 'deactivated' END,
           CASE WHEN n % 4 <> 3 AND n % 997 = 0 THEN 'deactivated' END,
           '{\"tenantId\": \"t\"}', sha256(''), 1,
           moment, moment, moment
    FROM generate_series(0, 11999) AS n,
         LATERAL (SELECT timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute') AS m (moment);
    INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext)
    SELECT id, 'default', 'kek-' || (row_number() OVER (ORDER BY id)) / 1000, sha256('') FROM encx.data_keys;
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
        // Which is what the server does by itself after a while.
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

        // As prepared for these values, and as prepared for any.
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
            queries.extend(pages.iter().map(|query| ("page", page_query(query))));
            for (what, query) in queries {
                let plan = plan(&mut connection, query).await;
                assert!(
                    !plan.contains("Seq Scan on data_keys"),
                    "{what} with {mode} reads the whole table:\n{plan}"
                );
                assert!(
                    plan.contains("Index"),
                    "{what} with {mode} uses an index:\n{plan}"
                );
            }
        }
        // A page of what is rare does not walk through what is frequent.
        let rare = plan(
            &mut connection,
            page_query(&KeyQuery::new(100).state(KeyState::Suspended)),
        )
        .await;
        assert!(rare.contains("data_keys_listed"), "{rare}");
    });
}
