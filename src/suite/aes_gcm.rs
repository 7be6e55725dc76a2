//! The cipher backend written in Rust: crates `aes` and `aes-gcm`.
//!
//! A backend is one file with three things in it: `BlockKey`, `GcmKey` and `Refused`, with the signatures below.
//! Nothing outside `suite` sees them, and nothing inside it knows another cipher.

use aes::Aes256Enc;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::aead::consts::U12;

use super::{Block, HalfNonce, Tag};

/// Holds an expanded AES-256 key. It has a kilobyte: make it where it stays, because a move copies that and leaves
/// the copy behind.
///
/// It only ever encrypts, so the decryption schedule is never computed.
pub(super) struct BlockKey(Aes256Enc);

impl BlockKey {
    /// Expands a key, given as its two halves.
    #[inline(always)]
    pub(super) fn new(key: &[Block; 2]) -> Self {
        Self(Aes256Enc::new(key.as_flattened().into()))
    }

    /// Encrypts blocks in place, each by itself. Several in one call run side by side in the processor.
    pub(super) fn encrypt(&self, blocks: &mut [Block]) {
        // Whole blocks leave no tail.
        let (blocks, _) = InOutBuf::from(blocks.as_flattened_mut()).into_chunks();
        self.0.encrypt_blocks_inout(blocks);
    }
}

/// AES-256-GCM under an expanded key, which it borrows.
pub(super) struct GcmKey<'a>(AesGcm<&'a Aes256Enc, U12>);

impl<'a> GcmKey<'a> {
    pub(super) fn new(key: &'a BlockKey) -> Self {
        Self(AesGcm::from(&key.0))
    }

    /// Encrypts in place and returns the tag. Refuses what GCM's counter cannot number, unencrypted.
    pub(super) fn seal(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8]) -> Result<Tag, Refused> {
        let tag = self.0.encrypt_in_place_detached(iv.into(), aad, buffer);
        tag.map(Tag::from).map_err(|_| Refused)
    }

    /// Verifies the tag, then decrypts in place. What it refuses it leaves encrypted.
    pub(super) fn open(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused> {
        let opened = self
            .0
            .decrypt_in_place_detached(iv.into(), aad, buffer, tag.into());
        opened.map_err(|_| Refused)
    }
}

/// Says that the cipher did nothing: a wrong tag, or more bytes than GCM allows.
#[derive(Debug)]
pub(super) struct Refused;

/// The round keys of both are wiped when dropped, or this does not compile.
///
/// The hash key that `aes-gcm` 0.10 derives from a message key is not: its crate `polyval` keeps it in a union that
/// has no `Drop`. Who finds it in memory could forge under that message key; they learn neither that key
/// nor the data key, and decrypt nothing.
const _: () = {
    const fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Aes256Enc>();
};
