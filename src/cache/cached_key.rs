//! A cached key of any usage.

use std::ops::Deref;
use std::sync::Arc;

use encx_core::key::{DataKey, KeyUsage, Scope};
use encx_suite::SuiteOptions;

use crate::cache::data_cipher::DataCipher;
use crate::cache::derivation_key::DerivationKey;
use crate::cache::key_meta::KeyMeta;
use crate::error::Error;

/// A cached key, in the one form that its usage allows.
#[derive(Clone)]
pub(crate) enum CachedKey {
    /// A key that encrypts.
    Cipher(Arc<DataCipher>),
    /// A key that does not encrypt, and from which others are derived.
    DerivationKey(Arc<DerivationKey>),
}

impl CachedKey {
    /// Takes a scope's key, in the form for its usage.
    pub(super) fn new(
        meta: KeyMeta,
        usage: KeyUsage,
        scope: Scope,
        key: &DataKey,
        options: SuiteOptions,
    ) -> Self {
        match usage {
            KeyUsage::Index | KeyUsage::Pepper => {
                Self::DerivationKey(Arc::new(DerivationKey::new(meta, key)))
            }
            _ => Self::Cipher(DataCipher::new(meta, scope, key, options)),
        }
    }

    /// Returns the key that encrypts. The entry determines the form, so callers never see the error.
    pub(crate) fn cipher(self) -> Result<Arc<DataCipher>, Error> {
        match self {
            Self::Cipher(key) => Ok(key),
            Self::DerivationKey(key) => Err(Error::KeyMismatch { id: key.id }),
        }
    }

    /// Returns the key from which others are derived. The entry determines the form, so callers never see the error.
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
