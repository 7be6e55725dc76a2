//! Subkeys of a data key that does not encrypt itself: HKDF-SHA-256 (RFC 5869).

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::DataKey;
use crate::memory::{DEEP, wiping_stack};

/// Derives subkeys of a data key: HKDF-SHA-256 without a salt.
///
/// Holds the pseudorandom key of HKDF's extract step, not the data key. Wiped on drop.
#[doc(hidden)]
pub struct Derivation(Box<[u8; LEN]>);

/// A subkey, 32 bytes. Wiped on drop.
#[doc(hidden)]
pub struct Subkey(Box<[u8; LEN]>);

const LEN: usize = 32;

impl Derivation {
    #[doc(hidden)]
    #[must_use]
    pub fn new(key: &DataKey) -> Self {
        let mut held = Self(Box::new([0; LEN]));
        wiping_stack::<DEEP, _>(|| {
            let (extracted, _) = Hkdf::<Sha256>::extract(None, key.expose());
            held.0.copy_from_slice(&extracted);
        });
        held
    }

    /// Derives the subkey for this info.
    #[doc(hidden)]
    #[must_use]
    pub fn derive(&self, info: &[u8]) -> Subkey {
        let mut subkey = Subkey(Box::new([0; LEN]));
        wiping_stack::<DEEP, _>(|| {
            // The key is as long as a hash, which HKDF accepts; the output is as long, which is below HKDF's limit.
            #[allow(clippy::unwrap_used, reason = "neither length can be wrong")]
            Hkdf::<Sha256>::from_prk(self.0.as_slice())
                .unwrap()
                .expand(info, subkey.0.as_mut_slice())
                .unwrap();
        });
        subkey
    }
}

impl Subkey {
    #[doc(hidden)]
    #[must_use]
    pub fn expose(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl Drop for Derivation {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for Subkey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Derivation {}
impl ZeroizeOnDrop for Subkey {}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derivation([REDACTED])")
    }
}

impl fmt::Debug for Subkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subkey([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 5869 has no vector with a 32-byte key. Python's `hmac`, following the RFC, computed this one.
    #[test]
    fn derivation_is_hkdf() {
        let derivation = Derivation::new(&DataKey::copy_from(&[7; 32]).unwrap());
        assert_eq!(
            hex(derivation.derive(b"info").expose()),
            "866aa54c23632fd0064804126b22bc8795376f8b59289d8ad4c16de7432ca079"
        );
        assert_ne!(
            derivation.derive(b"info").expose(),
            derivation.derive(b"inf").expose()
        );
    }

    #[test]
    fn secrets_are_wiped_and_redacted() {
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<Derivation>();
        is_wiped::<Subkey>();
        let derivation = Derivation::new(&DataKey::copy_from(&[7; 32]).unwrap());
        assert_eq!(format!("{derivation:?}"), "Derivation([REDACTED])");
        assert_eq!(format!("{:?}", derivation.derive(b"")), "Subkey([REDACTED])");
    }
}
