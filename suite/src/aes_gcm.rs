//! The cipher backend written in Rust: crates `aes` and `aes-gcm`.

use aes::Aes256Enc;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::aead::consts::U12;

use super::backend::{BlockKey, Cipher, GcmKey, Refused};
use super::bytes::{Block, HalfNonce, Tag};
use crate::memory::{DEEP, UNOPTIMISED, wiping_stack};

#[doc(hidden)]
pub struct RustCrypto;

impl Cipher for RustCrypto {
    type Block = Aes256;
    type Gcm = Aes256Gcm;
}

/// An expanded AES-256 key, in a union of one kilobyte. A move copies the whole union, and its `Drop` wipes only the
/// active variant, so keep it in `Wiped` memory.
///
/// It only encrypts, so the decryption schedule is never computed.
#[doc(hidden)]
pub struct Aes256(Aes256Enc);

impl BlockKey for Aes256 {
    #[inline(always)]
    fn new(key: &[Block; 2]) -> Self {
        Self(Aes256Enc::new(key.as_flattened().into()))
    }

    #[inline]
    fn encrypt(&self, blocks: &mut [Block]) {
        // Whole blocks leave no tail.
        let (blocks, _) = InOutBuf::from(blocks.as_flattened_mut()).into_chunks();
        if UNOPTIMISED {
            wiping_stack::<DEEP, _>(|| self.0.encrypt_blocks_inout(blocks));
        } else {
            // With optimisation, this few blocks leave no round keys on the stack.
            self.0.encrypt_blocks_inout(blocks);
        }
    }
}

/// An expanded AES-256-GCM key: as [`Aes256`], plus a union with the hash key, which has no `Drop` at all.
#[doc(hidden)]
pub struct Aes256Gcm(AesGcm<Aes256Enc, U12>);

impl GcmKey for Aes256Gcm {
    #[inline(always)]
    fn new(key: &[Block; 2]) -> Self {
        Self(AesGcm::new(key.as_flattened().into()))
    }

    #[inline(always)]
    fn wiping_stack<T>(call: impl FnOnce() -> T) -> T {
        wiping_stack::<EXPANSION, _>(call)
    }

    #[inline]
    fn seal(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &mut Tag) -> Result<(), Refused> {
        let sealed =
            wiping_stack::<ENCRYPTION, _>(|| self.0.encrypt_in_place_detached(iv.into(), aad, buffer));
        *tag = sealed.map_err(|_| Refused)?.into();
        Ok(())
    }

    #[inline]
    fn open(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<(), Refused> {
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

/// How many bytes are wiped after a message key was expanded and used; measured: 5.4 KiB, of three unions.
const EXPANSION: usize = if UNOPTIMISED { DEEP } else { 6 << 10 };
