//! A hot call allocates only what it returns and keeps.
//!
//! `allocation_counter` replaces the global allocator of this program and counts for each thread.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::cell::RefCell;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use encx::password::PasswordHash;
use encx::suite::{Backend, Suite};
use encx::{Aad, Crypto, EncryptionContext, Field, Keyring};
use encx_testkit::{ManualClock, MemoryKeyStore, MemoryKms};
use uuid::Uuid;

const SSN: Field = Field::new("users", "ssn");

/// Counts the allocations of a call. The first calls also initialize state per thread and per key, and one in 4096
/// begins an epoch, which allocates. So this returns the minimum of several counts.
fn allocations<T>(call: impl Fn() -> T) -> u64 {
    let counts = (0..5).map(|_| {
        let counted = allocation_counter::measure(|| {
            black_box(call());
        });
        (counted.count_total, counted.count_current)
    });
    let (total, left) = counts.min_by_key(|(total, left)| (*total, left.abs())).unwrap();
    assert_eq!(left, 0, "what was allocated is given back");
    total
}

/// Completes a future that never waits, without a runtime that could allocate.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the key is not hot"),
    }
}

/// Runs a test with each cipher backend, while the key is hot and another thread drives background work.
fn with_hot_keyring(test: impl Fn(&Keyring)) {
    for backend in Backend::COMPILED {
        with_hot_keyring_on(*backend, &test);
    }
}

fn with_hot_keyring_on(backend: Backend, test: impl Fn(&Keyring)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let context = EncryptionContext::builder().pair("tenantId", "t-42").build();
    let context = context.unwrap();
    let keyring = runtime.block_on(async {
        let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).backend(backend);
        let crypto = crypto.build().await.unwrap();
        crypto
            .encrypt(&context, "makes the key", SSN.row(1))
            .await
            .unwrap();
        crypto.keyring(&context).await.unwrap()
    });
    test(&keyring);
}

#[test]
fn encrypting_allocates_the_ciphertext() {
    with_hot_keyring(|keyring| {
        let prebuilt = SSN.row(7_i64);
        for len in [0, 1, 64, 1 << 10, 1 << 20] {
            let plaintext = vec![7; len];
            let encrypt = |aad: &Aad| allocations(|| ready(keyring.encrypt(&plaintext, aad)).unwrap());
            assert_eq!(encrypt(&prebuilt), 1, "{len} bytes");
            assert_eq!(encrypt(&Aad::unbound()), 1, "{len} bytes");
            assert_eq!(
                allocations(|| keyring.try_encrypt(&plaintext, &prebuilt).unwrap()),
                1
            );
        }
    });
}

#[test]
fn binding_a_row_allocates_nothing() {
    with_hot_keyring(|keyring| {
        let uuid = Uuid::from_bytes([1; 16]);
        let integer = allocations(|| ready(keyring.encrypt("123-45-6789", SSN.row(7_i64))).unwrap());
        let uuid = allocations(|| ready(keyring.encrypt("123-45-6789", SSN.row(uuid))).unwrap());
        let text = allocations(|| ready(keyring.encrypt("123-45-6789", SSN.row("order-7"))).unwrap());
        assert_eq!([integer, uuid, text], [1, 1, 1]);
    });
}

#[test]
fn decrypting_allocates_the_plaintext() {
    with_hot_keyring(|keyring| {
        for len in [1, 64, 1 << 10, 1 << 20] {
            let sealed = keyring.try_encrypt(vec![7; len], SSN.row(7)).unwrap();
            let decrypt = || keyring.try_decrypt(&sealed, SSN.row(7)).unwrap();
            assert_eq!(allocations(|| decrypt().into_bytes()), 1, "{len} bytes");
            assert_eq!(allocations(decrypt), 1, "{len} bytes");
            let awaited = || ready(keyring.decrypt(&sealed, SSN.row(7))).unwrap();
            assert_eq!(allocations(awaited), 1, "{len} bytes");
        }
    });
}

/// A buffer that a caller reuses.
#[test]
fn buffers_with_room_allocate_nothing() {
    with_hot_keyring(|keyring| {
        for len in [0, 1, 64, 1 << 10, 1 << 20] {
            let plaintext = vec![7; len];
            let buffer = RefCell::new(Vec::with_capacity(len + Suite::KcXaes256Gcm.overhead()));
            let buffer = || buffer.borrow_mut();
            let both = allocations(|| {
                ready(keyring.encrypt_into(&plaintext, SSN.row(7), &mut buffer())).unwrap();
                ready(keyring.decrypt_in_place(&mut buffer(), SSN.row(7))).unwrap();
            });
            assert_eq!((both, &*buffer()), (0, &plaintext), "{len} bytes");
            let both = allocations(|| {
                keyring
                    .try_encrypt_into(&plaintext, SSN.row(7), &mut buffer())
                    .unwrap();
                keyring.try_decrypt_in_place(&mut buffer(), SSN.row(7)).unwrap();
            });
            assert_eq!((both, &*buffer()), (0, &plaintext), "{len} bytes");
        }
    });
}

