//! What the tests share.

use crate::ciphertext::Suite;
use crate::key::DataKey;
use crate::suite::backend::Cipher;
use crate::suite::{HalfNonce, SuiteKey};

pub(crate) fn suite_key<C: Cipher>(bytes: [u8; 32]) -> SuiteKey<C> {
    SuiteKey::new(&DataKey::copy_from(&bytes).unwrap())
}

pub(crate) fn halves(nonce: [u8; 24]) -> [HalfNonce; 2] {
    let (first, second) = nonce.split_at(12);
    [first.try_into().unwrap(), second.try_into().unwrap()]
}

/// Seals under a given nonce and returns the body.
pub(crate) fn seal_with<C: Cipher>(
    key: &SuiteKey<C>,
    suite: Suite,
    with: [u8; 24],
    aad: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    key.seal_with_nonce(suite, &halves(with), aad, plaintext, &mut body)
        .unwrap();
    body
}
