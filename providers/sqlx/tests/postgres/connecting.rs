//! Connections: which ones the store uses, and its errors if there are none.

use std::error::Error as _;
use std::time::Duration;

use encx::store::{KeyStore, StoreError};
use encx::{Crypto, EncryptionContext, Error, Field};
use encx_sqlx::PostgresKeyStore;
use encx_testkit::{MemoryKms, block_on};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::common::new_key;
use crate::common::pooler::Pooler;
use crate::common::postgres::on_a_database;
use crate::{count, run};

const NAME: Field = Field::new("users", "name");
const PASSWORD: &str = "hunter2";

fn tenant(number: usize) -> EncryptionContext {
    let context = EncryptionContext::builder().pair("tenantId", number);
    context.build().unwrap()
}

/// Begins a transaction on every connection of a pool, and encrypts in each for a tenant without a key.
async fn encrypt_in_transactions(pool: &PgPool, crypto: &Crypto) {
    let all = usize::try_from(pool.options().get_max_connections()).unwrap();
    let mut transactions = Vec::new();
    for _ in 0..all {
        transactions.push(pool.begin().await.unwrap());
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut transaction) in transactions.into_iter().enumerate() {
        let crypto = crypto.clone();
        tasks.spawn(async move {
            let sealed = crypto.encrypt(&tenant(number), "Ada", NAME.row(7)).await?;
            sqlx::query("INSERT INTO users VALUES ($1)")
                .bind(sealed)
                .execute(&mut *transaction)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
            Ok::<(), Error>(())
        });
    }
    for outcome in tasks.join_all().await {
        outcome.unwrap();
    }
}

#[test]
fn ten_transactions_on_all_connections_each_encrypt_for_a_new_tenant() {
    on_a_database(|database| async move {
        let mut connection = database.connection().await;
        run(&mut connection, "CREATE TABLE users (name bytea)").await;
        let pool = PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(20));
        let pool = pool.connect_with(database.options()).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        let crypto = Crypto::builder(MemoryKms::new(), store).build().await.unwrap();
        encrypt_in_transactions(&pool, &crypto).await;
        assert_eq!(count(&mut connection, "SELECT count(*) FROM users").await, 10);
        assert_eq!(
            count(
                &mut connection,
                "SELECT count(DISTINCT scope) FROM encx.data_keys"
            )
            .await,
            10
        );
    });
}

/// The pooler has three sessions: two are in transactions of the caller.
#[test]
fn transactions_through_a_pooler_encrypt_for_new_tenants() {
    on_a_database(|database| async move {
        let mut connection = database.connection().await;
        run(&mut connection, "CREATE TABLE users (name bytea)").await;
        let pooler = Pooler::start(&database.address());
        let options = database.options().port(pooler.port);
        let options = options.statement_cache_capacity(0).extra_float_digits(None);
        let pool = PgPoolOptions::new().max_connections(2);
        let pool = pool.connect_with(options).await.unwrap();
        let store = PostgresKeyStore::from_pool(pool.clone()).behind_transaction_pooler();
        store.migrate().await.unwrap();
        let crypto = Crypto::builder(MemoryKms::new(), store).build().await.unwrap();
        encrypt_in_transactions(&pool, &crypto).await;
        assert_eq!(count(&mut connection, "SELECT count(*) FROM users").await, 2);
    });
}

#[test]
fn the_connections_of_the_store_end_with_the_pool_and_with_the_store() {
    on_a_database(|database| async move {
        let mut watcher = database.connection().await;
        for closes in [true, false] {
            let options = database.options().application_name("theirs");
            let pool = PgPool::connect_with(options).await.unwrap();
            let store = PostgresKeyStore::from_pool(pool.clone());
            store.migrate().await.unwrap();
            let open = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = 'theirs'";
            assert!(count(&mut watcher, open).await >= 2, "of each pool");
            let mut kept = None;
            if closes {
                pool.close().await;
                kept = Some(store);
            } else {
                drop((pool, store));
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            while count(&mut watcher, open).await > 0 {
                assert!(Instant::now() < deadline, "they end; closed: {closes}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Some(store) = kept {
                let error = store.load(&[]).await.unwrap_err();
                assert!(error.is_retryable(), "{error}");
            }
        }
    });
}

/// For example, when a service replaces an expiring password.
#[test]
fn options_that_the_caller_changes_hold_for_the_store_too() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        let right = database.options();
        let pool = PgPool::connect_lazy_with(right.clone().database("encx_no_such_database"));
        let store = PostgresKeyStore::from_pool(pool.clone());
        let error = store.load(&[]).await.unwrap_err();
        assert!(matches!(error, StoreError::Database { .. }), "{error}");
        pool.set_connect_options(right);
        store.load(&[]).await.unwrap();
    });
}

