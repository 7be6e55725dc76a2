//! The cipher backend written in C and assembly: crate `aws-lc-rs`.
//!
//! GCM keys never move: AWS-LC allocates them, and wipes memory when it frees it. A key for single blocks is moved by
//! value inside the crate, as in crate `aes`.

use std::alloc::{Layout, handle_alloc_error};

use ::aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ::aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use ::aws_lc_rs::error::Unspecified;

use super::backend::{BlockKey, Cipher, GcmKey, Refused};
use super::bytes::{Block, HalfNonce, Tag};
use crate::memory::{DEEP, UNOPTIMISED, wiping_stack};

#[doc(hidden)]
pub struct AwsLc;

impl Cipher for AwsLc {
    type Block = Aes256;
    type Gcm = Aes256Gcm;
}

/// An expanded AES-256 key.
#[doc(hidden)]
pub struct Aes256(EncryptingKey);

impl BlockKey for Aes256 {
    fn new(key: &[Block; 2]) -> Self {
        let key = UnboundCipherKey::new(&AES_256, key.as_flattened());
        // ECB of one block is AES of that block.
        Self(expanded(key.and_then(EncryptingKey::ecb)))
    }

    #[inline]
    fn encrypt(&self, blocks: &mut [Block]) {
        let encrypted = self.0.encrypt(blocks.as_flattened_mut());
        // Panics rather than go on with unencrypted blocks.
        encrypted.expect("ECB refuses nothing but what is not whole blocks");
    }
}

/// An expanded AES-256-GCM key.
#[doc(hidden)]
pub struct Aes256Gcm(LessSafeKey);

impl GcmKey for Aes256Gcm {
    fn new(key: &[Block; 2]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.as_flattened());
        Self(LessSafeKey::new(expanded(key)))
    }

    #[inline(always)]
    fn wiping_stack<T>(call: impl FnOnce() -> T) -> T {
        wiping_stack::<EXPANSION, _>(call)
    }

    #[inline]
    fn seal(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &mut Tag) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(*iv);
        let sealed = self
            .0
            .seal_in_place_scatter(nonce, Aad::from(aad), buffer, &[], tag);
        sealed.map_err(|_| Refused)
    }

    #[inline]
    fn open(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(*iv);
        let opened = self
            .0
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, buffer);
        opened.map(|_| ()).map_err(|_| Refused)
    }
}

/// How many bytes of stack are wiped after a message key was expanded and used; measured with optimisation: 0.9 KiB, for
/// the expansion. Encryption goes deeper, but leaves no key there.
const EXPANSION: usize = if UNOPTIMISED { DEEP } else { 2 << 10 };

/// Unwraps an expanded key. A key of 32 bytes is never refused, so only an allocation can fail.
fn expanded<K>(key: Result<K, Unspecified>) -> K {
    key.unwrap_or_else(|Unspecified| handle_alloc_error(Layout::new::<K>()))
}
