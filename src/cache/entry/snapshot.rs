//! The data of an entry that a hot call reads.

use std::sync::Arc;
use std::time::Duration;

use encx_core::key::DataKeyId;
use encx_suite::Epoch;

use crate::cache::data_cipher::DataCipher;
use crate::cache::derivation_key::DerivationKey;
use crate::cache::{KeyMeta, Limits, Purpose};

/// The data that a hot call reads: an entry's usable keys at one moment.
pub(crate) struct Snapshot {
    /// The key that encrypts.
    pub(crate) active: Option<Arc<DataCipher>>,
    /// The other keys that decrypt, sorted by id. Almost always `None`.
    pub(super) decrypting: Option<Arc<[Arc<DataCipher>]>>,
    /// Used instead of both for keys that do not encrypt.
    pub(crate) derivation_keys: Option<Arc<DerivationKeys>>,
    /// When the states were read.
    pub(crate) known_at: Duration,
    /// The epoch of the key that encrypts. Here rather than with the key, so that a hot call reads one snapshot.
    pub(crate) epoch: Option<Arc<Epoch>>,
    /// Until when the states may be used without asking.
    pub(crate) known_until: Duration,
}

impl Snapshot {
    #[inline]
    pub(crate) fn find(&self, id: DataKeyId) -> Option<&Arc<DataCipher>> {
        // Almost always the key that encrypts.
        if let Some(active) = self.active.as_ref().filter(|active| active.id == id) {
            return Some(active);
        }
        let others = self.decrypting.as_deref()?;
        let at = others.binary_search_by_key(&id, |key| key.id).ok()?;
        others.get(at)
    }

    /// Tells whether any unexpired key encrypts, and whether any decrypts.
    pub(crate) fn serves(&self, now: Duration, limits: &Limits) -> (bool, bool) {
        let serves = |key: &KeyMeta, purpose| key.serves(purpose, now, limits);
        let mut ciphers = self
            .active
            .iter()
            .chain(self.decrypting.iter().flat_map(|keys| keys.iter()));
        let derivation_keys = self.derivation_keys.as_deref();
        let active = derivation_keys.and_then(|keys| keys.active.as_ref());
        let mut derivation = derivation_keys.into_iter().flat_map(|keys| keys.all.iter());
        let encrypts = self
            .active
            .as_ref()
            .is_some_and(|key| serves(key, Purpose::Encrypt))
            || active.is_some_and(|key| serves(key, Purpose::Encrypt));
        let decrypts = ciphers.any(|key| serves(key, Purpose::Decrypt))
            || derivation.any(|key| serves(key, Purpose::Decrypt));
        (encrypts, decrypts)
    }

    /// Returns the epoch, if it belongs to this key.
    #[inline]
    pub(crate) fn epoch_of(&self, key: &DataCipher) -> Option<&Epoch> {
        let of_active = self
            .active
            .as_deref()
            .is_some_and(|active| std::ptr::eq(active, key));
        self.epoch.as_deref().filter(|_| of_active)
    }
}

/// The usable keys of an entry of usage `index` or `pepper`.
pub(crate) struct DerivationKeys {
    pub(crate) active: Option<Arc<DerivationKey>>,
    /// All of them, sorted by id.
    pub(crate) all: Box<[Arc<DerivationKey>]>,
    /// Whether every usable version is cached.
    pub(crate) complete: bool,
}

impl DerivationKeys {
    pub(crate) fn find(&self, id: DataKeyId) -> Option<&Arc<DerivationKey>> {
        let at = self.all.binary_search_by_key(&id, |key| key.id).ok()?;
        self.all.get(at)
    }
}
