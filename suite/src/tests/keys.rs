//! Keys, nonces and lengths.

use zeroize::ZeroizeOnDrop;

use super::BACKEND;
use crate::ciphertext::{HEADER_LEN, MAX_PLAINTEXT_LEN, Suite};
use crate::key::DataKey;
use crate::tests::support::{options, suite_key};
use crate::xaes::Xaes;
use crate::{Epochs, KcXaes256Gcm, OpenError, SealError, SuiteKey};

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
    assert_eq!(
        format!("{:?}", SuiteKey::new(&key, options(BACKEND))),
        "SuiteKey([REDACTED])"
    );
    assert_eq!(
        format!("{:?}", KcXaes256Gcm::new(&key)),
        "KcXaes256Gcm([REDACTED])"
    );
}

#[test]
fn sealing_appends_and_allocates_nothing_when_there_is_room() {
    let key = suite_key(BACKEND, [1; 32]);
    for suite in Suite::ALL {
        let mut out = Vec::with_capacity(suite.overhead() + 5);
        out.extend_from_slice(&[0xee; HEADER_LEN]);
        let room = (out.as_ptr(), out.capacity());
        key.seal(&mut Epochs::new(None), suite, b"aad", b"hello", &mut out)
            .unwrap();
        assert_eq!((out.as_ptr(), out.capacity()), room);
        assert_eq!(out.len(), suite.overhead() + 5);
        assert_eq!(out[..HEADER_LEN], [0xee; HEADER_LEN]);
        assert_eq!(
            &*key.open(None, suite, b"aad", &out[HEADER_LEN..]).unwrap(),
            b"hello"
        );
    }
}

#[test]
fn the_longest_plaintext_is_pinned() {
    let key = suite_key(BACKEND, [1; 32]);
    let plaintext = vec![0; MAX_PLAINTEXT_LEN + 1];
    for suite in Suite::ALL {
        let mut out = vec![7; 3];
        assert_eq!(
            key.seal(&mut Epochs::new(None), suite, b"", &plaintext, &mut out),
            Err(SealError::TooLong {
                found: MAX_PLAINTEXT_LEN + 1
            })
        );
        assert_eq!(out, [7; 3]);
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
    let opened =
        SuiteKey::new(&key, options(BACKEND)).open(None, Suite::KcXaes256Gcm, b"aad", &sealed);
    assert_eq!(&*opened.unwrap(), b"plaintext");
    let other = KcXaes256Gcm::new(&DataKey::copy_from(&[8; 32]).unwrap());
    assert_eq!(other.open(b"aad", &sealed), Err(OpenError::Commitment));
}
