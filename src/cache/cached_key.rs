//! A key in memory, whatever it is for.

use std::ops::Deref;
use std::sync::Arc;

use crate::cache::data_cipher::DataCipher;
use crate::cache::derivation_key::DerivationKey;
use crate::cache::key_meta::KeyMeta;
use crate::error::Error;
use encx_core::key::{DataKey, KeyUsage, Scope};
use encx_suite::NonceSource;

/// A key in memory, in the one form that its usage allows.
#[derive(Clone)]
pub(crate) enum CachedKey {
    /// It encrypts.
    Cipher(Arc<DataCipher>),
    /// It encrypts nothing, and others are derived from it.
    DerivationKey(Arc<DerivationKey>),
}

impl CachedKey {
    /// Takes over a key of a scope, in the form for its usage.
    pub(super) fn new(
        meta: KeyMeta,
        usage: KeyUsage,
        scope: Scope,
        key: &DataKey,
        nonces: NonceSource,
    ) -> Self {
        match usage {
            KeyUsage::Index | KeyUsage::Pepper => {
                Self::DerivationKey(Arc::new(DerivationKey::new(meta, key)))
            }
            _ => Self::Cipher(DataCipher::new(meta, scope, key, nonces)),
        }
    }

    /// Returns the key that encrypts. Which form a key has follows from its entry, so nobody sees the error.
    pub(crate) fn cipher(self) -> Result<Arc<DataCipher>, Error> {
        match self {
            Self::Cipher(key) => Ok(key),
            Self::DerivationKey(key) => Err(Error::KeyMismatch { id: key.id }),
        }
    }

    /// Returns the key that others are derived from. Which form a key has follows from its entry, so nobody sees the
    /// error.
    pub(crate) fn derivation_key(self) -> Result<Arc<DerivationKey>, Error> {
        match self {
            Self::DerivationKey(key) => Ok(key),
            Self::Cipher(key) => Err(Error::KeyMismatch { id: key.id }),
        }
    }
}

impl Deref for CachedKey {
    type Target = KeyMeta;

    fn deref(&self) -> &KeyMeta {
        match self {
            Self::Cipher(key) => key,
            Self::DerivationKey(key) => key,
        }
    }
}
