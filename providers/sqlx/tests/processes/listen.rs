//! Hints: a listener learns of a change within a second, even if the connection breaks.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use encx::keys::{KeyState, Scope};
use encx::store::{KeyChanges, KeyHint, KeyStore, StateChange, StoreError, WrapChange};
use encx::{Aad, Crypto, EncryptionContext, Error};
use encx_sqlx::PostgresKeyStore;
use encx_testkit::{ManualClock, MemoryKms};
use futures_core::Stream;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::time::Instant;

use crate::common::new_key;
use crate::common::postgres::{Database, on_a_database};
use crate::until;

async fn next(hints: &mut KeyChanges) -> Option<KeyHint> {
    poll_fn(|context| Pin::new(&mut *hints).poll_next(context)).await
}

/// Takes the next hint, which must come soon.
pub(crate) async fn heard(hints: &mut KeyChanges) -> KeyHint {
    let hint = tokio::time::timeout(Duration::from_secs(30), next(hints)).await;
    hint.expect("a hint within 30 seconds").expect("hints continue")
}

/// Waits for the hint of a scope, and returns the earlier ones.
pub(crate) async fn heard_of(hints: &mut KeyChanges, scope: Scope) -> Vec<KeyHint> {
    let mut before = Vec::new();
    loop {
        match heard(hints).await {
            KeyHint::Changed { scope: of } if of == scope => return before,
            other => before.push(other),
        }
    }
}

async fn listening(database: &Database) -> PostgresKeyStore {
    database.store().await.listen_url(&database.url())
}

async fn count(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

const LISTENERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ '^(LISTEN|UNLISTEN)'";

#[test]
fn a_change_is_hinted_within_a_second_and_wraps_alone_are_not() {
    on_a_database(|database| async move {
        let other = database.store().await;
        other.migrate().await.unwrap();
        let mut hints = listening(&database).await.changes();
        assert_eq!(heard(&mut hints).await, KeyHint::Gap, "once it listens");
        let (new, unheard) = (new_key("t"), new_key("u"));

        let began = Instant::now();
        let record = other.insert(&new).await.unwrap();
        assert_eq!(heard_of(&mut hints, new.scope).await, []);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

        let change = WrapChange::new(&record, record.wraps.clone());
        let record = other
            .replace_wraps(&[change])
            .await
            .unwrap()
            .remove(0)
            .result
            .unwrap();
        other.insert(&unheard).await.unwrap();
        assert_eq!(
            heard_of(&mut hints, unheard.scope).await,
            [],
            "changes of wraps alone send no hint"
        );

        let began = Instant::now();
        let change = StateChange::new(&record, KeyState::Suspended);
        other.apply(&change).await.unwrap();
        assert_eq!(heard_of(&mut hints, new.scope).await, []);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // A refused or rolled back change sends no hint.
        other.apply(&change).await.unwrap_err();
        other.insert(&new).await.unwrap_err();
        let last = new_key("last");
        other.insert(&last).await.unwrap();
        assert_eq!(heard_of(&mut hints, last.scope).await, []);
    });
}

#[test]
fn a_listener_that_is_killed_comes_back_and_says_so() {
    on_a_database(|database| async move {
        let other = database.store().await;
        other.migrate().await.unwrap();
        let mut hints = listening(&database).await.changes();
        assert_eq!(heard(&mut hints).await, KeyHint::Gap);
        let mut connection = database.connection().await;
        for tenant in ["one", "two", "three"] {
            let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()";
            assert_eq!(count(&mut connection, kill).await, 1);
            assert_eq!(heard(&mut hints).await, KeyHint::Gap);
            let new = new_key(tenant);
            other.insert(&new).await.unwrap();
            assert_eq!(heard_of(&mut hints, new.scope).await, []);
        }
    });
}

#[test]
fn a_listener_waits_for_a_server_that_is_not_there_and_ends_with_its_stream() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let mut connection = database.connection().await;
        let role = format!("encx_role_{}", uuid::Uuid::new_v4().simple());
        let url = database.url().replace("postgres@", &format!("{role}@"));
        let mut hints = store.clone().listen_url(&url).changes();
        let early = tokio::time::timeout(Duration::from_millis(300), next(&mut hints)).await;
        assert!(
            early.is_err(),
            "connected as a role that does not exist: {early:?}"
        );
        let create = format!("CREATE ROLE {role} LOGIN");
        connection.execute(AssertSqlSafe(create)).await.unwrap();
        assert_eq!(heard(&mut hints).await, KeyHint::Gap);
        assert_eq!(count(&mut connection, LISTENERS).await, 1);
        drop(hints);
        let connection = Arc::new(tokio::sync::Mutex::new(connection));
        until("the connection is closed", || async {
            count(&mut *connection.lock().await, LISTENERS).await == 0
        })
        .await;
        let remove = format!("DROP ROLE {role}");
        connection
            .lock()
            .await
            .execute(AssertSqlSafe(remove))
            .await
            .unwrap();
    });
}

