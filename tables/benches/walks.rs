//! How many rows a second are verified and counted, against a plain `SELECT` of the same columns over one connection.
//!
//! ```text
//! ENCX_TEST_POSTGRES_URL=postgres://… cargo bench -p encx-tables --bench walks               100 000 rows of 64 bytes
//! ENCX_TEST_POSTGRES_URL=postgres://… cargo bench -p encx-tables --bench walks -- 20000 1000  so many, of so many bytes
//! ```
#![allow(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
#![allow(clippy::print_stdout, reason = "figures are what a bench is for")]
#![allow(clippy::unwrap_used, reason = "a bench that fails stops")]

use std::str::FromStr;
use std::time::{Duration, Instant};

use encx::record::{EncryptedColumn, RowIdKind};
use encx::{Crypto, EncryptionContext, Field};
use encx_sqlx::PostgresKeyStore;
use encx_tables::Rows;
use encx_testkit::MemoryKms;
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use uuid::Uuid;

const SSN: Field = Field::new("users", "ssn");

/// How often each is measured; the median counts.
const TIMES: usize = 5;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(100_000);
    let bytes = numbers.get(1).copied().unwrap_or(64);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(bench(rows, bytes));
}

async fn bench(rows: usize, bytes: usize) {
    let url = std::env::var("ENCX_TEST_POSTGRES_URL").unwrap();
    let server = PgConnectOptions::from_str(&url).unwrap();
    let name = format!("encx_bench_{}", Uuid::new_v4().simple());
    let mut admin = server.connect().await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    let options = server.clone().database(&name);
    let pool = PgPoolOptions::new().max_connections(8);
    let pool = pool.connect_with(options).await.unwrap();
    let store = PostgresKeyStore::from_pool(pool.clone());
    store.migrate().await.unwrap();
    let crypto = Crypto::builder(MemoryKms::new(), store).build().await.unwrap();
    fill(&pool, &crypto, rows, bytes).await;

    println!("{rows} rows of {bytes} bytes, 10 encryption contexts; the median of {TIMES}");
    let plain = measured(rows, "plain SELECT", None, async || select(&pool).await).await;
    let column = || {
        EncryptedColumn::of(&SSN)
            .row_id("id", RowIdKind::Integer)
            .context_column("tenantId", "tenant_id")
    };
    let of = Rows::postgres(pool.clone());
    measured(rows, "verify", Some(plain), async || {
        let report = of.verify(&crypto, [column()]).unwrap().run().await;
        assert!(report.is_complete(), "{report}");
        usize::try_from(report.run.unchanged).unwrap()
    })
    .await;
    measured(rows, "census", Some(plain), async || {
        let counts = of.census([column()]).unwrap().count().await.unwrap();
        usize::try_from(counts.iter().map(|count| count.rows).sum::<u64>()).unwrap()
    })
    .await;
    crypto.shutdown().await;
    pool.close().await;
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    admin.execute(AssertSqlSafe(drop)).await.unwrap();
}

/// Measures how long something takes over all rows, prints the rows a second, and returns the time.
#[allow(clippy::cast_precision_loss, reason = "for people")]
async fn measured(
    rows: usize,
    what: &str,
    against: Option<Duration>,
    work: impl AsyncFn() -> usize,
) -> Duration {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let began = Instant::now();
        assert_eq!(work().await, rows, "{what}");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times[TIMES / 2];
    let ratio = against.map_or(String::new(), |plain| {
        format!(
            ", {:.2} of a plain SELECT",
            plain.as_secs_f64() / median.as_secs_f64()
        )
    });
    let rate = rows as f64 / median.as_secs_f64();
    println!(
        "{what:>14} {:>8.3} s {rate:>9.0} rows/s{ratio}",
        median.as_secs_f64()
    );
    median
}

async fn select(pool: &PgPool) -> usize {
    let mut connection = pool.acquire().await.unwrap();
    let query = sqlx::query_as::<_, (i64, String, Vec<u8>)>("SELECT id, tenant_id, ssn FROM users");
    let mut stream = query.fetch(&mut *connection);
    let mut rows = 0;
    while let Some((id, tenant, ssn)) = stream.try_next().await.unwrap() {
        rows += usize::from(id > 0 && !tenant.is_empty() && !ssn.is_empty());
    }
    rows
}

async fn fill(pool: &PgPool, crypto: &Crypto, rows: usize, bytes: usize) {
    pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, tenant_id text NOT NULL, ssn bytea NOT NULL)")
        .await
        .unwrap();
    let contexts: Vec<_> = (0..10)
        .map(|tenant| EncryptionContext::from_pairs([("tenantId", format!("t-{tenant}"))]).unwrap())
        .collect();
    let value = vec![b'x'; bytes];
    let ids: Vec<i64> = (1..).take(rows).collect();
    for ids in ids.chunks(10_000) {
        let tenant = |id: i64| usize::try_from(id % 10).unwrap();
        let items = ids
            .iter()
            .map(|id| (&contexts[tenant(*id)], &value, SSN.row(*id)));
        let sealed = crypto.encrypt_many(items.collect::<Vec<_>>()).await;
        let sealed: Vec<_> = sealed
            .into_iter()
            .map(|sealed| sealed.unwrap().into_bytes())
            .collect();
        let tenants: Vec<_> = ids.iter().map(|id| format!("t-{}", tenant(*id))).collect();
        let insert = "INSERT INTO users SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[])";
        let insert = sqlx::query(insert).bind(ids.to_vec()).bind(tenants).bind(sealed);
        insert.execute(pool).await.unwrap();
    }
    pool.execute("VACUUM ANALYZE users").await.unwrap();
}
