//! Decrypted bytes, in a buffer that is wiped on drop and then reused.

mod spare;

use std::fmt;
use std::ops::Deref;

use zeroize::{ZeroizeOnDrop, zeroize_bytes};

/// Decrypted bytes. They are wiped on drop, unless they were taken out.
#[doc(hidden)]
pub struct Opened {
    /// Zero beyond `len`.
    buffer: Vec<u8>,
    len: usize,
}

impl Opened {
    /// Makes a buffer to decrypt into, and returns the bytes to decrypt into it; `None` if the
    /// buffer already contains them.
    #[inline(always)]
    pub(super) fn begin(encrypted: &[u8]) -> (Self, Option<&[u8]>) {
        let len = encrypted.len();
        match spare::take(len) {
            Some(buffer) => (Self { buffer, len }, Some(encrypted)),
            None => {
                let buffer = spare::made(encrypted);
                (Self { buffer, len }, None)
            }
        }
    }

    #[inline]
    pub(super) fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Takes the bytes out, without a copy.
    #[doc(hidden)]
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.truncate(std::mem::take(&mut self.len));
        bytes
    }

    /// Copies bytes, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn copied_from(bytes: &[u8]) -> Self {
        let (mut opened, from) = Self::begin(bytes);
        if let Some(from) = from {
            opened.as_mut_bytes().copy_from_slice(from);
        }
        opened
    }
}

impl Deref for Opened {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Opened {
    #[inline]
    fn drop(&mut self) {
        if self.buffer.is_empty() {
            // Taken out. Writing zero bytes through AVX-512 takes a hundred nanoseconds.
            return;
        }
        // All at once: `Zeroizing` goes byte by byte, which takes a fifth of the time of decryption.
        zeroize_bytes(self.as_mut_bytes());
        spare::keep(std::mem::take(&mut self.buffer));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_wiped_and_serves_again() {
        for len in [1, 64, 1000, 60_000] {
            let opened = Opened::copied_from(&vec![0xa5; len]);
            let place = opened.as_ptr();
            drop(opened);
            let encrypted = vec![1; len];
            let (again, from) = Opened::begin(&encrypted);
            assert_eq!((again.as_ptr(), from.map(<[u8]>::len)), (place, Some(len)));
            assert_eq!(*again.buffer, vec![0; again.buffer.len()]);
        }
    }

    #[test]
    fn what_is_taken_out_is_no_longer_than_it_was() {
        let bytes = Opened::copied_from(b"secret").into_bytes();
        assert_eq!(bytes, b"secret");
    }
}
