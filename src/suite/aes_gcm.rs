//! The cipher backend written in Rust: crates `aes` and `aes-gcm`.

use aes::Aes256Enc;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::aead::consts::U12;

use super::backend::{BlockKey, Cipher, GcmKey, Refused};
use super::{Block, HalfNonce, Tag};

pub(crate) struct RustCrypto;

impl Cipher for RustCrypto {
    type Block = Aes256;
    type Gcm = Aes256Gcm;
}

/// Holds an expanded AES-256 key. It has a kilobyte: make it where it stays, because a move copies that and leaves
/// the copy behind.
///
/// It only ever encrypts, so the decryption schedule is never computed.
pub(crate) struct Aes256(Aes256Enc);

impl BlockKey for Aes256 {
    #[inline(always)]
    fn new(key: &[Block; 2]) -> Self {
        Self(Aes256Enc::new(key.as_flattened().into()))
    }

    #[inline]
    fn encrypt(&self, blocks: &mut [Block]) {
        // Whole blocks leave no tail.
        let (blocks, _) = InOutBuf::from(blocks.as_flattened_mut()).into_chunks();
        self.0.encrypt_blocks_inout(blocks);
    }
}

/// Holds an expanded key of AES-256-GCM. As [`Aes256`], it has a kilobyte.
pub(crate) struct Aes256Gcm(AesGcm<Aes256Enc, U12>);

impl GcmKey for Aes256Gcm {
    #[inline(always)]
    fn new(key: &[Block; 2]) -> Self {
        Self(AesGcm::new(key.as_flattened().into()))
    }

    #[inline]
    fn seal(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &mut Tag) -> Result<(), Refused> {
        let sealed = self.0.encrypt_in_place_detached(iv.into(), aad, buffer);
        *tag = sealed.map_err(|_| Refused)?.into();
        Ok(())
    }

    #[inline]
    fn open(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<(), Refused> {
        let opened = self
            .0
            .decrypt_in_place_detached(iv.into(), aad, buffer, tag.into());
        opened.map_err(|_| Refused)
    }

    #[inline]
    fn open_into(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        encrypted: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused> {
        if encrypted.len() != buffer.len() {
            return Err(Refused);
        }
        buffer.copy_from_slice(encrypted);
        self.open(iv, aad, buffer, tag)
    }
}

/// The round keys of both are wiped when dropped, or this does not compile.
///
/// The hash key that `aes-gcm` 0.10 derives from a message key is not: its crate `polyval` keeps it in a union that
/// has no `Drop`. Who finds it in memory could forge under that message key; they learn neither that key
/// nor the data key, and decrypt nothing.
const _: () = {
    const fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Aes256Enc>();
};
