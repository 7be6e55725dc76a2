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
//! Nonces are random; their 192 bits let any number of processes share a key without a counter. The commitment depends
//! on key and nonce, not on the AAD, and is compared before anything is decrypted: no message opens under two keys.
//!
//! [ePrint 2025/758]: https://eprint.iacr.org/2025/758

#[cfg(feature = "aes-gcm")]
mod aes_gcm;
pub(crate) mod generation;
mod random;
#[cfg(test)]
mod tests;
mod xaes;

use std::fmt;

#[cfg(feature = "aes-gcm")]
use aes_gcm as backend;
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use self::backend::{BlockKey, GcmKey};
use self::xaes::Xaes;
use crate::ciphertext::{COMMITMENT_LEN, MAX_PLAINTEXT_LEN, Suite, TAG_LEN};
use crate::key::{DataKey, RandomError};

#[cfg(not(feature = "aes-gcm"))]
compile_error!("encx needs a cipher backend: enable feature `aes-gcm`, which is a default feature");

type Block = [u8; 16];
type Tag = [u8; TAG_LEN];
type Commitment = [u8; COMMITMENT_LEN];
/// Half of a nonce: the first half chooses the message key, the second is its IV.
type HalfNonce = [u8; 12];
type Nonce = [HalfNonce; 2];

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
pub struct KcXaes256Gcm(SuiteKey);

impl KcXaes256Gcm {
    /// How much longer than its plaintext a sealed message is, in bytes.
    pub const OVERHEAD: usize = Suite::KcXaes256Gcm.body_overhead();

    /// Expands a data key.
    #[must_use]
    pub fn new(key: &DataKey) -> Self {
        Self(SuiteKey::new(key))
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
        self.0.seal(Suite::KcXaes256Gcm, aad, plaintext, &mut sealed)?;
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) returned, given the same AAD.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`]; no byte of the plaintext is then revealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.0.open(Suite::KcXaes256Gcm, aad, sealed)
    }
}

impl ZeroizeOnDrop for KcXaes256Gcm {}

impl fmt::Debug for KcXaes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KcXaes256Gcm([REDACTED])")
    }
}

/// Says why a message did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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

/// Says why a message was not sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

/// Seals and opens the bodies of ciphertexts under one data key, expanded once and wiped when dropped.
pub(crate) struct SuiteKey(Xaes);

impl SuiteKey {
    pub(crate) fn new(key: &DataKey) -> Self {
        Self(Xaes::new(key.expose()))
    }

    /// Appends `nonce 24 ‖ encrypted plaintext ‖ tag 16`, and for suite 1 `commitment 32`, to what `out` holds.
    ///
    /// `aad` is GCM's whole AAD. On an error `out` is as it was. It allocates only if `out` has not the room,
    /// which is [`Suite::body_overhead`] and the plaintext.
    pub(crate) fn seal(
        &self,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let mut nonce = Nonce::default();
        random::fill(nonce.as_flattened_mut())?;
        self.seal_with_nonce(suite, &nonce, aad, plaintext, out)
    }

    fn seal_with_nonce(
        &self,
        suite: Suite,
        nonce: &Nonce,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let found = plaintext.len();
        if found > MAX_PLAINTEXT_LEN {
            return Err(SealError::TooLong { found });
        }
        let [first_half, second_half] = nonce;
        let derived = self.0.derive(first_half);
        // Before the message key is expanded: neither waits for the other, so the processor does both at once.
        let commitment = (suite == Suite::KcXaes256Gcm).then(|| self.0.commit(&derived, second_half));
        let block = BlockKey::new(&derived.key.0);
        let key = GcmKey::new(&block);
        let before = out.len();
        // Never again below: a vector that grew would leave plaintext behind in the memory it gave back.
        out.reserve(suite.body_overhead() + found);
        out.extend_from_slice(nonce.as_flattened());
        let begin = out.len();
        out.extend_from_slice(plaintext);
        let Ok(tag) = key.seal(second_half, aad, &mut out[begin..]) else {
            out.truncate(before);
            return Err(SealError::TooLong { found });
        };
        out.extend_from_slice(&tag);
        if let Some(commitment) = commitment {
            out.extend_from_slice(&commitment);
        }
        Ok(())
    }

    /// Opens the body of a ciphertext. The commitment, where the suite has one, is compared first.
    pub(crate) fn open(
        &self,
        suite: Suite,
        aad: &[u8],
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (first_half, rest) = body.split_first_chunk().ok_or(OpenError::TooShort)?;
        let (second_half, rest) = rest.split_first_chunk().ok_or(OpenError::TooShort)?;
        let (rest, commitment) = match suite {
            Suite::KcXaes256Gcm => {
                let (rest, commitment) = rest
                    .split_last_chunk::<COMMITMENT_LEN>()
                    .ok_or(OpenError::TooShort)?;
                (rest, Some(commitment))
            }
            Suite::Xaes256Gcm => (rest, None),
        };
        let (encrypted, tag) = rest.split_last_chunk().ok_or(OpenError::TooShort)?;

        let derived = self.0.derive(first_half);
        if let Some(commitment) = commitment {
            let ours = self.0.commit(&derived, second_half);
            if !bool::from(numbers(&ours)[..].ct_eq(&numbers(commitment))) {
                return Err(OpenError::Commitment);
            }
        }
        let mut plaintext = Zeroizing::new(encrypted.to_vec());
        let block = BlockKey::new(&derived.key.0);
        let key = GcmKey::new(&block);
        key.open(second_half, aad, &mut plaintext, tag)
            .map_err(|_| OpenError::Tag)?;
        Ok(plaintext)
    }
}

/// Splits a commitment into numbers: to compare four in constant time is faster than to compare 32 bytes.
fn numbers(commitment: &Commitment) -> [u64; 4] {
    let (parts, _) = commitment.as_chunks();
    [0, 1, 2, 3].map(|part| u64::from_ne_bytes(parts[part]))
}

impl ZeroizeOnDrop for SuiteKey {}

impl fmt::Debug for SuiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SuiteKey([REDACTED])")
    }
}
