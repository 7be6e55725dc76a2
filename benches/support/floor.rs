//! The floor: a service with one expanded key that only uses the cipher.
//!
//! It uses the same cipher library as encx, so that the comparison shows only encx.

use rand::Rng;

pub(crate) const AAD_LEN: usize = 64;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// AES-256-GCM under one expanded key, with random nonces: `nonce 12 ‖ encrypted plaintext ‖ tag 16`.
pub(crate) struct Floor {
    cipher: cipher::Cipher,
    aad: [u8; AAD_LEN],
}

impl Floor {
    pub(crate) fn new() -> Self {
        Self {
            cipher: cipher::new([7; 32]),
            aad: [0x5a; AAD_LEN],
        }
    }

    pub(crate) fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut out = Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_LEN);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let tag = cipher::seal(&self.cipher, nonce, &self.aad, &mut out[NONCE_LEN..]);
        out.extend_from_slice(&tag);
        out
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let (nonce, rest) = sealed.split_first_chunk().expect("it was sealed here");
        let (encrypted, tag) = rest.split_last_chunk().expect("it was sealed here");
        let mut out = encrypted.to_vec();
        cipher::open(&self.cipher, *nonce, &self.aad, &mut out, tag);
        out
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
mod cipher {
    use encx_suite::raw::aes_gcm::aead::AeadInPlace;
    use encx_suite::raw::aes_gcm::{Aes256Gcm, KeyInit};

    use super::{NONCE_LEN, TAG_LEN};

    pub(super) type Cipher = Aes256Gcm;

    pub(super) fn new(key: [u8; 32]) -> Cipher {
        Aes256Gcm::new(&key.into())
    }

    pub(super) fn seal(
        cipher: &Cipher,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), aad, buffer);
        tag.expect("it is short enough").into()
    }

    pub(super) fn open(
        cipher: &Cipher,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) {
        cipher
            .decrypt_in_place_detached(&nonce.into(), aad, buffer, tag.into())
            .expect("it was sealed here");
    }
}

#[cfg(feature = "aws-lc-rs")]
mod cipher {
    use encx_suite::raw::aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{NONCE_LEN, TAG_LEN};

    pub(super) type Cipher = LessSafeKey;

    pub(super) fn new(key: [u8; 32]) -> Cipher {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes"))
    }

    /// With the fastest call that keeps the tag separate.
    pub(super) fn seal(
        cipher: &Cipher,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
        let mut tag = [0; TAG_LEN];
        cipher
            .seal_in_place_scatter(nonce, aad, buffer, &[], &mut tag)
            .expect("it is short enough");
        tag
    }

    pub(super) fn open(
        cipher: &Cipher,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) {
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
        cipher
            .open_in_place_separate_tag(nonce, aad, tag, buffer)
            .expect("it was sealed here");
    }
}
