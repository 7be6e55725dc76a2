//! What encx asks of a cipher library.

use super::bytes::{Block, HalfNonce, Tag};

/// A cipher library.
///
/// Each lives in one file, with a type that implements this and two more for its keys. Nothing outside this package sees
/// them, and nothing inside it knows another cipher. All give the same bytes.
#[doc(hidden)]
pub trait Cipher: Sized + Send + Sync + 'static {
    type Block: BlockKey;
    type Gcm: GcmKey;
}

/// An expanded AES-256 key that only ever encrypts.
#[doc(hidden)]
pub trait BlockKey: Send + Sync + 'static {
    /// Expands a key, given as its two halves.
    fn new(key: &[Block; 2]) -> Self;

    /// Encrypts blocks in place, each by itself. Several in one call may run side by side in the processor.
    fn encrypt(&self, blocks: &mut [Block]);
}

/// An expanded key of AES-256-GCM.
#[doc(hidden)]
pub trait GcmKey: Send + Sync + 'static {
    /// Expands a key, given as its two halves.
    fn new(key: &[Block; 2]) -> Self;

    /// Makes a call that expands a message key and uses it once, and wipes the stack. That is on the way of a read, so it wipes no
    /// more than the call used.
    fn wiping_stack<T>(call: impl FnOnce() -> T) -> T;

    /// Encrypts in place and writes the tag. Refuses what GCM's counter cannot number.
    fn seal(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &mut Tag) -> Result<(), Refused>;

    /// Verifies the tag and decrypts in place. What is in the buffer after a refusal is nobody's business: wipe it.
    fn open(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<(), Refused>;

    /// Does the same from one buffer into another of the same length.
    fn open_into(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        encrypted: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused>;
}

/// Says that the cipher did nothing: a wrong tag, or more bytes than GCM allows.
#[derive(Debug)]
#[doc(hidden)]
pub struct Refused;
