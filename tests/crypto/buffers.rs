//! Encrypting into a buffer and decrypting in place: the buffer's content in every outcome.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use encx::limits::MAX_PLAINTEXT_LEN;
use encx::suite::Suite;
use encx::{Ciphertext, Error, Keyring};
use encx_test_support::{HarnessExt, SSN, context};
use encx_testkit::Harness;

/// A buffer with more capacity than these tests need.
fn roomy(content: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(80_000);
    buffer.extend_from_slice(content);
    buffer
}

/// Reads this process's memory, as an attacker might.
#[cfg(target_os = "linux")]
fn memory(at: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    read_memory(at, &mut bytes);
    bytes
}

/// The buffer is the caller's: an allocation here could reuse freed memory and overwrite it.
#[cfg(target_os = "linux")]
fn read_memory(at: usize, bytes: &mut [u8]) {
    use std::os::unix::fs::FileExt;

    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(bytes, at as u64).unwrap();
}

/// Checks that nothing is left in a buffer, including its unused capacity.
fn assert_wiped(buffer: &Vec<u8>, what: &str) {
    assert!(buffer.is_empty(), "{what}");
    #[cfg(target_os = "linux")]
    assert!(
        memory(buffer.as_ptr().addr(), buffer.capacity())
            .iter()
            .all(|byte| *byte == 0),
        "{what}"
    );
}

async fn hot(harness: &Harness) -> Keyring {
    let keyring = harness.process().await.keyring(&context("a")).await.unwrap();
    keyring.encrypt("makes the key", SSN.row(1)).await.unwrap();
    keyring
}

#[tokio::test]
async fn buffers_and_values_are_interchangeable() {
    let harness = Harness::new().await;
    let keyring = hot(&harness).await;
    let another = || async { harness.process().await.keyring(&context("a")).await.unwrap() };
    for len in [0, 1, 16, 17, 100, 70_000] {
        let plaintext: Vec<_> = (0..=250).cycle().take(len).collect();
        let mut buffer = roomy(b"what was here before is replaced");
        let room = (buffer.as_ptr(), buffer.capacity());

        keyring
            .encrypt_into(&plaintext, SSN.row(1), &mut buffer)
            .await
            .unwrap();
        assert_eq!(buffer.len(), Suite::KcXaes256Gcm.overhead() + len);
        let sealed = Ciphertext::parse(buffer.clone()).unwrap();
        let opened = another().await.decrypt(&sealed, SSN.row(1)).await.unwrap();
        assert_eq!(opened.as_bytes(), plaintext);
        keyring.try_decrypt_in_place(&mut buffer, SSN.row(1)).unwrap();
        assert_eq!(buffer, plaintext);

        keyring
            .try_encrypt_into(&plaintext, SSN.row(2), &mut buffer)
            .unwrap();
        keyring.decrypt_in_place(&mut buffer, SSN.row(2)).await.unwrap();
        assert_eq!(buffer, plaintext);

        buffer.clear();
        buffer.extend_from_slice(keyring.encrypt(&plaintext, SSN.row(3)).await.unwrap().as_bytes());
        another()
            .await
            .decrypt_in_place(&mut buffer, SSN.row(3))
            .await
            .unwrap();
        assert_eq!(buffer, plaintext);
        assert_eq!(
            (buffer.as_ptr(), buffer.capacity()),
            room,
            "it was never replaced"
        );
    }
}

