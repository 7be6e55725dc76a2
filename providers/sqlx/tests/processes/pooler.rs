//! Through PgBouncer in transaction mode, where every transaction may have another session.

use std::sync::Arc;

use encx::store::KeyStore;
use encx_sqlx::PostgresKeyStore;
use encx_testkit::{AuditedChange, StoreFixture};

use crate::common::pooler::Pooler;
use crate::common::postgres::Database;

mod conformance {
    encx_testkit::store_conformance!(super::Pooled);
}

/// A database behind a pooler that has fewer sessions than clients.
struct Pooled {
    database: Database,
    pooler: Pooler,
}

#[async_trait::async_trait]
impl StoreFixture for Pooled {
    async fn create() -> Self {
        let database = Database::empty().await;
        let pooler = Pooler::start(&database.address());
        let pooled = Self { database, pooler };
        pooled.store().await.migrate().await.unwrap();
        pooled
    }

    async fn open(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store().await)
    }

    async fn audit_log(&self) -> Option<Vec<AuditedChange>> {
        self.database.audit_log().await
    }

    async fn remove(&self) {
        self.database.drop_now().await;
    }
}

impl Pooled {
    async fn store(&self) -> PostgresKeyStore {
        let url = self.database.url_at(self.pooler.port);
        PostgresKeyStore::connect(&format!("{url}?statement-cache-capacity=0"))
            .await
            .unwrap()
    }
}

/// Sixteen clients over three sessions: each statement is prepared in one session, which may have another client's.
#[test]
fn clients_do_not_get_each_others_statements() {
    encx_testkit::block_on(async {
        let pooled = Arc::new(Pooled::create().await);
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..16 {
            let pooled = Arc::clone(&pooled);
            tasks.spawn(async move {
                let store = pooled.store().await;
                for round in 0..5 {
                    let new = crate::common::new_key(&format!("t-{client}-{round}"));
                    let record = store.insert(&new).await.unwrap();
                    assert_eq!(
                        store.load(&[new.scope]).await.unwrap(),
                        std::slice::from_ref(&record)
                    );
                    assert_eq!(
                        store.get(&[record.id]).await.unwrap(),
                        std::slice::from_ref(&record)
                    );
                    let page = store
                        .page(&encx::store::KeyQuery::new(5).scope(new.scope))
                        .await
                        .unwrap();
                    assert_eq!(page.records, [record]);
                    store
                        .changed_since(&encx::store::ChangeCursor::now())
                        .await
                        .unwrap();
                }
            });
        }
        tasks.join_all().await;
        pooled.remove().await;
    });
}

/// A direct listener hears of writes through the pooler.
#[test]
fn a_direct_listen_url_hears_what_goes_through_the_pooler() {
    encx_testkit::block_on(async {
        let pooled = Pooled::create().await;
        let store = pooled.store().await.listen_url(&pooled.database.url());
        let mut hints = store.changes();
        assert_eq!(crate::listen::heard(&mut hints).await, encx::store::KeyHint::Gap);
        let new = crate::common::new_key("t");
        store.insert(&new).await.unwrap();
        assert_eq!(crate::listen::heard_of(&mut hints, new.scope).await, []);
        pooled.remove().await;
    });
}

/// A pool of the user's own, with both settings.
#[test]
fn a_pool_of_ones_own_works_through_the_pooler() {
    encx_testkit::block_on(async {
        let pooled = Pooled::create().await;
        let options = pooled.database.options().port(pooled.pooler.port);
        let options = options.statement_cache_capacity(0).extra_float_digits(None);
        let pool = sqlx::PgPool::connect_with(options).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool).behind_transaction_pooler();
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..8 {
            let store = store.clone();
            tasks.spawn(async move {
                let new = crate::common::new_key(&format!("t-{client}"));
                let record = store.insert(&new).await.unwrap();
                assert_eq!(store.load(&[new.scope]).await.unwrap(), [record]);
            });
        }
        tasks.join_all().await;
        pooled.remove().await;
    });
}