#[test]
fn rubbish_costs_a_bounded_number_of_gaps_and_hides_no_change() {
    on_a_database(|database| async move {
        let other = database.store().await;
        other.migrate().await.unwrap();
        let mut hints = listening(&database).await.changes();
        assert_eq!(heard(&mut hints).await, KeyHint::Gap);
        let mut connection = database.connection().await;
        let began = Instant::now();
        for _ in 0..20 {
            let rubbish = "SELECT count(pg_notify('encx_keys', repeat(chr(233), 3000) || n))
                FROM generate_series(1, 200) AS n";
            connection.execute(rubbish).await.unwrap();
        }
        let new = new_key("t");
        other.insert(&new).await.unwrap();
        let gaps = heard_of(&mut hints, new.scope).await.len();
        let most = 2 + began.elapsed().as_millis() / 500;
        assert!(gaps as u128 <= most, "{gaps} gaps in {:?}", began.elapsed());
    });
}

#[test]
fn a_pool_never_listens() {
    on_a_database(|database| async move {
        let pool = sqlx::PgPool::connect_with(database.options()).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool.clone()).listen_url(&database.url());
        store.migrate().await.unwrap();
        let mut hints = store.changes();
        assert_eq!(heard(&mut hints).await, KeyHint::Gap);
        store.insert(&new_key("t")).await.unwrap();
        let mut kept = Vec::new();
        while let Some(mut connection) = pool.try_acquire() {
            let listening = "SELECT count(*) FROM pg_listening_channels()";
            assert_eq!(count(&mut connection, listening).await, 0);
            kept.push(connection);
        }
        assert!(!kept.is_empty());
        assert_eq!(
            count(&mut kept[0], LISTENERS).await,
            1,
            "one connection besides the pool's"
        );
    });
}

#[test]
fn a_listen_url_that_is_none_is_refused_and_no_password_is_shown() {
    on_a_database(|database| async move {
        let store = database.store().await;
        store.migrate().await.unwrap();
        let refused = store.clone().listen_url("mysql//app:hunter2@db");
        let error = refused.load(&[]).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Invalid { what } if what.contains("listen_url")),
            "{error}"
        );
        let right = store.listen_url("postgres://app:hunter2@db/app");
        for shown in [format!("{error:?} {error}"), format!("{refused:?} {right:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    });
}

struct Process {
    crypto: Crypto,
    clock: ManualClock,
}

impl Process {
    /// A process that polls twice an hour.
    async fn start(kms: &MemoryKms, store: PostgresKeyStore) -> Self {
        let clock = ManualClock::new();
        let crypto = Crypto::builder(kms.clone(), store)
            .clock(clock.clone())
            .state_ttl(HOUR)
            .ttl(24 * HOUR)
            .build()
            .await
            .unwrap();
        Self { crypto, clock }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// The whole guarantee: a listening process refuses a suspended key within a second, any other within `state_ttl`.
#[test]
fn a_suspended_key_is_refused_within_a_second_or_with_the_next_poll() {
    on_a_database(|database| async move {
        let kms = MemoryKms::new();
        database.store().await.migrate().await.unwrap();
        let writer = Process::start(&kms, database.store().await).await;
        let listener = Process::start(&kms, listening(&database).await).await;
        let poller = Process::start(&kms, database.store().await).await;
        let context = EncryptionContext::builder()
            .pair("tenantId", "t")
            .build()
            .unwrap();
        let sealed = writer
            .crypto
            .encrypt(&context, "secret", Aad::unbound())
            .await
            .unwrap();
        for process in [&listener, &poller] {
            let opened = process
                .crypto
                .decrypt(&context, &sealed, Aad::unbound())
                .await
                .unwrap();
            assert_eq!(opened.as_bytes(), b"secret");
        }
        let mut connection = database.connection().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while count(&mut connection, LISTENERS).await == 0 {
            assert!(Instant::now() < deadline, "it listens");
        }

        let manager = writer.crypto.key_manager();
        let id = manager.list(&context).await.unwrap()[0].id;
        manager
            .set_state(&context, id, KeyState::Suspended)
            .await
            .unwrap();
        let began = Instant::now();
        until("the listener refuses", || async {
            let opened = listener.crypto.decrypt(&context, &sealed, Aad::unbound()).await;
            opened.is_err_and(|error| matches!(error, Error::Suspended { .. }))
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

        let opened = poller.crypto.decrypt(&context, &sealed, Aad::unbound()).await;
        assert!(
            opened.is_ok(),
            "a process that does not listen has not seen it: {opened:?}"
        );
        poller.clock.advance(HOUR);
        until("the poller refuses", || async {
            poller
                .crypto
                .decrypt(&context, &sealed, Aad::unbound())
                .await
                .is_err()
        })
        .await;
    });
}
