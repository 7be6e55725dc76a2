//! What decryption returns: bytes that are zeroised when dropped.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Error;

/// A decrypted value. It is zeroised when dropped, and prints as `Plaintext([REDACTED])`.
///
/// It has no `Clone` and no `Serialize`. Its bytes are reached with [`as_bytes`](Self::as_bytes) or
/// [`as_str`](Self::as_str), or taken out with [`into_bytes`](Self::into_bytes) or
/// [`into_string`](Self::into_string), after which nobody zeroises them.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the text.
    ///
    /// # Errors
    ///
    /// [`Error::NotUtf8`] if the bytes are no text.
    pub fn as_str(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.0).map_err(|_| Error::NotUtf8)
    }

    /// Takes the bytes out, without a copy. Nobody zeroises them any more.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// Takes the text out, without a copy. Nobody zeroises it any more.
    ///
    /// # Errors
    ///
    /// [`Error::NotUtf8`] if the bytes are no text; they are then zeroised.
    pub fn into_string(self) -> Result<String, Error> {
        String::from_utf8(self.into_bytes()).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            Error::NotUtf8
        })
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        // `Zeroizing` wipes a vector's spare room at once, and what is in use byte by byte: a fifth of the time that
        // decrypting takes. So first nothing is in use any more.
        self.0.clear();
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_come_out_and_debug_shows_neither() {
        let plaintext = |bytes: &[u8]| Plaintext::new(Zeroizing::new(bytes.to_vec()));
        assert_eq!(plaintext(b"abc").as_str().unwrap(), "abc");
        assert_eq!(plaintext(b"abc").into_string().unwrap(), "abc");
        assert_eq!(plaintext(b"\xff").into_bytes(), [0xff]);
        assert!(matches!(plaintext(b"\xff").as_str(), Err(Error::NotUtf8)));
        assert!(matches!(plaintext(b"\xff").into_string(), Err(Error::NotUtf8)));
        assert_eq!(format!("{:?}", plaintext(b"abc")), "Plaintext([REDACTED])");
    }
}
