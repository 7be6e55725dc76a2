//! The interface to a cipher library.

use super::bytes::{Block, HalfNonce, Tag};

/// A cipher library.
///
/// Each is in one file, with a type that implements this trait and two for its keys. Code outside this package does not
/// see them, and code inside it knows no other cipher. All give the same bytes.
#[doc(hidden)]
pub trait Cipher: Sized + Send + Sync + 'static {
    type Block: BlockKey;
    type Gcm: GcmKey;
}

/// An expanded AES-256 key that only encrypts.
#[doc(hidden)]
pub trait BlockKey: Send + Sync + 'static {
    /// Expands a key, given as its two halves.
    fn new(key: &[Block; 2]) -> Self;

    /// Encrypts blocks in place, each independently. The processor may work on several blocks of one call in parallel.
    fn encrypt(&self, blocks: &mut [Block]);
}

/// An expanded key of AES-256-GCM.
#[doc(hidden)]
pub trait GcmKey: Send + Sync + 'static {
    /// Expands a key, given as its two halves.
    fn new(key: &[Block; 2]) -> Self;

    /// Runs a function that expands a message key and uses it once, then wipes the stack. Reads wait for it, so it
    /// wipes no more than the function used.
    fn wiping_stack<T>(call: impl FnOnce() -> T) -> T;

    /// Encrypts in place and writes the tag. Refuses a plaintext that exceeds GCM's counter.
    fn seal(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &mut Tag) -> Result<(), Refused>;

    /// Verifies the tag and decrypts in place. After a refusal the buffer's content is unspecified: wipe it.
    fn open(&self, iv: &HalfNonce, aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<(), Refused>;
}

/// The cipher refused: a wrong tag, or more bytes than GCM allows.
#[derive(Debug)]
#[doc(hidden)]
pub struct Refused;