#[test]
fn a_buffer_without_room_is_allocated_once() {
    with_hot_keyring(|keyring| {
        for room in [0, 1, 64, 153] {
            let encrypt = || {
                let mut buffer = Vec::with_capacity(room);
                keyring
                    .try_encrypt_into([7; 64], SSN.row(7), &mut buffer)
                    .unwrap();
                assert_eq!(
                    buffer.capacity(),
                    64 + Suite::KcXaes256Gcm.overhead(),
                    "and no more"
                );
            };
            assert_eq!(allocations(encrypt), 1 + u64::from(room > 0), "{room} bytes");
        }
    });
}

/// The parser refuses a stored hash with excessive parameters before memory is allocated for it.
#[test]
fn a_hostile_password_hash_takes_no_memory() {
    let stored = |params: &str, salt: &str, output: &str| {
        let id = "01a2053d-7b01-7cc1-b36a-182ccc288e45";
        format!("$encx$v=1,k={id}$argon2id$v=19$m={params}${salt}${output}")
    };
    let (salt, output) = ("A".repeat(22), "A".repeat(43));
    PasswordHash::parse(stored("262144,t=4,p=1", &salt, &output)).unwrap();
    for hostile in [
        stored("262145,t=1,p=1", &salt, &output),
        stored("9999999,t=1,p=1", &salt, &output),
        stored("4294967295,t=1,p=1", &salt, &output),
        stored("262144,t=5,p=1", &salt, &output),
        stored("64,t=4294967295,p=1", &salt, &output),
        stored("64,t=1,p=4294967295", &salt, &output),
        stored("64,t=1,p=1", &"A".repeat(1 << 20), &output),
        stored("64,t=1,p=1", &salt, &"A".repeat(1 << 20)),
        stored(&"9".repeat(1 << 20), &salt, &output),
    ] {
        let counted = allocation_counter::measure(|| {
            black_box(PasswordHash::parse(&hostile).unwrap_err());
        });
        assert!(
            counted.bytes_max <= 4096,
            "{counted:?}: {}",
            &hostile[..100.min(hostile.len())]
        );
    }
}

/// The assumption behind the figures above.
#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| [Box::new(1), Box::new(2)]), 2);
}

/// Checking whether the keys in memory are still in the key store costs one query per thousand keys, once per
/// `state_ttl`, and keeps no memory.
#[test]
fn ten_thousand_keys_are_looked_after_by_ten_queries_and_in_no_memory() {
    const KEYRINGS: usize = 10_000;
    let minute = Duration::from_secs(60);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clock = ManualClock::new();
    let store = MemoryKeyStore::with_clock(clock.clone()).without_hints();
    let crypto = runtime.block_on(async {
        let crypto = Crypto::builder(MemoryKms::new(), store.clone());
        let crypto = crypto.clock(clock.clone()).max_keyrings(2 * KEYRINGS as u64);
        let crypto = crypto.build().await.unwrap();
        for tenant in 0..KEYRINGS {
            let context = EncryptionContext::builder().pair("tenantId", tenant).build();
            crypto.encrypt(&context.unwrap(), "", SSN.row(1)).await.unwrap();
        }
        crypto
    });
    let pass_a_state_ttl = || {
        runtime.block_on(async {
            for _ in 0..6 {
                clock.advance(minute / 6);
                for _ in 0..200 {
                    tokio::task::yield_now().await;
                }
            }
        });
    };
    pass_a_state_ttl();
    let loads = crypto.stats().store_loads;
    assert_eq!(crypto.stats().keys, KEYRINGS as u64);
    for _ in 0..5 {
        let (gets, polls) = (store.gets(), store.polls());
        let counted = allocation_counter::measure(pass_a_state_ttl);
        assert_eq!((store.gets() - gets, store.polls() - polls), (10, 2));
        // Tokio's timers and the clock's sleepers may have grown a little.
        assert!(counted.bytes_current < 4096, "{counted:?}");
    }
    assert_eq!(crypto.stats().store_loads, loads);
}
