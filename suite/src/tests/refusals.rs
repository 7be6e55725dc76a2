//! One refusal for every authenticated input, and for mismatched parts.

use super::BACKEND;
use crate::OpenError;
use crate::ciphertext::{COMMITMENT_LEN, NONCE_LEN, Suite, TAG_LEN};
use crate::gcm::GcmKey;
use crate::tests::support::{seal_with, suite_key};

const NONCE: [u8; 24] = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
const AAD: &[u8] = b"table, column, row";

#[test]
fn every_flipped_bit_is_refused() {
    let key = suite_key(BACKEND, [3; 32]);
    for suite in Suite::ALL {
        for plaintext in [&b""[..], b"123-45-6789"] {
            let body = seal_with(&key, suite, NONCE, AAD, plaintext);
            assert_eq!(&*key.open(None, suite, AAD, &body).unwrap(), plaintext);
            let tagged = NONCE_LEN..NONCE_LEN + plaintext.len() + TAG_LEN;
            for bit in 0..body.len() * 8 {
                let mut flipped = body.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let expected = match suite {
                    Suite::KcXaes256Gcm if !tagged.contains(&(bit / 8)) => OpenError::Commitment,
                    _ => OpenError::Tag,
                };
                assert_eq!(
                    key.open(None, suite, AAD, &flipped),
                    Err(expected),
                    "{suite:?}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn every_other_aad_is_refused() {
    let key = suite_key(BACKEND, [3; 32]);
    let mut others = vec![Vec::new(), [AAD, b"\0"].concat(), [b"\0", AAD].concat()];
    others.extend((1..AAD.len()).map(|len| AAD[..len].to_vec()));
    others.extend((0..AAD.len() * 8).map(|bit| {
        let mut flipped = AAD.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    }));
    for suite in Suite::ALL {
        let body = seal_with(&key, suite, NONCE, AAD, b"secret");
        for other in &others {
            assert_eq!(
                key.open(None, suite, other, &body),
                Err(OpenError::Tag),
                "{other:?}"
            );
        }
        let without = seal_with(&key, suite, NONCE, b"", b"secret");
        assert_eq!(key.open(None, suite, AAD, &without), Err(OpenError::Tag));
    }
}

#[test]
fn every_other_key_fails_its_commitment() {
    let key = [3; 32];
    let committed = seal_with(&suite_key(BACKEND, key), Suite::KcXaes256Gcm, NONCE, AAD, b"secret");
    let plain = seal_with(&suite_key(BACKEND, key), Suite::Xaes256Gcm, NONCE, AAD, b"secret");
    for bit in 0..256 {
        let mut other = key;
        other[bit / 8] ^= 1 << (bit % 8);
        let other = suite_key(BACKEND, other);
        assert_eq!(
            other.open(None, Suite::KcXaes256Gcm, AAD, &committed),
            Err(OpenError::Commitment),
            "bit {bit}"
        );
        assert_eq!(
            other.open(None, Suite::Xaes256Gcm, AAD, &plain),
            Err(OpenError::Tag),
            "bit {bit}"
        );
    }
}

#[test]
fn the_commitment_speaks_before_the_tag() {
    let key = suite_key(BACKEND, [3; 32]);
    let mut body = seal_with(&key, Suite::KcXaes256Gcm, NONCE, AAD, b"secret");
    body[NONCE_LEN] ^= 1;
    *body.last_mut().unwrap() ^= 1;
    assert_eq!(
        key.open(None, Suite::KcXaes256Gcm, AAD, &body),
        Err(OpenError::Commitment)
    );
}

#[test]
fn a_foreign_commitment_is_refused() {
    // The purpose of the commitment: a body with a correct tag under this key, committed to another key.
    let (key, other) = (suite_key(BACKEND, [3; 32]), suite_key(BACKEND, [4; 32]));
    let mut body = seal_with(&key, Suite::KcXaes256Gcm, NONCE, AAD, b"secret");
    let foreign = seal_with(&other, Suite::KcXaes256Gcm, NONCE, AAD, b"secret");
    let at = body.len() - COMMITMENT_LEN;
    body[at..].copy_from_slice(&foreign[at..]);
    assert_eq!(
        key.open(None, Suite::KcXaes256Gcm, AAD, &body),
        Err(OpenError::Commitment)
    );
    assert_eq!(
        other.open(None, Suite::KcXaes256Gcm, AAD, &body),
        Err(OpenError::Tag)
    );
    // Half a commitment is not enough.
    let mut body = seal_with(&key, Suite::KcXaes256Gcm, NONCE, AAD, b"secret");
    let at = body.len() - COMMITMENT_LEN / 2;
    body[at..].fill(0);
    assert_eq!(
        key.open(None, Suite::KcXaes256Gcm, AAD, &body),
        Err(OpenError::Commitment)
    );
}

#[test]
fn one_suite_does_not_pass_for_another() {
    let key = suite_key(BACKEND, [3; 32]);
    let long = [0x5a; 100];
    let committed = seal_with(&key, Suite::KcXaes256Gcm, NONCE, AAD, &long);
    let plain = seal_with(&key, Suite::Xaes256Gcm, NONCE, AAD, &long);
    assert_eq!(
        key.open(None, Suite::Xaes256Gcm, AAD, &committed),
        Err(OpenError::Tag)
    );
    assert_eq!(
        key.open(None, Suite::KcXaes256Gcm, AAD, &plain),
        Err(OpenError::Commitment)
    );
    let short = seal_with(&key, Suite::Xaes256Gcm, NONCE, AAD, b"123-45-6789");
    assert_eq!(
        key.open(None, Suite::KcXaes256Gcm, AAD, &short),
        Err(OpenError::TooShort)
    );
}

#[test]
fn every_other_length_is_refused() {
    let key = suite_key(BACKEND, [3; 32]);
    for suite in Suite::ALL {
        let body = seal_with(&key, suite, NONCE, AAD, b"123-45-6789");
        let moved = match suite {
            Suite::KcXaes256Gcm => OpenError::Commitment,
            _ => OpenError::Tag,
        };
        for len in 0..body.len() {
            let expected = if len < suite.body_overhead() {
                OpenError::TooShort
            } else {
                moved
            };
            assert_eq!(key.open(None, suite, AAD, &body[..len]), Err(expected), "{len}");
        }
        let longer = [&body[..], b"\0"].concat();
        assert_eq!(key.open(None, suite, AAD, &longer), Err(moved));
    }
}

#[test]
fn the_backend_refuses_by_itself() {
    let key = GcmKey::new(BACKEND, &[[5; 16]; 2]);
    let plaintext = *b"a plaintext that is longer than one block";
    let (mut encrypted, mut tag) = (plaintext, [0; 16]);
    key.seal(&[6; 12], AAD, &mut encrypted, &mut tag).unwrap();
    let open = |iv: &[u8; 12], aad, tag| {
        let mut buffer = encrypted;
        key.open(iv, aad, &mut buffer, tag).map(|()| buffer)
    };
    let mut wrong = tag;
    wrong[15] ^= 0x80;
    assert!(open(&[6; 12], AAD, &wrong).is_err());
    assert!(open(&[6; 12], b"", &tag).is_err());
    assert!(open(&[7; 12], AAD, &tag).is_err());
    assert_eq!(open(&[6; 12], AAD, &tag).unwrap(), plaintext);
}
