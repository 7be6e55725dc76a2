//! The duration of each operation with a million keys in PostgreSQL, and a check that none scans whole tables:
//! `./scripts/bench-store scale`.

#![allow(clippy::unwrap_used, reason = "a bench: a panic is a failed run")]
#![allow(clippy::print_stdout, reason = "a bench prints its results")]
#![allow(clippy::disallowed_methods, reason = "it measures")]

mod common;

use std::time::{Duration, Instant};

use common::{FIRST_MOMENT, Server, VERSIONS};
use encx::keys::{KeyState, KeyUsage, Scope};
use encx::kms::{KekId, KmsName};
use encx::store::{ChangeCursor, KeyQuery, KeyStore, Timestamp};
use encx_sqlx::PostgresKeyStore;
use sqlx::{Executor, Row};

/// The number of keys, unless `ENCX_BENCH_KEYS` is set.
const KEYS: u32 = 1_000_000;

const MINUTE: i64 = 60_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let keys = std::env::var("ENCX_BENCH_KEYS").map_or(KEYS, |keys| keys.parse().unwrap());
    let server = Server::create("scale").await;
    let began = Instant::now();
    server.fill(keys).await;
    println!(
        "{keys} keys in {} scopes, filled in {:.0?}",
        keys / VERSIONS,
        began.elapsed()
    );
    let scanned = server.whole_tables_read().await;
    let pool = server.pool().await;
    let store = PostgresKeyStore::from_pool(pool.clone());
    store.load(&[]).await.unwrap();
    println!("{:<52} {:>6} {:>10} {:>10}", "", "times", "median", "slowest");
    loads(&server, &store, keys).await;
    pages(&store, keys).await;
    polls(&server, &store).await;
    // Once its connections are closed, the server's statistics are complete.
    pool.close().await;
    let scanned = server.whole_tables_read().await - scanned;
    assert_eq!(scanned, 0, "whole tables were read");
    println!("no table was read as a whole");
    server.remove().await;
}

async fn loads(server: &Server, store: &PostgresKeyStore, keys: u32) {
    let scopes = scopes(server, keys, 6000).await;
    let mut times = Vec::new();
    for scope in &scopes[..1000] {
        let began = Instant::now();
        assert_eq!(store.load(std::slice::from_ref(scope)).await.unwrap().len(), 4);
        times.push(began.elapsed());
    }
    report("load one scope, of four versions", times);
    let mut times = Vec::new();
    for scopes in scopes[1000..].chunks(1000) {
        let began = Instant::now();
        assert_eq!(store.load(scopes).await.unwrap().len(), 4000);
        times.push(began.elapsed());
    }
    report("load 1000 scopes, of four versions each", times);
}

async fn pages(store: &PostgresKeyStore, keys: u32) {
    let half = Timestamp::from_micros(FIRST_MOMENT + i64::from(keys / 2) * MINUTE);
    let due = || {
        KeyQuery::new(500)
            .usage(KeyUsage::Data)
            .state(KeyState::Active)
            .activated_before(half)
    };
    let expected = usize::try_from(keys / 2 / VERSIONS).unwrap();
    walk(
        "rotation scan: a page of 500 active keys that are due",
        store,
        due,
        expected,
    )
    .await;
    let suspended = || KeyQuery::new(500).state(KeyState::Suspended);
    walk(
        "a page of up to 500 suspended keys, of 500",
        store,
        suspended,
        500,
    )
    .await;
    let wrapped = || KeyQuery::new(500).wrapped_by(KmsName::default(), KekId::new("kek-rare").unwrap());
    walk(
        "a page of up to 500 keys under a KEK, of 500",
        store,
        wrapped,
        500,
    )
    .await;
    let all = || KeyQuery::new(1000);
    walk(
        "a page of 1000 of all keys",
        store,
        all,
        usize::try_from(keys).unwrap(),
    )
    .await;
}

/// Walks all pages of a query.
async fn walk(what: &str, store: &PostgresKeyStore, query: impl Fn() -> KeyQuery, expected: usize) {
    let (mut times, mut found, mut after) = (Vec::new(), 0, None);
    loop {
        let query = after.into_iter().fold(query(), KeyQuery::after);
        let began = Instant::now();
        let page = store.page(&query).await.unwrap();
        times.push(began.elapsed());
        found += page.records.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, expected, "{what}");
    report(what, times);
}

async fn polls(server: &Server, store: &PostgresKeyStore) {
    let mut cursor = store.changed_since(&ChangeCursor::now()).await.unwrap().next;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let page = store.changed_since(&cursor).await.unwrap();
        times.push(began.elapsed());
        assert!(page.changes.is_empty());
        cursor = page.next;
    }
    report("poll, nothing new", times);
    let touch = "UPDATE encx.data_keys SET changed_at = clock_timestamp(), revision = revision + 1
        WHERE id IN (SELECT id FROM encx.data_keys ORDER BY id LIMIT 1000)";
    server.connection().await.execute(touch).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let page = store.changed_since(&cursor).await.unwrap();
        times.push(began.elapsed());
        assert_eq!(page.changes.len(), 1000);
    }
    report("poll, 1000 new", times);
}

/// Picks scopes from all over the table.
async fn scopes(server: &Server, keys: u32, count: i32) -> Vec<Scope> {
    let choose =
        "SELECT sha256(int4send((n::bigint * 7919 % $1)::int)) AS scope FROM generate_series(1, $2) AS n";
    let rows = sqlx::query(choose)
        .bind(i64::from(keys / VERSIONS))
        .bind(count)
        .fetch_all(&mut server.connection().await)
        .await
        .unwrap();
    rows.iter()
        .map(|row| Scope::from_bytes(row.get::<&[u8], _>("scope").try_into().unwrap()))
        .collect()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what:<52} {:>6} {median:>10.2?} {slowest:>10.2?}", times.len());
}
