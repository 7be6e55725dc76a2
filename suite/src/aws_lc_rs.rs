//! AES-256-GCM by crate `aws-lc-rs`, in C and assembly.
//!
//! Keys never move: AWS-LC allocates them, and wipes memory when it frees it.

use std::alloc::{Layout, handle_alloc_error};

use ::aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ::aws_lc_rs::error::Unspecified;

use super::bytes::{Block, HalfNonce, Tag};
use super::error::Refused;

/// An expanded AES-256-GCM key.
pub(super) struct Aes256Gcm(LessSafeKey);

impl Aes256Gcm {
    pub(super) fn new(key: &[Block; 2]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.as_flattened());
        Self(LessSafeKey::new(expanded(key)))
    }

    #[inline]
    pub(super) fn seal(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &mut Tag,
    ) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(*iv);
        let sealed = self
            .0
            .seal_in_place_scatter(nonce, Aad::from(aad), buffer, &[], tag);
        sealed.map_err(|_| Refused)
    }

    #[inline]
    pub(super) fn open(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(*iv);
        let opened = self
            .0
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, buffer);
        opened.map(|_| ()).map_err(|_| Refused)
    }
}

/// Unwraps an expanded key. A key of 32 bytes is never refused, so only an allocation can fail.
pub(super) fn expanded<K>(key: Result<K, Unspecified>) -> K {
    key.unwrap_or_else(|Unspecified| handle_alloc_error(Layout::new::<K>()))
}