#[tokio::test]
async fn a_cold_key_fills_the_same_buffer() {
    let harness = Harness::new().await;
    let context = context("a");
    let mut buffer = roomy(b"old");
    let room = (buffer.as_ptr(), buffer.capacity());
    // Before the key exists. The first keyring creates it, the second unwraps it.
    let keyrings = [
        harness.process().await.keyring(&context).await.unwrap(),
        harness.process().await.keyring(&context).await.unwrap(),
    ];
    for keyring in keyrings {
        let unready = keyring.try_encrypt_into("secret", SSN.row(1), &mut buffer);
        assert!(matches!(unready, Err(Error::NotReady)));
        keyring
            .encrypt_into("secret", SSN.row(1), &mut buffer)
            .await
            .unwrap();
        // An older version, which a new keyring does not load.
        let crypto = harness.process().await;
        crypto.key_manager().rotate(&context).await.unwrap();
        let reader = crypto.keyring(&context).await.unwrap();
        let unready = reader.try_decrypt_in_place(&mut buffer.clone(), SSN.row(1));
        assert!(matches!(unready, Err(Error::NotReady)));
        reader.decrypt_in_place(&mut buffer, SSN.row(1)).await.unwrap();
        assert_eq!(buffer, b"secret");
        assert_eq!((buffer.as_ptr(), buffer.capacity()), room);
    }
}

#[tokio::test]
async fn after_a_failed_decryption_the_buffer_is_wiped_and_empty() {
    let harness = Harness::new().await;
    let keyring = hot(&harness).await;
    let sealed = keyring.encrypt([0x5a; 500], SSN.row(1)).await.unwrap();
    let sealed = sealed.as_bytes();
    let foreign = harness.process().await;
    let foreign = foreign.encrypt(&context("b"), "x", SSN.row(1)).await.unwrap();
    let uncommitted = harness
        .builder()
        .encrypt_with(Suite::Xaes256Gcm)
        .accept_uncommitted();
    let uncommitted = uncommitted.build().await.unwrap();
    let uncommitted = uncommitted.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let changed = |at: usize| {
        let mut changed = sealed.to_vec();
        changed[at] ^= 1;
        changed
    };
    let cases = [
        ("no ciphertext", b"hunter2".to_vec(), SSN.row(1)),
        ("nothing", Vec::new(), SSN.row(1)),
        ("cut short", sealed[..60].to_vec(), SSN.row(1)),
        ("another version", changed(0), SSN.row(1)),
        ("another suite", changed(1), SSN.row(1)),
        ("another key", changed(5), SSN.row(1)),
        ("another first half", changed(18), SSN.row(1)),
        ("another second half", changed(30), SSN.row(1)),
        ("another text", changed(100), SSN.row(1)),
        ("another tag", changed(18 + 24 + 500), SSN.row(1)),
        ("another commitment", changed(sealed.len() - 1), SSN.row(1)),
        ("another row", sealed.to_vec(), SSN.row(2)),
        ("no row", sealed.to_vec(), SSN.row("")),
        ("another context", foreign.as_bytes().to_vec(), SSN.row(1)),
        ("no commitment", uncommitted.as_bytes().to_vec(), SSN.row(1)),
    ];
    for (what, bytes, aad) in &cases {
        let mut buffer = roomy(bytes);
        assert!(
            keyring.decrypt_in_place(&mut buffer, aad).await.is_err(),
            "{what}"
        );
        assert_wiped(&buffer, what);
        let mut buffer = roomy(bytes);
        assert!(keyring.try_decrypt_in_place(&mut buffer, aad).is_err(), "{what}");
        assert_wiped(&buffer, what);
        // With a key that has to be loaded.
        let cold = harness.process().await.keyring(&context("c")).await.unwrap();
        let mut buffer = roomy(bytes);
        assert!(cold.decrypt_in_place(&mut buffer, aad).await.is_err(), "{what}");
        assert_wiped(&buffer, what);
    }

    let crypto = harness.process().await;
    let keyring = crypto.keyring(&context("a")).await.unwrap();
    let unready = harness
        .builder()
        .create_on_first_use(false)
        .build()
        .await
        .unwrap();
    let unready = unready.keyring(&context("c")).await.unwrap();
    let mut buffer = roomy(sealed);
    let refused = unready.try_decrypt_in_place(&mut buffer, SSN.row(1));
    assert!(matches!(refused, Err(Error::NotReady)));
    assert_wiped(&buffer, "not ready");
    crypto.shutdown().await;
    let mut buffer = roomy(sealed);
    let refused = keyring.decrypt_in_place(&mut buffer, SSN.row(1)).await;
    assert!(matches!(refused, Err(Error::ShutDown)));
    assert_wiped(&buffer, "shut down");
}

