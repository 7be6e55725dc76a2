//! The floor: a service with one expanded key that only uses the cipher.
//!
//! AES-256-GCM with random nonces, `nonce 12 ‖ encrypted plaintext ‖ tag 16` in one allocation: once with a cipher in C
//! and assembly, once with one in Rust. No KEK, so no KMS calls.

use std::hint::black_box;

use aes_gcm::KeyInit;
use aes_gcm::aead::AeadInPlace;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rand::Rng;

use crate::support::kms::KmsCalls;
use crate::support::{AAD, KEY, OTHER_AAD, Run, Subject, timed};

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

fn nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

/// Only a cipher. The first one is the floor that every figure is divided by.
pub(crate) fn subjects() -> [Box<dyn Subject>; 2] {
    let key = UnboundKey::new(&AES_256_GCM, &KEY).expect("the key has the right length");
    let aws_lc = LessSafeKey::new(key);
    let aes_gcm = aes_gcm::Aes256Gcm::new(&KEY.into());
    [Box::new(Floor(aws_lc)), Box::new(Floor(aes_gcm))]
}

struct Floor<C>(C);

trait Cipher {
    const NAME: &str;
    fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Vec<u8>;
    fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>>;
}

impl Cipher for LessSafeKey {
    const NAME: &str = "AES-256-GCM, aws-lc-rs";

    fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
        let nonce = nonce();
        let mut out = Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_LEN);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[NONCE_LEN..]);
        out.extend_from_slice(tag.expect("it is short enough").as_ref());
        out
    }

    fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the nonce has the right length");
        let mut out = rest.to_vec();
        let len = self.open_in_place(nonce, Aad::from(aad), &mut out).ok()?.len();
        out.truncate(len);
        Some(out)
    }
}

impl Cipher for aes_gcm::Aes256Gcm {
    const NAME: &str = "AES-256-GCM, aes-gcm 0.10";

    fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
        let nonce = nonce();
        let mut out = Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_LEN);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let buffer = &mut out[NONCE_LEN..];
        let tag = self.encrypt_in_place_detached(&nonce.into(), aad, buffer);
        out.extend_from_slice(&tag.expect("it is short enough"));
        out
    }

    fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at(NONCE_LEN);
        let (encrypted, tag) = rest.split_at(rest.len() - TAG_LEN);
        let mut out = encrypted.to_vec();
        let opened = self.decrypt_in_place_detached(nonce.into(), aad, &mut out, tag.into());
        opened.ok().map(|()| out)
    }
}

impl<C: Cipher> Subject for Floor<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn check(&self) {
        let sealed = self.0.seal(b"a field", &AAD);
        assert_eq!(self.0.open(&sealed, &AAD).as_deref(), Some(&b"a field"[..]));
        assert_eq!(self.0.open(&sealed, &OTHER_AAD), None);
    }

    fn stored_len(&self, plaintext: &[u8]) -> usize {
        self.0.seal(plaintext, &AAD).len()
    }

    fn encrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        timed(move || self.0.seal(black_box(&plaintext), &AAD))
    }

    fn decrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        let sealed = self.0.seal(&plaintext, &AAD);
        timed(move || self.0.open(black_box(&sealed), &AAD).expect("it was sealed here"))
    }

    fn kms_calls(&self) -> Option<KmsCalls> {
        None
    }
}
