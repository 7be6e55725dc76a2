//! Keys rewrapped per second by `rewrap_all`, through the local provider, on PostgreSQL.
//!
//! ```text
//! ENCX_TEST_POSTGRES_URL=postgres://… cargo bench -p encx-sqlx --bench rewrap               100 000 keys
//! ENCX_TEST_POSTGRES_URL=postgres://… cargo bench -p encx-sqlx --bench rewrap -- 20000 3    so many, by three workers
//! ```
#![allow(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
#![allow(clippy::print_stdout, reason = "a bench prints its results")]
#![allow(clippy::unwrap_used, reason = "a bench that fails stops")]

use std::str::FromStr;
use std::time::Instant;

use encx::keys::{DataKeyId, KeyUsage, Scope};
use encx::kms::{DataKey, KeyManagementService, KmsContext};
use encx::{Crypto, EncryptionContext};
use encx_local::{LocalKms, Protection};
use encx_sqlx::PostgresKeyStore;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use uuid::Uuid;

const INSERT_KEYS: &str = "
    INSERT INTO encx.data_keys (id, scope, usage, version, state, context, key_check, revision, created_at,
        activated_at, changed_at)
    SELECT k.id, k.scope, 1, 1, 'active', k.context::jsonb, k.key_check, 1, now(), now(), now()
    FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::bytea[]) AS k (id, scope, context, key_check)";

const INSERT_WRAPS: &str = "
    INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext, kek_material)
    SELECT w.id, 'default', w.kek, w.ciphertext, w.material
    FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[]) AS w (id, kek, ciphertext, material)";

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let keys = numbers.first().copied().unwrap_or(100_000);
    let workers = numbers.get(1).copied().unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(bench(keys, workers));
}

async fn bench(keys: usize, workers: usize) {
    let url = std::env::var("ENCX_TEST_POSTGRES_URL").unwrap();
    let server = PgConnectOptions::from_str(&url).unwrap();
    let name = format!("encx_bench_{}", Uuid::new_v4().simple());
    let mut admin = server.connect().await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    let options = server.clone().database(&name);
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect_with(options)
        .await
        .unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keks.encx");
    let kms = LocalKms::open_or_create(file, Protection::key(DataKey::generate().unwrap()))
        .await
        .unwrap();
    PostgresKeyStore::from_pool(pool.clone()).migrate().await.unwrap();
    let began = Instant::now();
    fill(&pool, &kms, keys).await;
    pool.execute("ANALYZE").await.unwrap();
    println!("{keys} keys made in {:.1} s", began.elapsed().as_secs_f64());

    let old = kms.default_kek().unwrap().clone();
    let new = kms.create_kek().await.unwrap();
    let began = Instant::now();
    let jobs: Vec<_> = (0..workers)
        .map(|_| {
            let (kms, pool, old, new) = (kms.clone(), pool.clone(), old.clone(), new.clone());
            tokio::spawn(async move {
                let builder = Crypto::builder(kms, PostgresKeyStore::from_pool(pool));
                let crypto = builder.kek(new).also_unwrap(old).build().await.unwrap();
                crypto.key_manager().rewrap_all().range_size(1000).run().await
            })
        })
        .collect();
    let mut moved = 0;
    for job in jobs {
        let report = job.await.unwrap();
        assert!(report.is_complete(), "{report}");
        moved += report.worker.changed;
    }
    let took = began.elapsed().as_secs_f64();
    assert_eq!(usize::try_from(moved).unwrap(), keys);
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let rate = keys as f64 / took;
    println!("{moved} keys moved by {workers} in {took:.2} s: {rate:.0} a second");

    pool.close().await;
    admin
        .execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .await
        .unwrap();
}

/// Fills the tables in bulk: adding each key as a service does would take minutes.
async fn fill(pool: &PgPool, kms: &LocalKms, keys: usize) {
    let kek = kms.default_kek().unwrap();
    for begin in (0..keys).step_by(10_000) {
        let (mut ids, mut scopes, mut contexts, mut checks) = (vec![], vec![], vec![], vec![]);
        let (mut keks, mut wraps, mut materials) = (vec![], vec![], vec![]);
        for number in begin..keys.min(begin + 10_000) {
            let context = EncryptionContext::builder()
                .pair("tenantId", format!("t-{number}"))
                .pair("purpose", "pii")
                .build()
                .unwrap();
            let id = DataKeyId::generate(1_767_225_600_000 + number as u64, None).unwrap();
            let pairs = KmsContext::new(&context, KeyUsage::Data, id);
            let made = kms.generate_data_key(kek, &pairs).await.unwrap();
            ids.push(Uuid::from(id));
            scopes.push(Scope::of(KeyUsage::Data, &context).as_bytes().to_vec());
            contexts.push(serde_json::to_string(&context.to_map()).unwrap());
            checks.push(made.key.check(id).to_bytes().to_vec());
            keks.push(made.wrapped.kek.as_str().to_owned());
            wraps.push(made.wrapped.ciphertext);
            materials.push(made.wrapped.kek_material);
        }
        let insert = sqlx::query(INSERT_KEYS)
            .bind(ids.clone())
            .bind(scopes)
            .bind(contexts)
            .bind(checks);
        insert.execute(pool).await.unwrap();
        let insert = sqlx::query(INSERT_WRAPS)
            .bind(ids)
            .bind(keks)
            .bind(wraps)
            .bind(materials);
        insert.execute(pool).await.unwrap();
    }
}