#[tokio::test]
async fn after_a_failed_encryption_the_buffer_is_empty() {
    let harness = Harness::new().await;
    let keyring = hot(&harness).await;
    let long = vec![0; MAX_PLAINTEXT_LEN + 1];
    let cold = harness
        .builder()
        .create_on_first_use(false)
        .build()
        .await
        .unwrap();
    let cold = cold.keyring(&context("c")).await.unwrap();
    let cases: [(&str, &Keyring, &[u8], encx::Aad); 4] = [
        ("too long", &keyring, &long, SSN.row(1)),
        ("no row", &keyring, b"secret", SSN.row("")),
        ("no key", &cold, b"secret", SSN.row(1)),
        ("neither row nor key", &cold, b"secret", SSN.row("")),
    ];
    for (what, keyring, plaintext, aad) in cases {
        let mut buffer = roomy(b"a ciphertext, for all the caller knows");
        let room = (buffer.as_ptr(), buffer.capacity());
        let refused = keyring.encrypt_into(plaintext, &aad, &mut buffer).await;
        assert!(refused.is_err() && buffer.is_empty(), "{what}");
        buffer.extend_from_slice(b"again");
        let refused = keyring.try_encrypt_into(plaintext, &aad, &mut buffer);
        assert!(refused.is_err() && buffer.is_empty(), "{what}");
        assert_eq!((buffer.as_ptr(), buffer.capacity()), room, "{what}");
    }
}

/// A call that is dropped while it waits leaves the ciphertext, or nothing.
#[tokio::test]
async fn a_cancelled_call_leaves_no_plaintext() {
    let harness = Harness::new().await;
    let sealed = hot(&harness).await.encrypt("secret", SSN.row(1)).await.unwrap();
    let keyring = harness.process().await.keyring(&context("other")).await.unwrap();
    let mut buffer = roomy(sealed.as_bytes());
    harness.kms().hold();
    let pending = |polled: Poll<Result<(), Error>>| assert!(polled.is_pending());
    let cx = || Context::from_waker(Waker::noop());
    pending(pin!(keyring.decrypt_in_place(&mut buffer, SSN.row(1))).poll(&mut cx()));
    assert_eq!(buffer, sealed.as_bytes());
    pending(pin!(keyring.encrypt_into("secret", SSN.row(1), &mut buffer)).poll(&mut cx()));
    assert!(buffer.is_empty());
    harness.kms().release();
}

/// A buffer that must grow held a plaintext before: it is wiped before it is freed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_buffer_that_grows_is_wiped_first() {
    const SECRET: [u8; 16] = *b"hunter2-hunter2-";
    let harness = Harness::new().await;
    let keyring = hot(&harness).await;
    let long = vec![0; 100_000];
    for _ in 0..20 {
        let mut buffer = Vec::with_capacity(1000 + Suite::KcXaes256Gcm.overhead());
        // An allocation behind it, so that it cannot grow in place.
        let wall = vec![1_u8; 1000];
        let secret = SECRET.iter().copied().cycle().take(1000).collect::<Vec<_>>();
        keyring
            .try_encrypt_into(&secret, SSN.row(1), &mut buffer)
            .unwrap();
        keyring.try_decrypt_in_place(&mut buffer, SSN.row(1)).unwrap();
        let at = buffer.as_ptr().addr();
        let mut left = vec![0; buffer.capacity()];
        keyring.try_encrypt_into(&long, SSN.row(1), &mut buffer).unwrap();
        read_memory(at, &mut left);
        assert!(!left.windows(16).any(|window| window == SECRET));
        drop(wall);
    }
}
