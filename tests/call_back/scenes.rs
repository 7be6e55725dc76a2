//! The scenes that cause every event.

use std::time::Duration;

use super::{CallingClock, SERVICES, calling_harness, register};
use encx::keys::{KeyCheck, Maintenance};
use encx::kms::{KekChoice, KmsErrorKind};
use encx::store::{KeyStore, ProcessId};
use encx::suite::Suite;
use encx::{Crypto, CryptoBuilder, EncryptionContext, Error, Keyring};
use encx_test_support::{
    FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open, seal, settle, with_unknown_key, within,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn all() {
    refusals().await;
    begin("rows that were edited");
    rows_that_were_edited().await;
    begin("a key store that is down");
    a_key_store_that_is_down().await;
    begin("a KMS that is down");
    a_kms_that_is_down().await;
    begin("a KMS that refuses");
    a_kms_that_refuses().await;
    begin("processes that start");
    processes_that_start().await;
    begin("two KEKs");
    two_keks().await;
    begin("rotations");
    rotations().await;
    begin("maintenance");
    maintenance().await;
}

/// Begins a scene, without call-backs of the previous ones. If it hangs, its name is the last one printed.
#[allow(clippy::print_stderr, reason = "shown where the test fails")]
fn begin(scene: &str) {
    SERVICES.lock().unwrap().clear();
    eprintln!("{scene}");
}

/// Advances time in steps of the poll interval, with a request between them.
pub(crate) async fn pass_with(harness: &FaultHarness, time: Duration, mut request: impl FnMut()) {
    let steps = time.as_secs() / 25;
    for _ in 0..=steps {
        harness.clock.advance(25 * SECOND);
        for _ in 0..30 {
            tokio::task::yield_now().await;
        }
        request();
    }
}

/// Starts a process with a clock that calls back, and registers it for call-backs.
async fn start(harness: &FaultHarness, builder: CryptoBuilder) -> (Crypto, Keyring, EncryptionContext) {
    let (process, context) = (build(harness, builder).await, context("a"));
    let _ = process.encrypt(&context, "x", SSN.row(1)).await;
    let keyring = process.keyring(&context).await.unwrap();
    register(harness, &process, &keyring);
    (process, keyring, context)
}

async fn build(harness: &FaultHarness, builder: CryptoBuilder) -> Crypto {
    let builder = builder.clock(CallingClock(harness.clock.clone()));
    // Some scenes have refused KEKs.
    let process = builder.connect_lazily().build().await.unwrap();
    settle().await;
    process
}

fn elsewhere(harness: &FaultHarness) -> CryptoBuilder {
    Crypto::builder(harness.kms.clone(), harness.rows.clone())
}

/// Advances time in steps until a future is done.
async fn drive<F: Future>(harness: &FaultHarness, work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    within(async {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = settle() => harness.clock.advance(Duration::from_millis(250)),
            }
        }
    })
    .await
}

async fn refusals() {
    let harness = calling_harness();
    let (process, keyring, context) = start(&harness, harness.builder()).await;
    let sealed = seal(&process, &context).await;
    keyring.try_decrypt(&sealed, SSN.row(2)).unwrap_err();
    open(&process, &context, &with_unknown_key(&sealed))
        .await
        .unwrap_err();
    let uncommitted = elsewhere(&harness)
        .accept_uncommitted()
        .encrypt_with(Suite::Xaes256Gcm);
    let uncommitted = build(&harness, uncommitted).await;
    let of_suite_2 = seal(&uncommitted, &context).await;
    keyring.try_decrypt(&of_suite_2, SSN.row(1)).unwrap_err();
    harness.suspend_elsewhere(&context).await;
    settle().await;
    open(&process, &context, &sealed).await.unwrap_err();
    process.encrypt(&context, "", SSN.row(1)).await.unwrap_err();
}

async fn rows_that_were_edited() {
    let harness = calling_harness();
    let (process, _, here) = start(&harness, harness.builder()).await;
    let other = context("b");
    let sealed = [seal(&process, &here).await, seal(&process, &other).await];
    harness.kms.create_kek("memory/other");
    let strict = build(&harness, elsewhere(&harness).kek("memory/other")).await;
    let refused = open(&strict, &here, &sealed[0]).await;
    assert!(matches!(refused, Err(Error::KekNotAllowed { .. })), "{refused:?}");
    harness.rows.tamper(|rows| {
        for row in rows {
            if row.id == sealed[0].key_id() {
                row.key_check = KeyCheck::from_bytes([7; 32]);
            } else {
                row.context.insert("tenantId".into(), "c".into());
            }
        }
    });
    let second = build(&harness, elsewhere(&harness)).await;
    let refused = open(&second, &here, &sealed[0]).await;
    assert!(matches!(refused, Err(Error::KeyMismatch { .. })), "{refused:?}");
    open(&second, &other, &sealed[1]).await.unwrap_err();
    harness.rows.tamper(Vec::clear);
    pass_with(&harness, MINUTE + SECOND, || {}).await;
    let refused = within(process.encrypt(&here, "", SSN.row(1))).await;
    assert!(matches!(refused, Err(Error::RolledBack { .. })), "{refused:?}");
}

async fn a_key_store_that_is_down() {
    let harness = calling_harness();
    let (process, _, context) = start(&harness, harness.builder()).await;
    // A hint that cannot be followed.
    harness.store.fail_loads(true);
    harness.suspend_elsewhere(&context).await;
    settle().await;
    harness.store.fail_loads(false);
    harness.rows.set_unavailable(true);
    pass_with(&harness, 2 * MINUTE, || {}).await;
    drive(&harness, process.shutdown()).await;
}

