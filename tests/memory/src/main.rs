//! Uses keys, releases them, and waits while `tests/memory.rs` searches this process's memory.
//!
//! It reports on standard output, one line each: `dek` with a data key, masked, so that this process does not hold what
//! the search looks for; `message` with the bytes of a ciphertext; `wrap` with a wrapped key; `scan` when it waits to
//! be searched.
#![allow(clippy::unwrap_used, reason = "a part of a test, which clippy cannot tell")]

mod report;
mod tap;
mod work;

use encx::kms::{DataKey, KeyManagementService};
use encx::suite::{Backend, KcXaes256Gcm};
use encx_local::{LocalKms, Protection};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};

use crate::report::{report_bytes, report_key, scan, unmask};
use crate::tap::Tap;
use crate::work::{TTL, TwoServices, until};

fn main() {
    let mut args: Vec<_> = std::env::args().skip(1).collect();
    let named = |backend: &&Backend| format!("{backend:?}") == args[0];
    let backend = *Backend::COMPILED.iter().find(named).unwrap();
    assert_eq!(encx_suite::choose(backend), backend);
    args.remove(0);
    match &args[..] {
        [end] if end == "suite" => suite(),
        [kms, end] if kms == "memory" => service(end, async || MemoryKms::new()),
        [kms, end, path, passphrase] if kms == "local" => service(end, async || {
            let passphrase = String::from_utf8(unmask(passphrase)).unwrap();
            let kms = LocalKms::open(path, Protection::passphrase(passphrase))
                .await
                .unwrap();
            // Reads the file again, and writes it.
            let kek = kms.default_kek().unwrap().clone();
            kms.rotate_kek(&kek).await.unwrap();
            kms
        }),
        _ => panic!("unknown arguments: {args:?}"),
    }
}

/// 20 messages under the AEAD alone.
fn suite() {
    let key = DataKey::generate().unwrap();
    report_key(&key);
    let (cipher, other) = (KcXaes256Gcm::new(&key), KcXaes256Gcm::new(&key));
    drop(key);
    for number in 0..20 {
        let message = vec![b'm'; number * number * 17];
        let sealed = cipher.seal(b"aad", &message).unwrap();
        // The header of a message in the other formats.
        let mut reported = vec![0; 18];
        reported.extend_from_slice(&sealed);
        report_bytes("message", &reported[..42]);
        // In the epoch and outside it: the other cipher derives its key, and caches it after some more messages.
        for cipher in [&cipher, &other, &other, &other] {
            assert_eq!(*cipher.open(b"aad", &sealed).unwrap(), message);
        }
        cipher.open(b"another", &sealed).unwrap_err();
    }
    scan("alive");
    drop((cipher, other));
    scan("dropped");
}

/// A service that encrypts, indexes and hashes, and then releases its keys.
fn service<K: KeyManagementService + Clone>(end: &str, kms: impl AsyncFnOnce() -> K) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (clock, store) = (ManualClock::new(), MemoryKeyStore::new());
        let kms = Tap(kms().await);
        let services = TwoServices::new(&kms, &store, &clock).await;
        services.work().await;
        for record in store.records() {
            for wrap in record.wraps {
                report_bytes("wrap", &wrap.wrapped.ciphertext);
            }
        }
        scan("alive");
        match end {
            "drop" => {
                drop((services, kms));
                scan("closed");
            }
            "ttl" => {
                clock.advance(TTL + std::time::Duration::from_secs(10));
                until("the keys leave memory", || services.keys() == 0).await;
                scan("expired");
                drop((services, kms));
                scan("closed");
            }
            "shutdown" => {
                services.shut_down().await;
                scan("expired");
                drop((services, kms));
                scan("closed");
            }
            _ => panic!("unknown end: {end}"),
        }
    });
}
