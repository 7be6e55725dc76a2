//! Seals and opens bytes under one data key: for KMS providers and key files, not for services.
//!
//! <div class="warning">
//!
//! Services want `Crypto`: it finds the right key, binds each value to its place, and lets keys be
//! rotated. What is here does none of that.
//!
//! </div>
//!
//! [`KcXaes256Gcm`] is [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM) with a key commitment ([ePrint 2025/758]),
//! the AEAD of [`Suite::KcXaes256Gcm`]:
//!
//! ```text
//! nonce N 24 ‖ encrypted plaintext ‖ tag 16 ‖ commitment 32
//!
//! K1         = CMAC's first subkey (NIST SP 800-38B)
//! Kx         = AES_K("00 01 58 00" ‖ N[0..12] ⊕ K1) ‖ AES_K("00 02 58 00" ‖ N[0..12] ⊕ K1)
//! sealed     = AES-256-GCM under Kx with IV N[12..24]
//! commitment = CMAC_K("XCMT" ‖ N ‖ "00 01 00 01") ‖ CMAC_K("XCMT" ‖ N ‖ "00 01 00 02")
//! ```
//!
//! Nonces are random; their 192 bits let any number of processes share a key without a counter. Some thousand messages in
//! a row share the first half of their nonces, so that Kx is derived once for all of them; the second half is drawn for
//! each. The commitment depends on key and nonce, not on the AAD, and is compared before anything is decrypted: no
//! message opens under two keys.
//!
//! [ePrint 2025/758]: https://eprint.iacr.org/2025/758
#![cfg_attr(docsrs, feature(doc_cfg))]

use encx_core::{causes, ciphertext, key, memory};

#[cfg(feature = "aes-gcm")]
mod aes_gcm;
#[cfg(feature = "aws-lc-rs")]
mod aws_lc_rs;
mod backend;
mod epoch;
mod message_key_cache;
mod nonce;
mod opened;
mod suite_key;
#[cfg(test)]
mod tests;
mod xaes;

use std::fmt;

use arc_swap::ArcSwapOption;
use zeroize::{ZeroizeOnDrop, Zeroizing};

pub use self::backend::{Backend, backend};
#[doc(hidden)]
pub use self::epoch::{Epoch, Epochs};
#[doc(hidden)]
pub use self::opened::Opened;
#[doc(hidden)]
pub use self::suite_key::{Batch, SuiteKey};
use crate::causes::debug_as_text;
use crate::ciphertext::{COMMITMENT_LEN, MAX_PLAINTEXT_LEN, Suite, TAG_LEN};
use crate::key::{DataKey, RandomError};
use crate::memory::{DEEP, wiping_stack};

/// The bare ciphers, which benches compare with.
#[doc(hidden)]
pub mod raw {
    #[cfg(feature = "aes-gcm")]
    pub use ::aes_gcm;
    #[cfg(feature = "aws-lc-rs")]
    pub use ::aws_lc_rs;
}

#[cfg(not(any(feature = "aes-gcm", feature = "aws-lc-rs")))]
compile_error!(
    "encx needs a cipher backend: enable feature `aes-gcm`, which is a default feature, or `aws-lc-rs`"
);

type Block = [u8; 16];
type Tag = [u8; TAG_LEN];
type Commitment = [u8; COMMITMENT_LEN];
/// Half of a nonce: the first half chooses the message key, the second is its IV.
type HalfNonce = [u8; 12];

/// Seals and opens byte strings with KC-XAES-256-GCM under one data key.
///
/// The key is expanded once and wiped when this is dropped. Shared freely between threads.
///
/// <div class="warning">
///
/// Services want `Crypto`. Here the caller answers for the AAD: without one, a sealed value opens
/// wherever somebody moves it.
///
/// </div>
///
/// ```
/// use encx::DataKey;
/// use encx::suite::{KcXaes256Gcm, OpenError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cipher = KcXaes256Gcm::new(&DataKey::generate()?);
/// let sealed = cipher.seal(b"file 7, section 2", b"secret")?;
/// assert_eq!(*cipher.open(b"file 7, section 2", &sealed)?, b"secret");
/// assert_eq!(cipher.open(b"file 7, section 3", &sealed), Err(OpenError::Tag));
///
/// let other = KcXaes256Gcm::new(&DataKey::generate()?);
/// assert_eq!(other.open(b"file 7, section 2", &sealed), Err(OpenError::Commitment));
/// # Ok(())
/// # }
/// ```
pub struct KcXaes256Gcm {
    key: SuiteKey,
    epoch: ArcSwapOption<Epoch>,
}

impl KcXaes256Gcm {
    /// How much longer than its plaintext a sealed message is, in bytes.
    pub const OVERHEAD: usize = Suite::KcXaes256Gcm.body_overhead();

    /// Expands a data key.
    #[must_use]
    pub fn new(key: &DataKey) -> Self {
        Self {
            key: SuiteKey::new(key),
            epoch: ArcSwapOption::empty(),
        }
    }

    /// Seals a plaintext under a fresh nonce: `nonce 24 ‖ encrypted plaintext ‖ tag 16 ‖ commitment 32`.
    ///
    /// The AAD is authenticated and not stored: opening needs the same bytes. Frame what it consists of, so that
    /// no two meanings share one byte string.
    ///
    /// # Errors
    ///
    /// [`SealError::Random`] if the operating system gives no randomness; [`SealError::TooLong`] for a
    /// plaintext longer than [`MAX_PLAINTEXT_LEN`].
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = Vec::new();
        let epoch = self.epoch.load();
        let mut epochs = Epochs::new(epoch.as_ref());
        // What it seals are keys.
        wiping_stack::<DEEP, _>(|| {
            self.key
                .seal(&mut epochs, Suite::KcXaes256Gcm, aad, plaintext, &mut sealed)
        })?;
        if let Some(begun) = epochs.begun() {
            self.epoch.store(Some(begun));
        }
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) returned, given the same AAD.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`]; no byte of the plaintext is then revealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let epoch = self.epoch.load();
        let opened =
            wiping_stack::<DEEP, _>(|| self.key.open(epoch.as_deref(), Suite::KcXaes256Gcm, aad, sealed))?;
        Ok(Zeroizing::new(opened.into_bytes()))
    }
}

impl ZeroizeOnDrop for KcXaes256Gcm {}

impl fmt::Debug for KcXaes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KcXaes256Gcm([REDACTED])")
    }
}

/// Says why a message did not open.
// As long as a pointer, so that what stands in its place in a `Result` is moved in whole words.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u64)]
pub enum OpenError {
    /// The commitment is another key's: this is the wrong key, or nonce or commitment were changed.
    #[error("this was sealed under another key")]
    Commitment,
    /// The key is right, but bytes or AAD are not those that were sealed.
    #[error("this was changed since it was sealed, or it belongs to another place")]
    Tag,
    /// There are fewer bytes than an empty message has.
    #[error("too few bytes for a sealed message; was it cut short?")]
    TooShort,
}

debug_as_text!(OpenError);

/// Says why a message was not sealed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// There was no randomness for a nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The plaintext is longer than one message may be.
    #[error("one message holds at most {MAX_PLAINTEXT_LEN} bytes, not {found}; large values need a stream")]
    TooLong {
        /// The plaintext's length, in bytes.
        found: usize,
    },
}

debug_as_text!(SealError);
