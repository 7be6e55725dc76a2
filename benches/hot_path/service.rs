//! Behavior of a service beyond single calls: the slowest calls, many tasks, memory, and a start with a slow KMS.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use encx::keys::KeyManager;
use encx::{Crypto, EncryptionContext, Error, Field, Keyring, SystemClock};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::timed::median;

const SSN: Field = Field::new("users", "ssn");
const VALUE: [u8; 64] = [0xa5; 64];

/// The time of one KMS call, where it matters.
const KMS_LATENCY: Duration = Duration::from_millis(10);
/// The number of concurrent KMS calls: the builder's default.
const KMS_CALLS: u32 = 32;

/// The amount of measurement.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    pub(crate) calls: usize,
    pub(crate) keyrings: u32,
    pub(crate) tenants: u32,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        calls: 1_000_000,
        keyrings: 100_000,
        tenants: 10_000,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        ..Self::FULL
    };
    /// Once is enough to check that it works.
    pub(crate) const TEST: Self = Self {
        rounds: 1,
        calls: 100,
        keyrings: 10,
        tenants: 3,
    };
}

/// Names and values, for the table and for `hot_path.json`.
pub(crate) fn measure(effort: Effort) -> Vec<(&'static str, f64)> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts")
    };
    let mut measured = slowest(&runtime(), effort);
    measured.extend(crowd(&runtime(), effort));
    measured.extend(footprint_in_child(effort));
    measured.extend(cold_start(&runtime(), effort));
    measured
}

fn context(tenant: impl std::fmt::Display) -> EncryptionContext {
    let context = EncryptionContext::builder().pair("tenantId", tenant);
    context.build().expect("the context is valid")
}

/// The 99.9th percentile of a hot encryption, in nanoseconds: in a quiet process, while the key is refreshed in the
/// background, and during continuous rotation. The minimum of several rounds, because noise only adds.
fn slowest(runtime: &Runtime, effort: Effort) -> Vec<(&'static str, f64)> {
    let slow_kms = || MemoryKms::new().with_latency(SystemClock::new(), KMS_LATENCY * 10);
    let built = runtime.block_on(async {
        let quiet = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
            .build()
            .await?;
        // A refresh is in flight a third of the time.
        let refreshing = Crypto::builder(slow_kms(), MemoryKeyStore::new())
            .ttl(Duration::from_millis(400))
            .refresh_ahead(0.9)
            .build()
            .await?;
        let kms = MemoryKms::new().with_latency(SystemClock::new(), KMS_LATENCY);
        let rotating = Crypto::builder(kms, MemoryKeyStore::new()).build().await?;
        for crypto in [&quiet, &refreshing, &rotating] {
            crypto.encrypt(&context("t-42"), VALUE, SSN.row(1)).await?;
        }
        Ok::<_, Error>([quiet, refreshing, rotating])
    });
    let [quiet, refreshing, rotating] = built.expect("keys are made");
    let keyring = |crypto: &Crypto| {
        let keyring = runtime.block_on(crypto.keyring(&context("t-42")));
        keyring.expect("the key is there")
    };
    let percentile = |keyring: &Keyring| percentile(runtime, keyring, effort.calls);
    let (of_quiet, of_refreshing, of_rotating) = (keyring(&quiet), keyring(&refreshing), keyring(&rotating));
    let mut least = [f64::INFINITY; 3];
    for _ in 0..effort.rounds {
        least[0] = percentile(&of_quiet).min(least[0]);
        least[1] = percentile(&of_refreshing).min(least[1]);
        let manager = rotating.key_manager();
        let rotations = runtime.spawn(async move {
            loop {
                manager.rotate(&context("t-42")).await.expect("it rotates");
            }
        });
        least[2] = percentile(&of_rotating).min(least[2]);
        rotations.abort();
    }
    let stats = refreshing.stats();
    if effort.calls >= Effort::FULL.calls {
        assert!(
            stats.refreshes > 0,
            "nothing was refreshed, so nothing was measured"
        );
    }
    vec![
        ("p99.9/quiet/nanoseconds", least[0]),
        ("p99.9/refresh", least[1] / least[0]),
        ("p99.9/rotation", least[2] / least[0]),
    ]
}

fn percentile(runtime: &Runtime, keyring: &Keyring, calls: usize) -> f64 {
    let mut nanos: Vec<_> = (0..calls)
        .map(|_| {
            let begin = Instant::now();
            let encrypted = match keyring.try_encrypt(VALUE, SSN.row(1)) {
                // Then it waits, as a request would.
                Err(Error::NotReady) => runtime.block_on(keyring.encrypt(VALUE, SSN.row(1))),
                encrypted => encrypted,
            };
            black_box(encrypted.expect("it encrypts"));
            begin.elapsed().as_nanos()
        })
        .collect();
    nanos.sort_unstable();
    nanos[nanos.len() - 1 - nanos.len() / 1000] as f64
}

