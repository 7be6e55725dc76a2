//! That the statements of the store use the indexes, asserted on the statements themselves.

use encx_core::key::{DataKeyId, KekId, KeyState, KeyUsage, KmsName, Scope};
use encx_core::store::KeyQuery;
use sqlx::{AssertSqlSafe, Execute};

use super::*;

async fn plan(store: &SqliteKeyStore, mut query: Query<'_, Sqlite, SqliteArguments>) -> Vec<String> {
    let arguments = query.take_arguments().unwrap().unwrap_or_default();
    let explain = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
    let rows = sqlx::query_with(AssertSqlSafe(explain), arguments)
        .fetch_all(&mut *store.connections.acquire().await.unwrap())
        .await
        .unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

#[test]
fn statements_use_the_indexes() {
    encx_testkit::block_on(async {
        let store = SqliteKeyStore::connect("sqlite::memory:").await.unwrap();
        store.migrate().await.unwrap();
        let id = DataKeyId::generate(1, None).unwrap();
        let scope = Scope::from_bytes([1; 32]);
        let page = || KeyQuery::new(100).after(id);
        let (kms, kek) = (KmsName::default(), KekId::new("kek").unwrap());
        let pages = [
            page(),
            page().activated_before(Timestamp::from_micros(1)),
            page().state(KeyState::Suspended),
            page().usage(KeyUsage::Pepper),
            page().usage(KeyUsage::Data).state(KeyState::Active),
            page().scope(scope),
            page().wrapped_by(kms.clone(), kek.clone()),
            page().wrapped_by(kms, kek).state(KeyState::Active).scope(scope),
        ];
        let mut queries = vec![
            ("load", sqlx::query(sql::LOAD).bind(list_of(&[scope]))),
            ("get", sqlx::query(sql::GET).bind("[]")),
            (
                "changed_since",
                sqlx::query(sql::CHANGES)
                    .bind(1_i64)
                    .bind(vec![1_u8])
                    .bind(9_i64)
                    .bind(9_i64),
            ),
            ("the time of a write", sqlx::query(sql::LAST_CHANGE).bind(1_i64)),
            (
                "a change",
                sqlx::query(sql::UPDATE_KEY).bind(vec![1_u8]).bind(1_i64),
            ),
            ("wraps", sqlx::query(sql::DELETE_WRAPS).bind(vec![1_u8])),
        ];
        queries.extend(pages.iter().map(|query| ("page", page_query(query))));
        for (what, query) in queries {
            let steps = plan(&store, query).await;
            // `SCAN k` is the page that a subquery gave; `SCAN json_each` the list that was asked for.
            let whole = steps.iter().find(|step| {
                step.starts_with("SCAN encx_") || step.starts_with("SCAN d") || step.starts_with("SCAN b")
            });
            assert_eq!(whole, None, "{what} reads a whole table: {steps:#?}");
            assert!(
                steps
                    .iter()
                    .any(|step| step.starts_with("SEARCH") && step.contains("INDEX")),
                "{what} uses an index: {steps:#?}"
            );
        }
    });
}

#[test]
fn statements_of_coordination_use_the_indexes() {
    use sql::coordination as work;
    encx_testkit::block_on(async {
        let store = SqliteKeyStore::connect("sqlite::memory:").await.unwrap();
        store.migrate().await.unwrap();
        for (what, text) in [
            ("release", work::RELEASE_LEASE),
            ("job", work::JOB),
            ("old ranges", work::DELETE_OLD_RANGES),
            ("claim", work::CLAIM_RANGE),
            ("extend", work::MOVE_FRONTIER),
            ("keep", work::KEEP_RANGE),
            ("count", work::COUNT_RANGE),
            ("delete", work::DELETE_RANGE),
            ("acknowledge", work::ACKNOWLEDGE),
            ("deregister", work::DEREGISTER),
        ] {
            let steps = plan(&store, sqlx::query(text)).await;
            assert!(
                steps.iter().any(|step| step.starts_with("SEARCH")),
                "{what} searches: {steps:#?}"
            );
            assert!(
                !steps
                    .iter()
                    .any(|step| step.starts_with("SCAN encx_") || step.contains("TEMP B-TREE")),
                "{what} reads a whole table or sorts: {steps:#?}"
            );
            if what == "claim" {
                let ended = steps.iter().find(|step| step.contains("encx_job_ranges_until"));
                assert!(ended.is_some(), "{steps:#?}");
            }
        }
    });
}
