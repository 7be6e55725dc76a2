//! Tests of the suites and of the cipher backend under them.

mod refusals;
mod vectors;

use zeroize::ZeroizeOnDrop;

use super::xaes::Xaes;
use super::{KcXaes256Gcm, Nonce, OpenError, SealError, SuiteKey};
use crate::ciphertext::{HEADER_LEN, MAX_PLAINTEXT_LEN, Suite};
use crate::key::DataKey;

fn suite_key(bytes: [u8; 32]) -> SuiteKey {
    SuiteKey::new(&DataKey::copy_from(&bytes).unwrap())
}

fn nonce(bytes: [u8; 24]) -> Nonce {
    let mut nonce = Nonce::default();
    nonce.as_flattened_mut().copy_from_slice(&bytes);
    nonce
}

/// Seals under a given nonce and returns the body.
fn seal_with(key: &SuiteKey, suite: Suite, with: [u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    key.seal_with_nonce(suite, &nonce(with), aad, plaintext, &mut body)
        .unwrap();
    body
}

#[test]
fn keys_are_wiped_and_shared_between_threads() {
    fn is_zeroised<T: ZeroizeOnDrop>() {}
    fn is_shared<T: Send + Sync>() {}
    is_zeroised::<DataKey>();
    is_zeroised::<Xaes>();
    is_zeroised::<SuiteKey>();
    is_zeroised::<KcXaes256Gcm>();
    is_shared::<SuiteKey>();
    is_shared::<KcXaes256Gcm>();
}

#[test]
fn debug_shows_no_key() {
    let key = DataKey::copy_from(&[0xaa; 32]).unwrap();
    assert_eq!(format!("{:?}", SuiteKey::new(&key)), "SuiteKey([REDACTED])");
    assert_eq!(
        format!("{:?}", KcXaes256Gcm::new(&key)),
        "KcXaes256Gcm([REDACTED])"
    );
}

#[test]
fn sealing_appends_and_allocates_nothing_when_there_is_room() {
    let key = suite_key([1; 32]);
    for suite in Suite::ALL {
        let mut out = Vec::with_capacity(suite.overhead() + 5);
        out.extend_from_slice(&[0xee; HEADER_LEN]);
        let room = (out.as_ptr(), out.capacity());
        key.seal(suite, b"aad", b"hello", &mut out).unwrap();
        assert_eq!((out.as_ptr(), out.capacity()), room);
        assert_eq!(out.len(), suite.overhead() + 5);
        assert_eq!(out[..HEADER_LEN], [0xee; HEADER_LEN]);
        assert_eq!(*key.open(suite, b"aad", &out[HEADER_LEN..]).unwrap(), b"hello");
    }
}

#[test]
fn the_longest_plaintext_is_pinned() {
    let key = suite_key([1; 32]);
    let plaintext = vec![0; MAX_PLAINTEXT_LEN + 1];
    for suite in Suite::ALL {
        let mut out = vec![7; 3];
        assert_eq!(
            key.seal(suite, b"", &plaintext, &mut out),
            Err(SealError::TooLong {
                found: MAX_PLAINTEXT_LEN + 1
            })
        );
        assert_eq!(out, [7; 3]);
    }
}

#[test]
fn no_two_nonces_are_equal() {
    let cipher = KcXaes256Gcm::new(&DataKey::generate().unwrap());
    let draw = || {
        (0..2_000)
            .map(|_| cipher.seal(b"", b"").unwrap()[..24].to_vec())
            .collect::<Vec<_>>()
    };
    let all = std::thread::scope(|scope| {
        let threads = [scope.spawn(draw), scope.spawn(draw), scope.spawn(draw)];
        threads.map(|thread| thread.join().unwrap()).concat()
    });
    // Each half must be fresh by itself: the first chooses the message key, the second is its IV.
    for half in [0..12, 12..24] {
        let distinct: std::collections::HashSet<_> = all.iter().map(|nonce| &nonce[half.clone()]).collect();
        assert_eq!(distinct.len(), 6_000);
    }
}

#[test]
fn the_public_cipher_is_suite_one() {
    let key = DataKey::copy_from(&[9; 32]).unwrap();
    let cipher = KcXaes256Gcm::new(&key);
    let sealed = cipher.seal(b"aad", b"plaintext").unwrap();
    assert_eq!(sealed.len(), KcXaes256Gcm::OVERHEAD + 9);
    assert_eq!(KcXaes256Gcm::OVERHEAD, 72);
    assert_eq!(*cipher.open(b"aad", &sealed).unwrap(), b"plaintext");
    let opened = SuiteKey::new(&key).open(Suite::KcXaes256Gcm, b"aad", &sealed);
    assert_eq!(*opened.unwrap(), b"plaintext");
    let other = KcXaes256Gcm::new(&DataKey::copy_from(&[8; 32]).unwrap());
    assert_eq!(other.open(b"aad", &sealed), Err(OpenError::Commitment));
}
