//! The result of decryption: bytes that are zeroised on drop.

use std::fmt;

use encx_suite::Opened;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::Error;

/// A decrypted value. It is zeroised on drop, and prints as `Plaintext([REDACTED])`.
///
/// It has no `Clone` and no `Serialize`. Read its bytes with [`as_bytes`](Self::as_bytes) or
/// [`as_str`](Self::as_str), or take them out with [`into_bytes`](Self::into_bytes) or
/// [`into_string`](Self::into_string), after which they are no longer zeroised.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext, Field};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// const SSN: Field = Field::new("users", "ssn");
/// # let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await?;
/// let ssn = crypto.decrypt(&context, &sealed, SSN.row(7)).await?;
/// assert_eq!(ssn.as_str()?, "123-45-6789");
/// assert!(!format!("{ssn:?}").contains("123"));
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
pub struct Plaintext(Opened);

impl Plaintext {
    #[inline]
    pub(crate) fn new(opened: Opened) -> Self {
        Self(opened)
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
    /// [`Error::NotUtf8`] if the bytes are not text.
    pub fn as_str(&self) -> Result<&str, Error> {
        std::str::from_utf8(self.as_bytes()).map_err(|_| Error::NotUtf8)
    }

    /// Takes the bytes out, without a copy. They are no longer zeroised.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// Takes the text out, without a copy. It is no longer zeroised.
    ///
    /// # Errors
    ///
    /// [`Error::NotUtf8`] if the bytes are not text; they are then zeroised.
    pub fn into_string(self) -> Result<String, Error> {
        String::from_utf8(self.into_bytes()).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            Error::NotUtf8
        })
    }
}

impl ZeroizeOnDrop for Plaintext {}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
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
        let plaintext = |bytes: &[u8]| Plaintext::new(Opened::copied_from(bytes));
        assert_eq!(plaintext(b"abc").as_str().unwrap(), "abc");
        assert_eq!(plaintext(b"abc").into_string().unwrap(), "abc");
        assert_eq!(plaintext(b"\xff").into_bytes(), [0xff]);
        assert!(matches!(plaintext(b"\xff").as_str(), Err(Error::NotUtf8)));
        assert!(matches!(plaintext(b"\xff").into_string(), Err(Error::NotUtf8)));
        assert_eq!(format!("{:?}", plaintext(b"abc")), "Plaintext([REDACTED])");
    }
}
