//! An unwrapped data key, and the check value that recognises it.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::DataKeyId;
use super::random::{RandomError, fill_from_os};
use crate::causes::debug_as_text;
use crate::memory::{DEEP, wiping_stack};

/// The length of a data key, in bytes.
pub const DATA_KEY_LEN: usize = 32;

/// Holds a 256-bit data key (DEK), unwrapped.
///
/// The key stays in one place on the heap and is zeroised on drop. It has no `Clone` and no `Serialize`, and prints
/// as `DataKey([REDACTED])`.
///
/// <div class="warning">
///
/// These bytes decrypt everything that was encrypted under them. Providers need this type; services do not.
///
/// </div>
pub struct DataKey(Box<[u8; DATA_KEY_LEN]>);

impl DataKey {
    /// Generates a data key with the operating system's random number generator.
    ///
    /// # Errors
    ///
    /// [`RandomError`] if the operating system returns no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        let mut key = Self(Box::new([0; DATA_KEY_LEN]));
        fill_from_os(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// Copies a data key from a buffer of exactly 32 bytes. The caller zeroises the buffer.
    ///
    /// # Errors
    ///
    /// [`DataKeyLenError`] if the buffer has another length.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, DataKeyLenError> {
        let mut key = Self(Box::new([0; DATA_KEY_LEN]));
        if bytes.len() != DATA_KEY_LEN {
            return Err(DataKeyLenError { found: bytes.len() });
        }
        key.0.copy_from_slice(bytes);
        Ok(key)
    }

    /// Makes a data key with a function that writes its 32 bytes in place, then wipes the 32 KiB of stack below the
    /// call. For computed keys, such as those derived from a passphrase.
    ///
    /// ```
    /// use encx::kms::DataKey;
    ///
    /// let parse = |hex: &str| {
    ///     DataKey::try_fill(|key| {
    ///         let mut pairs = hex.as_bytes().chunks_exact(2);
    ///         key.iter_mut().try_for_each(|byte| {
    ///             let pair = std::str::from_utf8(pairs.next()?).ok()?;
    ///             *byte = u8::from_str_radix(pair, 16).ok()?;
    ///             Some(())
    ///         })
    ///         .ok_or("this is no key")
    ///     })
    /// };
    /// assert!(parse(&"5a".repeat(32)).is_ok());
    /// assert!(parse("5a").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The function's own error. What it wrote is wiped.
    pub fn try_fill<E>(fill: impl FnOnce(&mut [u8; DATA_KEY_LEN]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::new([0; DATA_KEY_LEN]));
        wiping_stack::<DEEP, _>(|| fill(&mut key.0))?;
        Ok(key)
    }

    /// Exposes the key's 32 bytes. Do not copy them into memory that is not zeroised.
    #[must_use]
    pub fn expose(&self) -> &[u8; DATA_KEY_LEN] {
        &self.0
    }

    /// Computes the check value of this key, for a store: HMAC-SHA-256(key, "encx/check/v1" ‖ id).
    #[must_use]
    pub fn check(&self, id: DataKeyId) -> KeyCheck {
        wiping_stack::<DEEP, _>(|| {
            let mut mac = self.check_mac();
            mac.update(&id.to_bytes());
            KeyCheck(mac.finalize().into_bytes().into())
        })
    }

    fn check_mac(&self) -> Hmac<Sha256> {
        // HMAC takes a key of any length (RFC 2104), so 32 bytes cannot fail.
        #[allow(clippy::unwrap_used, reason = "HMAC has no invalid key length")]
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.expose()).unwrap();
        mac.update(b"encx/check/v1");
        mac
    }
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for DataKey {}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([REDACTED])")
    }
}

/// A buffer is not a data key because of its length.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("a data key has {DATA_KEY_LEN} bytes, not {found}")]
pub struct DataKeyLenError {
    /// The buffer's length, in bytes.
    pub found: usize,
}

debug_as_text!(DataKeyLenError);

/// Recognises a data key without revealing it: HMAC-SHA-256(key, "encx/check/v1" ‖ id), 32 bytes.
#[derive(Clone, Copy)]
pub struct KeyCheck([u8; 32]);

impl KeyCheck {
    /// Takes a stored check.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the check's 32 bytes, for a store.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// Compares in constant time.
impl PartialEq for KeyCheck {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyCheck {}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCheck(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> DataKeyId {
        DataKeyId::generate(millis, None).unwrap()
    }

    #[test]
    fn an_error_prints_as_text() {
        let error = RandomError("closed".to_owned());
        assert_eq!(format!("{error:?}"), error.to_string());
    }

    #[test]
    fn keys_are_zeroised() {
        fn is_zeroised<T: ZeroizeOnDrop>() {}
        is_zeroised::<DataKey>();
    }

    #[test]
    fn a_key_has_32_bytes() {
        assert_eq!(
            DataKey::copy_from(&[0; 31]).unwrap_err(),
            DataKeyLenError { found: 31 }
        );
        assert_eq!(
            DataKey::copy_from(&[0; 33]).unwrap_err(),
            DataKeyLenError { found: 33 }
        );
        assert_ne!(
            DataKey::generate().unwrap().expose(),
            DataKey::generate().unwrap().expose()
        );
    }

    #[test]
    fn a_check_depends_on_key_and_id() {
        let (a, b) = (id(1), id(2));
        let key = DataKey::copy_from(&[1; 32]).unwrap();
        assert_eq!(key.check(a), key.check(a));
        assert_ne!(key.check(a), key.check(b));
        assert_ne!(key.check(a), DataKey::copy_from(&[2; 32]).unwrap().check(a));
    }
}
