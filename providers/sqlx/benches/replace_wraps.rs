//! Wraps replaced per second in PostgreSQL, by batch size: `./scripts/bench-store replace_wraps`.

#![allow(clippy::unwrap_used, reason = "a bench: a panic is a failed run")]
#![allow(clippy::print_stdout, reason = "a bench prints its results")]
#![allow(clippy::disallowed_methods, reason = "it measures")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::Server;
use encx::kms::{KekId, KmsName, WrappedKey};
use encx::store::{KeyQuery, KeyRecord, KeyStore, StoredWrap, WrapChange};
use encx_sqlx::PostgresKeyStore;

/// The number of keys, and of changes in one call.
const KEYS: u32 = 100_000;
const AT_ONCE: usize = 500;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let server = Server::create("replace_wraps").await;
    let store = Arc::new(server.store().await);
    server.fill(KEYS).await;
    println!("{KEYS} keys of one wrap each, {AT_ONCE} in a call");
    println!("{:>10} {:>12} {:>14}", "calls", "seconds", "keys a second");
    for at_once in [1, 2, 4] {
        let mut records = all(&store).await;
        let kek = format!("kek-{at_once}");
        let mut tasks = tokio::task::JoinSet::new();
        let part = records.len().div_ceil(at_once);
        let began = Instant::now();
        while !records.is_empty() {
            let mine = records.split_off(records.len().saturating_sub(part));
            tasks.spawn(rewrap(Arc::clone(&store), mine, kek.clone()));
        }
        tasks.join_all().await;
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{at_once:>10} {seconds:>12.2} {:>14.0}",
            f64::from(KEYS) / seconds
        );
    }
    server.remove().await;
}

async fn rewrap(store: Arc<PostgresKeyStore>, records: Vec<KeyRecord>, kek: String) {
    // As long as one of `encx-local`.
    let wrapped = WrappedKey::new(KekId::new(kek).unwrap(), vec![7; 121]);
    let wraps = vec![StoredWrap::new(KmsName::default(), wrapped)];
    for records in records.chunks(AT_ONCE) {
        let change = |record| WrapChange::new(record, wraps.clone()).because("bench");
        let changes: Vec<_> = records.iter().map(change).collect();
        for outcome in store.replace_wraps(&changes).await.unwrap() {
            outcome.result.unwrap();
        }
    }
}

async fn all(store: &PostgresKeyStore) -> Vec<KeyRecord> {
    let mut query = KeyQuery::new(5000);
    let mut records = Vec::new();
    loop {
        let page = store.page(&query).await.unwrap();
        records.extend(page.records);
        let Some(next) = page.next else { return records };
        query = KeyQuery::new(5000).after(next);
    }
}