/// How much longer 64 tasks on one key take than 2 tasks with the same total work.
fn crowd(runtime: &Runtime, effort: Effort) -> Vec<(&'static str, f64)> {
    let keyring = runtime.block_on(async {
        let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
            .build()
            .await
            .expect("it is built");
        let first = crypto.encrypt(&context("t-42"), VALUE, SSN.row(1)).await;
        first.expect("the key is made");
        crypto.keyring(&context("t-42")).await.expect("the key is there")
    });
    let total = |tasks: usize| {
        let begin = Instant::now();
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for _ in 0..tasks {
                let (keyring, calls) = (keyring.clone(), effort.calls / tasks);
                set.spawn(async move {
                    for _ in 0..calls {
                        black_box(keyring.encrypt(VALUE, SSN.row(1)).await.expect("it encrypts"));
                    }
                });
            }
            set.join_all().await;
        });
        begin.elapsed().as_secs_f64()
    };
    let ratios = (0..effort.rounds).map(|round| {
        // Alternating, because the first of the two warms up the machine for the second.
        let first = total(if round % 2 == 0 { 2 } else { 64 });
        let second = total(if round % 2 == 0 { 64 } else { 2 });
        if round % 2 == 0 {
            second / first
        } else {
            first / second
        }
    });
    vec![("tasks/64-to-2", median(ratios))]
}

/// The first argument that starts the memory measurement.
pub(crate) const FOOTPRINT: &str = "footprint";

/// Measures the memory of cached keyrings in a process that has freed nothing before.
fn footprint_in_child(effort: Effort) -> Option<(&'static str, f64)> {
    let program = std::env::current_exe().expect("this program is somewhere");
    let child = std::process::Command::new(program)
        .args([FOOTPRINT, &effort.keyrings.to_string()])
        .output()
        .expect("this program runs");
    let bytes: f64 = String::from_utf8(child.stdout).ok()?.trim().parse().ok()?;
    Some(("memory/100000-keyrings/megabytes", bytes * 100_000.0 / 1e6))
}

/// Returns the bytes of one keyring whose key is in memory and has encrypted and decrypted one value.
pub(crate) fn footprint(keyrings: u32) -> Option<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let contexts: Vec<_> = (0..keyrings).map(context).collect();
    let (kms, store) = (Arc::new(MemoryKms::new()), Arc::new(MemoryKeyStore::new()));
    runtime.block_on(async {
        let manager = KeyManager::new(Arc::clone(&kms), Arc::clone(&store)).expect("it is built");
        for context in &contexts {
            manager.create(context).await.expect("the key is made");
        }
        let crypto = Crypto::builder(kms, store).max_keyrings(2 * u64::from(keyrings));
        let crypto = crypto.build().await.expect("it is built");
        let before = resident()?;
        for context in &contexts {
            let encrypted = crypto
                .encrypt(context, VALUE, SSN.row(1))
                .await
                .expect("it encrypts");
            let decrypted = crypto.decrypt(context, &encrypted, SSN.row(1)).await;
            decrypted.expect("it decrypts");
        }
        let bytes = resident()?.saturating_sub(before);
        assert_eq!(crypto.stats().keys, u64::from(keyrings));
        Some(bytes as f64 / f64::from(keyrings))
    })
}

/// Returns this process's resident memory in bytes; `None` if it is unknown.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The time of the first use of many tenants at once, relative to the KMS's own time.
fn cold_start(runtime: &Runtime, effort: Effort) -> Vec<(&'static str, f64)> {
    let kms = Arc::new(MemoryKms::new().with_latency(SystemClock::new(), KMS_LATENCY));
    let store = Arc::new(MemoryKeyStore::new());
    let least = KMS_LATENCY.as_secs_f64() * f64::from(effort.tenants.div_ceil(KMS_CALLS));
    let process = || {
        let crypto = Crypto::builder(Arc::clone(&kms), Arc::clone(&store)).max_keyrings(20_000);
        runtime.block_on(crypto.build()).expect("it is built")
    };
    let (first, second) = (process(), process());
    let begin = Instant::now();
    let encrypted = runtime.block_on(async {
        let mut set = JoinSet::new();
        for tenant in 0..effort.tenants {
            let crypto = first.clone();
            set.spawn(async move {
                let encrypted = crypto.encrypt(&context(tenant), VALUE, SSN.row(1)).await;
                (tenant, encrypted.expect("it encrypts"))
            });
        }
        set.join_all().await
    });
    let encrypt = begin.elapsed().as_secs_f64() / least;
    let begin = Instant::now();
    runtime.block_on(async {
        let mut set = JoinSet::new();
        for (tenant, encrypted) in encrypted {
            let crypto = second.clone();
            set.spawn(async move {
                let decrypted = crypto.decrypt(&context(tenant), &encrypted, SSN.row(1)).await;
                decrypted.expect("it decrypts");
            });
        }
        set.join_all().await;
    });
    let decrypt = begin.elapsed().as_secs_f64() / least;
    vec![
        ("cold-start-10000/encrypt-to-kms", encrypt),
        ("cold-start-10000/decrypt-to-kms", decrypt),
    ]
}