/// Returns a port on which nothing listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

fn url_at(port: u16) -> String {
    format!("postgres://app:{PASSWORD}@127.0.0.1:{port}/app")
}

fn lazy_pool(url: &str) -> PgPool {
    PgPool::connect_lazy(url).unwrap()
}

/// Checks that an error and its sources name the server, and never the password.
fn names_the_server(error: &StoreError, port: u16) {
    let shown = format!("{error} / {error:?}");
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{shown}"
    );
    assert!(!shown.contains(PASSWORD), "{shown}");
    let mut source = error.source();
    while let Some(cause) = source {
        assert!(!format!("{cause} {cause:?}").contains(PASSWORD), "{cause:?}");
        source = cause.source();
    }
}

fn is_refused(error: &StoreError) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = cause.source();
    }
    false
}

#[test]
fn a_refused_connection_is_told_within_a_second() {
    block_on(async {
        let port = closed_port().await;
        let url = url_at(port);
        // A busy machine may delay one of them.
        let (mut connecting, mut loading) = (Duration::MAX, Duration::MAX);
        let mut errors = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            errors.push(PostgresKeyStore::connect(&url).await.unwrap_err());
            connecting = connecting.min(began.elapsed());

            let store = PostgresKeyStore::from_pool(lazy_pool(&url));
            let began = Instant::now();
            errors.push(store.load(&[]).await.unwrap_err());
            loading = loading.min(began.elapsed());
        }
        assert!(connecting < Duration::from_secs(1), "{connecting:?}");
        assert!(loading < Duration::from_secs(1), "{loading:?}");
        for error in errors {
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
            assert!(is_refused(&error), "{error:?}");
            names_the_server(&error, port);
        }
    });
}

/// The request reports the database's failure, rather than a slow load of a key.
#[test]
fn requests_on_a_database_that_is_gone_say_so_within_a_second() {
    on_a_database(|database| async move {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = proxy.local_addr().unwrap().port();
        let (host, server_port, _) = database.address();
        let forward = tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = proxy.accept().await.unwrap();
                let mut far = tokio::net::TcpStream::connect((host.as_str(), server_port))
                    .await
                    .unwrap();
                streams.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        });
        let pool = PgPool::connect_lazy_with(database.options().port(port));
        let store = PostgresKeyStore::from_pool(pool);
        store.migrate().await.unwrap();
        let crypto = Crypto::builder(MemoryKms::new(), store).build().await.unwrap();
        crypto.encrypt(&tenant(1), "Ada", NAME.row(7)).await.unwrap();
        // The listener and all connections end with it.
        forward.abort();
        assert!(forward.await.unwrap_err().is_cancelled());

        let mut requests = tokio::task::JoinSet::new();
        for number in 2..22 {
            let crypto = crypto.clone();
            requests.spawn(async move {
                let began = Instant::now();
                let outcome = crypto.encrypt(&tenant(number), "Ada", NAME.row(7)).await;
                (outcome.unwrap_err(), began.elapsed())
            });
        }
        for (error, took) in requests.join_all().await {
            let Error::Store(error) = error else {
                panic!("{error:?}");
            };
            assert!(is_refused(&error), "{error:?}");
            names_the_server(&error, port);
            // Half of the pool's own time-out, for a busy machine.
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
        crypto.encrypt(&tenant(1), "Ada", NAME.row(8)).await.unwrap();
    });
}

#[test]
fn a_host_that_does_not_answer_is_told_within_the_time_for_connecting() {
    block_on(async {
        // Connections wait to be accepted, and never are.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let began = Instant::now();
        let error = PostgresKeyStore::connect(&url_at(port)).await.unwrap_err();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("within 5s"), "{error}");
        names_the_server(&error, port);
    });
}