async fn a_kms_that_is_down() {
    let harness = calling_harness();
    let (process, keyring, _) = start(&harness, harness.builder().stale_if_unavailable(DAY)).await;
    harness.kms.set_unavailable(true);
    let request = || drop(keyring.try_encrypt("x", SSN.row(1)));
    pass_with(&harness, HOUR + 5 * MINUTE, request).await;
    assert!(process.stats().stale_key_serves > 0 && process.stats().kms_circuit_openings > 0);
    harness.kms.set_unavailable(false);
    pass_with(&harness, 10 * MINUTE, request).await;
}

async fn a_kms_that_refuses() {
    let harness = calling_harness();
    let (process, keyring, _) = start(&harness, harness.builder()).await;
    harness.kms.fail_until_cleared(KmsErrorKind::AccessDenied);
    let request = || drop(keyring.try_encrypt("x", SSN.row(1)));
    pass_with(&harness, HOUR, request).await;
    assert_eq!(process.stats().keys, 0);
}

async fn processes_that_start() {
    let harness = calling_harness();
    let _running = start(&harness, harness.builder()).await;
    let starting = || elsewhere(&harness).clock(CallingClock(harness.clock.clone()));
    let retired = starting().also_unwrap("memory/gone");
    drive(&harness, retired.build()).await.unwrap();
    harness.kms.set_unavailable(true);
    drive(&harness, starting().build()).await.unwrap();
}

async fn two_keks() {
    let harness = calling_harness();
    harness.kms.create_kek("memory/second");
    let both = KekChoice::new("memory/default".parse::<encx::kms::KekId>().unwrap());
    let both = both.also_wrap("memory/second".parse::<encx::kms::KekId>().unwrap());
    let builder = |choice: KekChoice| harness.builder().kek_rule(move |_| Some(choice.clone()));
    let (process, ..) = start(&harness, builder(both.clone())).await;
    // A new key lacks a wrap.
    harness
        .kms
        .set_kek_fault("memory/second", Some(KmsErrorKind::Unavailable));
    let other = context("b");
    seal(&process, &other).await;
    harness.kms.set_kek_fault("memory/second", None);
    // A wrap that does not open is replaced.
    harness.rows.tamper(|rows| {
        let mut wraps = rows.iter_mut().flat_map(|row| &mut row.wraps);
        let wrap = wraps.find(|wrap| wrap.wrapped.kek.as_str() == "memory/second");
        wrap.unwrap().wrapped.ciphertext = vec![7; 60];
    });
    let second = KekChoice::new("memory/second".parse::<encx::kms::KekId>().unwrap());
    let second = second.also_unwrap("memory/default".parse::<encx::kms::KekId>().unwrap());
    let manager = builder(second)
        .clock(CallingClock(harness.clock.clone()))
        .build_key_manager()
        .unwrap();
    manager.rewrap(&context("a")).await.unwrap();
}

async fn rotations() {
    let harness = calling_harness();
    let (process, keyring, context) = start(&harness, harness.builder()).await;
    for _ in 0..2 {
        seal(&process, &context).await;
    }
    // A version that is about to become active but cannot be loaded.
    harness.kms.fail_until_cleared(KmsErrorKind::AccessDenied);
    let failed = harness.kms.calls().unwrap;
    harness.kms.clear_faults();
    let manager = harness.elsewhere();
    let waiting = manager.prepare(&context).await.unwrap();
    harness.kms.fail_until_cleared(KmsErrorKind::AccessDenied);
    let request = || drop(keyring.try_encrypt("x", SSN.row(1)));
    pass_with(&harness, 2 * MINUTE, request).await;
    assert!(harness.kms.calls().unwrap > failed);
    harness.kms.clear_faults();
    // Nor decrypted.
    harness.rows.tamper(|rows| {
        let row = rows.iter_mut().find(|row| row.id == waiting.id).unwrap();
        row.wraps[0].wrapped.ciphertext = vec![7; 60];
    });
    let manager = process.key_manager();
    assert_ne!(manager.rotate(&context).await.unwrap().id, waiting.id);
}

async fn maintenance() {
    let harness = calling_harness();
    let (process, ..) = start(&harness, harness.builder()).await;
    // It gets the lease, and then the key store fails.
    harness.store.set_down(true);
    let task = Maintenance::new(process.key_manager()).interval(MINUTE);
    let task = task.spawn().unwrap();
    pass_with(&harness, 3 * MINUTE, || {}).await;
    drive(&harness, task.stop()).await;
    harness.store.set_down(false);
    let manager = elsewhere(&harness).clock(CallingClock(harness.clock.clone()));
    let manager = manager.build_key_manager().unwrap();
    let leases = harness.rows.leases().unwrap();
    let holder = ProcessId::random();
    let name = "maintenance/rotation";
    let task = Maintenance::new(manager.clone())
        .rotate_every(HOUR)
        .publish_deadline(SECOND)
        .interval(MINUTE)
        .spawn()
        .unwrap();
    // Rotation while a process does not answer; a lease held elsewhere; a key that cannot be rotated; a run that cannot
    // start.
    harness.store.set_down(true);
    pass_with(&harness, 2 * HOUR, || {}).await;
    harness.store.set_down(false);
    // As soon as a run ends.
    while leases
        .acquire_lease(name, holder, 5 * MINUTE)
        .await
        .unwrap()
        .is_none()
    {
        pass_with(&harness, SECOND, || {}).await;
    }
    pass_with(&harness, 5 * MINUTE, || {}).await;
    harness.kms.fail_until_cleared(KmsErrorKind::AccessDenied);
    pass_with(&harness, 2 * HOUR, || {}).await;
    harness.kms.clear_faults();
    harness.rows.set_unavailable(true);
    pass_with(&harness, 5 * MINUTE, || {}).await;
    drive(&harness, task.stop()).await;
    harness.rows.set_unavailable(false);
}
