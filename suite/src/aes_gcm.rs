//! AES-256-GCM by crate `aes-gcm`, written in Rust.

use ::aes_gcm::AesGcm;
use ::aes_gcm::aead::AeadInPlace;
use ::aes_gcm::aead::KeyInit;
use ::aes_gcm::aead::consts::U12;
use aes::Aes256Enc;

use super::bytes::{Block, HalfNonce, Tag};
use super::error::Refused;
use crate::memory::{DEEP, UNOPTIMISED, Wiped, wiping_stack};

/// An expanded AES-256-GCM key: the round keys in a union, whose `Drop` wipes only the active variant, and a union with
/// the hash key, which has no `Drop` at all. A key lives in `Wiped` memory.
pub(super) struct Aes256Gcm(AesGcm<Aes256Enc, U12>);

impl Aes256Gcm {
    /// Expands a key, and wipes the stack. Not inlined: its unions would be in the frame of all libraries.
    #[inline(never)]
    pub(super) fn expand(key: &[Block; 2]) -> Box<Wiped<Self>> {
        wiping_stack::<EXPANSION, _>(|| Box::new(Wiped::new(Self(AesGcm::new(key.as_flattened().into())))))
    }

    #[inline]
    pub(super) fn seal(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &mut Tag,
    ) -> Result<(), Refused> {
        let sealed =
            wiping_stack::<ENCRYPTION, _>(|| self.0.encrypt_in_place_detached(iv.into(), aad, buffer));
        *tag = sealed.map_err(|_| Refused)?.into();
        Ok(())
    }

    #[inline]
    pub(super) fn open(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused> {
        let opened = wiping_stack::<ENCRYPTION, _>(|| {
            self.0
                .decrypt_in_place_detached(iv.into(), aad, buffer, tag.into())
        });
        opened.map_err(|_| Refused)
    }
}

/// How many bytes of stack are wiped after every message; measured with optimisation: 0.8 KiB. The round keys do not all
/// fit into registers, so the compiler leaves copies of some on the stack.
const ENCRYPTION: usize = if UNOPTIMISED { DEEP } else { 1 << 10 };

/// How many bytes are wiped after a key was expanded; measured: 5.4 KiB, of three unions.
const EXPANSION: usize = if UNOPTIMISED { DEEP } else { 8 << 10 };
