//! AES-256-GCM by crate `ring`, in assembly.
//!
//! ring keeps the round keys inline and does not wipe them: a key lives in `Wiped` memory.

use ::ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::bytes::{Block, HalfNonce, Tag};
use super::error::Refused;
use crate::memory::{DEEP, UNOPTIMISED, Wiped, wiping_stack};

/// An expanded AES-256-GCM key.
pub(super) struct Aes256Gcm(LessSafeKey);

impl Aes256Gcm {
    /// Expands a key, and wipes the stack. Not inlined: its copies would be in the frame of all libraries.
    #[inline(never)]
    pub(super) fn expand(key: &[Block; 2]) -> Box<Wiped<Self>> {
        wiping_stack::<EXPANSION, _>(|| {
            let key = UnboundKey::new(&AES_256_GCM, key.as_flattened());
            let key = key.expect("ring refuses only a wrong length");
            Box::new(Wiped::new(Self(LessSafeKey::new(key))))
        })
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
        let sealed = wiping_unoptimised(|| self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), buffer));
        tag.copy_from_slice(sealed.map_err(|_| Refused)?.as_ref());
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
        let nonce = Nonce::assume_unique_for_key(*iv);
        let opened = wiping_unoptimised(|| {
            let opened = self
                .0
                .open_in_place_separate_tag(nonce, Aad::from(aad), (*tag).into(), buffer, 0..);
            opened.map(|_| ())
        });
        opened.map_err(|_| Refused)
    }
}

/// Wipes the stack after a message if this build is not optimised. With optimisation, ring leaves no key there on processors
/// with AES instructions; on others it expands the round keys on the stack for each message.
#[inline(always)]
fn wiping_unoptimised<T>(call: impl FnOnce() -> T) -> T {
    if UNOPTIMISED {
        wiping_stack::<DEEP, _>(call)
    } else {
        call()
    }
}

/// How many bytes of stack are wiped after a key was expanded; measured with optimisation: more than 4 KiB, less than 6. ring returns keys by value, through several functions.
const EXPANSION: usize = if UNOPTIMISED { DEEP } else { 8 << 10 };