#[test]
fn urls_of_other_databases_are_refused_by_name_at_once() {
    block_on(async {
        for (url, says) in [
            ("mysql://app:hunter2@127.0.0.1/app", "`mysql://`"),
            ("foo://app:hunter2@127.0.0.1/app", "`foo://`"),
            ("sqlite:keys.db", "something else"),
            ("app:hunter2@127.0.0.1", "something else"),
            ("app:hunter2//x@127.0.0.1", "something else"),
            ("hunter2 hunter2://127.0.0.1", "something else"),
            ("127.0.0.1", "something else"),
            ("", "something else"),
            ("postgres://app:hunter2@127.0.0.1:port/app", "port"),
            ("postgres://127.0.0.1/app?sslmode=perhaps", "perhaps"),
        ] {
            let listening = PostgresKeyStore::from_pool(lazy_pool(&url_at(1))).listen_url(url);
            let errors = async {
                let connected = PostgresKeyStore::connect(url).await.unwrap_err();
                [connected, listening.load(&[]).await.unwrap_err()]
            };
            let errors = timeout(Duration::from_secs(5), errors).await.expect("at once");
            for error in errors {
                assert!(
                    matches!(&error, StoreError::Invalid { what } if what.contains(says)),
                    "{url}: {error}"
                );
                assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
            }
        }
    });
}

/// Answers each connection like a server that refuses it, with an error of this code.
async fn server_that_refuses(code: &'static str, message: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut length = [0; 4];
            while stream.read_exact(&mut length).await.is_ok() {
                let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
                stream.read_exact(&mut rest).await.unwrap();
                // Decline a request for TLS; the startup message follows.
                if rest == 80_877_103_u32.to_be_bytes() {
                    stream.write_all(b"N").await.unwrap();
                    continue;
                }
                let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
                let length = u32::try_from(fields.len() + 4).unwrap();
                let mut answer = vec![b'E'];
                answer.extend(length.to_be_bytes());
                answer.extend(fields.as_bytes());
                stream.write_all(&answer).await.unwrap();
                break;
            }
        }
    });
    port
}

#[test]
fn what_the_server_refuses_is_told_with_what_to_do() {
    on_a_database(|database| async move {
        let wrong = server_that_refuses("28P01", "password authentication failed for user \"app\"").await;
        let url = url_at(wrong);
        for error in [
            PostgresKeyStore::connect(&url).await.unwrap_err(),
            PostgresKeyStore::from_pool(lazy_pool(&url))
                .load(&[])
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Database { .. }), "{error}");
            assert!(
                error.to_string().contains("check the user and the password"),
                "{error}"
            );
            names_the_server(&error, wrong);
        }

        let (_, port, _) = database.address();
        let missing = database.url().replace("encx_test_", "encx_none_");
        let error = PostgresKeyStore::connect(&missing).await.unwrap_err();
        assert!(matches!(error, StoreError::Database { .. }), "{error}");
        assert!(error.to_string().contains("create the database"), "{error}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");

        let tls: PgConnectOptions = url_at(wrong).parse().unwrap();
        let pool = PgPool::connect_lazy_with(tls.ssl_mode(PgSslMode::VerifyFull));
        let error = PostgresKeyStore::from_pool(pool).load(&[]).await.unwrap_err();
        assert!(error.to_string().contains("`sslmode`"), "{error}");
        names_the_server(&error, wrong);
    });
}

/// The store waits for a starting server as long as the pool's time-out, and then reports the server's own message.
#[test]
fn a_server_that_is_starting_is_waited_for() {
    block_on(async {
        let port = server_that_refuses("57P03", "the database system is starting up").await;
        let limit = Duration::from_secs(2);
        let pool = PgPoolOptions::new().acquire_timeout(limit);
        let store = PostgresKeyStore::from_pool(pool.connect_lazy(&url_at(port)).unwrap());
        let began = Instant::now();
        let error = store.load(&[]).await.unwrap_err();
        assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("is starting up"), "{error}");
        names_the_server(&error, port);
    });
}

/// Behind a pooler the error names the pooler, because that is what refuses.
#[test]
fn a_pooler_without_its_server_is_named() {
    block_on(async {
        let nowhere = closed_port().await;
        let pooler = Pooler::start(&("127.0.0.1".to_owned(), nowhere, "app".to_owned()));
        let url = format!("{}?statement-cache-capacity=0", url_at(pooler.port));
        let began = Instant::now();
        let error = PostgresKeyStore::connect(&url).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        names_the_server(&error, pooler.port);
    });
}

/// A store made from a pool can read and write while the pool's only connection is in use.
#[test]
fn reads_and_writes_need_no_connection_of_the_pool() {
    on_a_database(|database| async move {
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect_with(database.options()).await.unwrap();
        let taken = pool.acquire().await.unwrap();
        let store = PostgresKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        let record = store.insert(&new_key("t")).await.unwrap();
        assert_eq!(store.load(&[record.scope]).await.unwrap().len(), 1);
        store.processes().unwrap().raise_fence().await.unwrap();
        drop(taken);
    });
}
