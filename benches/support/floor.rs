//! The floor: what a service would write that has one key, keeps it expanded, and wants nothing but the cipher.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit};
use rand::Rng;

pub(crate) const AAD_LEN: usize = 64;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// AES-256-GCM under one expanded key, with random nonces: `nonce 12 ‖ encrypted plaintext ‖ tag 16`.
pub(crate) struct Floor {
    cipher: Aes256Gcm,
    aad: [u8; AAD_LEN],
}

impl Floor {
    pub(crate) fn new() -> Self {
        Self {
            cipher: Aes256Gcm::new(&[7; 32].into()),
            aad: [0x5a; AAD_LEN],
        }
    }

    pub(crate) fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut out = Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_LEN);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let buffer = &mut out[NONCE_LEN..];
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &self.aad, buffer);
        out.extend_from_slice(&tag.expect("it is short enough"));
        out
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let (nonce, rest) = sealed.split_at(NONCE_LEN);
        let (encrypted, tag) = rest.split_at(rest.len() - TAG_LEN);
        let mut out = encrypted.to_vec();
        self.cipher
            .decrypt_in_place_detached(nonce.into(), &self.aad, &mut out, tag.into())
            .expect("it was sealed here");
        out
    }
}
