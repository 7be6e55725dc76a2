//! Answers that never arrive: the connection that waits for one is abandoned, and no longer counts as one of the
//! store's few.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use encx::store::{KeyStore, StoreError};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::common::new_key;
use crate::common::postgres::{Database, on_a_database};

/// The number of a store's own connections beside a pool.
const OWN: usize = 2;

/// Forwards to a server. Once a client sends a certain text on a connection, nothing more is forwarded on it, and it
/// stays open.
struct Swallowing {
    port: u16,
    armed: watch::Sender<bool>,
    /// A message for each swallowed connection that the client has closed.
    given_up: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<()>,
}

impl Swallowing {
    async fn before(database: &Database, text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, server, _) = database.address();
        let (armed, watched) = watch::channel(false);
        let (closed, given_up) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), server)).await.unwrap();
                let (requests, replies_to) = client.into_split();
                let (replies, requests_to) = server.into_split();
                let (watched, closed) = (watched.clone(), closed.clone());
                tokio::spawn(async move {
                    let silent = Arc::new(AtomicBool::new(false));
                    let replies = tokio::spawn(forward_replies(replies, replies_to, Arc::clone(&silent)));
                    if let Some(swallowed) = requests_until(text, requests, requests_to, watched).await {
                        silent.store(true, Ordering::SeqCst);
                        // Both streams stay open, until the client closes its own.
                        swallow(swallowed).await;
                        let _ = closed.send(());
                    }
                    replies.abort();
                });
            }
        });
        Self {
            port,
            armed,
            given_up,
            task,
        }
    }
}

impl Drop for Swallowing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward_replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallowed: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if swallowed.load(Ordering::SeqCst) || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    if swallowed.load(Ordering::SeqCst) {
        // The client does not learn that the server has closed its end.
        std::future::pending::<()>().await;
    }
}

/// Forwards requests up to the one that contains a text, and returns the remaining streams.
async fn requests_until(
    text: &str,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    armed: watch::Receiver<bool>,
) -> Option<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let request = &buffer[..read];
        let has_text = request.windows(text.len()).any(|part| part == text.as_bytes());
        if has_text && *armed.borrow() {
            return Some((from, to));
        }
        if to.write_all(request).await.is_err() {
            return None;
        }
    }
    None
}

async fn swallow((mut from, _to): (OwnedReadHalf, OwnedWriteHalf)) {
    let mut buffer = vec![0; 1024];
    while let Ok(1..) = from.read(&mut buffer).await {}
}

/// Makes all of a store's connections wait for the answer to a statement of a write, and then writes again.
async fn gives_up_connections(database: &Database, statement: &'static str, text: &'static str) {
    let mut proxy = Swallowing::before(database, text).await;
    let options = database.options().port(proxy.port);
    let pool = PgPool::connect_lazy_with(options);
    let store = PostgresKeyStore::from_pool(pool);
    // The store has checked its tables by then, in transactions other than the test's.
    store.load(&[]).await.unwrap();
    proxy.armed.send_replace(true);
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..OWN {
        let store = store.clone();
        writes.spawn(async move { store.insert(&new_key(&format!("{statement} {number}"))).await });
    }
    let ended = timeout(Duration::from_secs(30), writes.join_all()).await;
    for outcome in ended.expect("a write ends without its answer") {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, StoreError::Unavailable { .. }),
            "{statement}: {error}"
        );
        assert!(
            error.to_string().contains("did not answer"),
            "{statement}: {error}"
        );
    }
    proxy.armed.send_replace(false);
    let began = Instant::now();
    store
        .insert(&new_key(&format!("{statement} again")))
        .await
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{statement}: {:?}",
        began.elapsed()
    );
    for _ in 0..OWN {
        let given_up = timeout(Duration::from_secs(20), proxy.given_up.recv()).await;
        given_up.unwrap_or_else(|_| panic!("{statement}: the connection is closed"));
    }
}

#[test]
fn a_connection_whose_begin_is_not_answered_is_given_up() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        gives_up_connections(
            &database,
            "begin",
            "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE",
        )
        .await;
    });
}

#[test]
fn a_connection_whose_commit_is_not_answered_is_given_up() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        gives_up_connections(&database, "commit", "COMMIT\0").await;
    });
}

#[test]
fn a_connection_whose_write_is_not_answered_is_given_up() {
    on_a_database(|database| async move {
        database.store().await.migrate().await.unwrap();
        gives_up_connections(&database, "lock", "pg_advisory_xact_lock").await;
    });
}
