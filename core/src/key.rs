//! Data keys and their parts: ids, versions, KEKs, usages, states, scopes and wraps.

mod data_key;
mod id;
mod name;
mod random;
mod state;
mod subkey;

use std::fmt;

use sha2::{Digest, Sha256};

use crate::context::EncryptionContext;

pub use data_key::{DATA_KEY_LEN, DataKey, DataKeyLenError, KeyCheck};
pub use id::{DataKeyId, DataKeyIdError, NewIdError};
pub use name::{KekId, KmsName, NameError};
pub use random::RandomError;
#[doc(hidden)]
pub use random::fill_from_os;
pub use state::KeyState;
#[doc(hidden)]
pub use subkey::{Derivation, Subkey};

/// The greatest number of wraps of one data key.
pub const MAX_WRAPS: usize = 8;

/// Numbers the versions of a scope's data key, from 1 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// The first version of every scope.
    pub const FIRST: Self = Self(1);

    /// Takes a version's number. `None` for zero, and for numbers that do not fit into a store's signed 32-bit column.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number > i32::MAX.cast_unsigned() {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Returns the version's number, 1 to 2³¹ − 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the next version; `None` after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The purpose of a data key. A key has one usage, which its scope and its encryption context contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyUsage {
    /// Encrypts fields and records.
    Data,
    /// Makes blind indexes.
    Index,
    /// Peppers password hashes.
    Pepper,
    /// Encrypts streams.
    Stream,
}

impl KeyUsage {
    /// All usages, by code.
    pub const ALL: [Self; 4] = [Self::Data, Self::Stream, Self::Index, Self::Pepper];

    /// Returns the usage's byte: 1 data, 2 stream, 3 index, 4 pepper.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Stream => 2,
            Self::Index => 3,
            Self::Pepper => 4,
        }
    }

    /// Returns the usage with this byte; `None` if there is none.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.code() == code)
    }

    /// Returns the usage's name, which the encryption context carries under `encx:usage`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Stream => "stream",
            Self::Index => "index",
            Self::Pepper => "pepper",
        }
    }
}

impl fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one family of data keys: SHA-256("encx/scope/v1" ‖ usage byte ‖ canonical context), 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope([u8; 32]);

impl Scope {
    /// The length of a scope, in bytes.
    pub const LEN: usize = 32;

    /// Computes the scope of a usage under an encryption context.
    #[must_use]
    pub fn of(usage: KeyUsage, context: &EncryptionContext) -> Self {
        let digest = Sha256::new()
            .chain_update(b"encx/scope/v1")
            .chain_update([usage.code()])
            .chain_update(context.canonical());
        Self(digest.finalize().into())
    }

    /// Takes a stored scope.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the scope's 32 bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

/// A data key encrypted by a KEK, as the KMS returned it.
///
/// The bytes are in the provider's own format. They do not identify the key: two wraps of one key differ, and some
/// formats carry unauthenticated metadata.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrappedKey {
    /// The KEK that wrapped it, under its permanent name: never an alias.
    pub kek: KekId,
    /// The wrapped key, 1 to 8192 bytes.
    pub ciphertext: Vec<u8>,
    /// The KEK's material that wrapped it, if the KMS reports it. At most 256 bytes of text.
    pub kek_material: Option<String>,
}

impl WrappedKey {
    /// The longest wrap that a store keeps, in bytes. AWS KMS returns at most 6144.
    pub const MAX_LEN: usize = 8192;

    /// Makes a wrap from what the KMS returned.
    #[must_use]
    pub fn new(kek: KekId, ciphertext: Vec<u8>) -> Self {
        Self {
            kek,
            ciphertext,
            kek_material: None,
        }
    }

    /// Adds the name of the KEK's material that wrapped the key.
    #[must_use]
    pub fn with_material(mut self, material: impl Into<String>) -> Self {
        self.kek_material = Some(material.into());
        self
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey")
            .field("kek", &self.kek)
            .field("ciphertext", &format_args!("[{} bytes]", self.ciphertext.len()))
            .field("kek_material", &self.kek_material)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> DataKeyId {
        DataKeyId::generate(millis, None).unwrap()
    }

    #[test]
    fn secrets_print_redacted() {
        let key = DataKey::copy_from(&[0xab; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "DataKey([REDACTED])");
        assert_eq!(format!("{:?}", key.check(id(1))), "KeyCheck(..)");
        let wrap = WrappedKey::new(KekId::new("k").unwrap(), vec![0xab; 5]);
        assert!(!format!("{wrap:?}").contains("171"), "{wrap:?}");
    }

    #[test]
    fn codes_and_names_are_pinned() {
        let usages = KeyUsage::ALL.map(|usage| (usage.code(), usage.name()));
        assert_eq!(usages, [(1, "data"), (2, "stream"), (3, "index"), (4, "pepper")]);
        assert!(
            KeyUsage::ALL
                .into_iter()
                .all(|usage| KeyUsage::from_code(usage.code()) == Some(usage))
        );
        assert_eq!(KeyUsage::from_code(0), None);
        assert!(
            KeyState::ALL
                .into_iter()
                .all(|state| KeyState::from_name(state.name()) == Some(state))
        );
        assert_eq!(KeyState::from_name("Active"), None);
    }
}
