//! AES-256-GCM under one message key, by the library that was chosen.

use super::backend::Backend;
use super::bytes::{Block, HalfNonce, Tag};
use super::error::Refused;
#[cfg(any(feature = "aes-gcm", feature = "ring"))]
use crate::memory::Wiped;
use crate::memory::{DEEP, UNOPTIMISED};

/// An expanded key of AES-256-GCM.
///
/// The libraries in Rust keep round keys and hash keys inline, in unions that nothing wipes. In a box, they stay where
/// they were expanded, and all of it is wiped. AWS-LC allocates by itself, and wipes what it frees.
pub(super) enum GcmKey {
    #[cfg(feature = "aes-gcm")]
    AesGcm(Box<Wiped<super::aes_gcm::Aes256Gcm>>),
    #[cfg(feature = "aws-lc-rs")]
    AwsLcRs(super::aws_lc_rs::Aes256Gcm),
    #[cfg(feature = "ring")]
    Ring(Box<Wiped<super::ring::Aes256Gcm>>),
}

impl GcmKey {
    /// Expands a key, given as its two halves. Wipe the stack below it, [`DERIVATION`] bytes.
    #[inline(always)]
    pub(super) fn new(backend: Backend, key: &[Block; 2]) -> Self {
        match backend {
            #[cfg(feature = "aes-gcm")]
            Backend::AesGcm => Self::AesGcm(super::aes_gcm::Aes256Gcm::expand(key)),
            #[cfg(feature = "aws-lc-rs")]
            Backend::AwsLcRs => Self::AwsLcRs(super::aws_lc_rs::Aes256Gcm::new(key)),
            #[cfg(feature = "ring")]
            Backend::Ring => Self::Ring(super::ring::Aes256Gcm::expand(key)),
        }
    }

    /// Encrypts in place and writes the tag. Refuses a plaintext that exceeds GCM's counter.
    #[inline(always)]
    pub(super) fn seal(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &mut Tag,
    ) -> Result<(), Refused> {
        match self {
            #[cfg(feature = "aes-gcm")]
            Self::AesGcm(key) => key.seal(iv, aad, buffer, tag),
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLcRs(key) => key.seal(iv, aad, buffer, tag),
            #[cfg(feature = "ring")]
            Self::Ring(key) => key.seal(iv, aad, buffer, tag),
        }
    }

    /// Verifies the tag and decrypts in place. After a refusal the buffer's content is unspecified: wipe it.
    #[inline(always)]
    pub(super) fn open(
        &self,
        iv: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused> {
        match self {
            #[cfg(feature = "aes-gcm")]
            Self::AesGcm(key) => key.open(iv, aad, buffer, tag),
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLcRs(key) => key.open(iv, aad, buffer, tag),
            #[cfg(feature = "ring")]
            Self::Ring(key) => key.open(iv, aad, buffer, tag),
        }
    }
}

/// How many bytes of stack are wiped after a message key was derived, expanded and used: the frame that all libraries
/// share, and AWS-LC's expansion below it, of which 0.9 KiB was measured with optimisation. The other libraries wipe below
/// their own expansions, which are not inlined into that frame.
pub(super) const DERIVATION: usize = if UNOPTIMISED { DEEP } else { 2 << 10 };
