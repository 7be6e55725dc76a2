//! The floor: a service with one expanded key that only uses the cipher.
//!
//! It uses the same cipher library as encx, the fastest on this machine of those in the build, so that the comparison
//! shows only encx.

use encx_suite::{Backend, backend, raw};
use rand::Rng;

pub(crate) const AAD_LEN: usize = 64;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// AES-256-GCM under one expanded key, with random nonces: `nonce 12 ‖ encrypted plaintext ‖ tag 16`.
pub(crate) struct Floor {
    cipher: Cipher,
    aad: [u8; AAD_LEN],
}

impl Floor {
    pub(crate) fn new() -> Self {
        Self {
            cipher: Cipher::new([7; 32]),
            aad: [0x5a; AAD_LEN],
        }
    }

    pub(crate) fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut out = Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_LEN);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let tag = self.cipher.seal(nonce, &self.aad, &mut out[NONCE_LEN..]);
        out.extend_from_slice(&tag);
        out
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let (nonce, rest) = sealed.split_first_chunk().expect("it was sealed here");
        let (encrypted, tag) = rest.split_last_chunk().expect("it was sealed here");
        let mut out = encrypted.to_vec();
        self.cipher.open(*nonce, &self.aad, &mut out, tag);
        out
    }
}

/// The bare cipher of each library, with its fastest call that keeps the tag separate.
enum Cipher {
    #[cfg(feature = "aes-gcm")]
    AesGcm(Box<raw::aes_gcm::Aes256Gcm>),
    #[cfg(feature = "aws-lc-rs")]
    AwsLcRs(raw::aws_lc_rs::aead::LessSafeKey),
    #[cfg(feature = "ring")]
    Ring(Box<raw::ring::aead::LessSafeKey>),
}

impl Cipher {
    fn new(key: [u8; 32]) -> Self {
        match backend() {
            #[cfg(feature = "aes-gcm")]
            Backend::AesGcm => {
                use raw::aes_gcm::{Aes256Gcm, KeyInit};
                Self::AesGcm(Box::new(Aes256Gcm::new(&key.into())))
            }
            #[cfg(feature = "aws-lc-rs")]
            Backend::AwsLcRs => {
                use raw::aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
                let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
                Self::AwsLcRs(LessSafeKey::new(key))
            }
            #[cfg(feature = "ring")]
            Backend::Ring => {
                use raw::ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
                let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
                Self::Ring(Box::new(LessSafeKey::new(key)))
            }
            other => unreachable!("the bench was built without {other:?}"),
        }
    }

    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        match self {
            #[cfg(feature = "aes-gcm")]
            Self::AesGcm(cipher) => {
                use raw::aes_gcm::aead::AeadInPlace;
                let tag = cipher.encrypt_in_place_detached(&nonce.into(), aad, buffer);
                tag.expect("it is short enough").into()
            }
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLcRs(cipher) => {
                use raw::aws_lc_rs::aead::{Aad, Nonce};
                let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
                let mut tag = [0; TAG_LEN];
                let sealed = cipher.seal_in_place_scatter(nonce, aad, buffer, &[], &mut tag);
                sealed.expect("it is short enough");
                tag
            }
            #[cfg(feature = "ring")]
            Self::Ring(cipher) => {
                use raw::ring::aead::{Aad, Nonce};
                let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
                let tag = cipher.seal_in_place_separate_tag(nonce, aad, buffer);
                let mut bytes = [0; TAG_LEN];
                bytes.copy_from_slice(tag.expect("it is short enough").as_ref());
                bytes
            }
        }
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8], tag: &[u8; TAG_LEN]) {
        match self {
            #[cfg(feature = "aes-gcm")]
            Self::AesGcm(cipher) => {
                use raw::aes_gcm::aead::AeadInPlace;
                let opened = cipher.decrypt_in_place_detached(&nonce.into(), aad, buffer, tag.into());
                opened.expect("it was sealed here");
            }
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLcRs(cipher) => {
                use raw::aws_lc_rs::aead::{Aad, Nonce};
                let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
                let opened = cipher.open_in_place_separate_tag(nonce, aad, tag, buffer);
                opened.expect("it was sealed here");
            }
            #[cfg(feature = "ring")]
            Self::Ring(cipher) => {
                use raw::ring::aead::{Aad, Nonce};
                let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(aad));
                let opened = cipher.open_in_place_separate_tag(nonce, aad, (*tag).into(), buffer, 0..);
                opened.expect("it was sealed here");
            }
        }
    }
}
