//! What every key in memory has, whatever it is for: an id, a time to live, and whether anybody uses it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cache::data_cipher::DataCipher;
use crate::cache::derivation_key::DerivationKey;
use crate::cache::stats::KeyGauge;
use crate::cache::{Cache, Entry, Limits};
use crate::clock::Moment;
use crate::error::Error;
use crate::key::{DataKey, DataKeyId, KeyUsage};

/// A key in memory, in the one form that its usage allows.
#[derive(Clone)]
pub(crate) enum CachedKey {
    /// It encrypts.
    Cipher(Arc<DataCipher>),
    /// It encrypts nothing, and others are derived from it.
    DerivationKey(Arc<DerivationKey>),
}

impl CachedKey {
    /// Takes a key over whose unwrapping began at `began`.
    pub(crate) fn new(cache: &Cache, entry: &Entry, id: DataKeyId, key: &DataKey, began: Duration) -> Self {
        let meta = KeyMeta {
            id,
            expires_at: began.saturating_add(cache.limits.ttl),
            used: AtomicBool::new(false),
            unanswered_until: Moment::zero(),
            stale: AtomicBool::new(false),
            _gauge: KeyGauge::new(&cache.counters),
        };
        match entry.key.usage {
            KeyUsage::Index | KeyUsage::Pepper => {
                Self::DerivationKey(Arc::new(DerivationKey::new(meta, key)))
            }
            _ => Self::Cipher(DataCipher::new(meta, entry.scope, key)),
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

/// The id of a key in memory, its time, and what was heard about it.
pub(crate) struct KeyMeta {
    pub(crate) id: DataKeyId,
    /// The clock's time from which it may not be used any more, unless the KMS does not answer.
    pub(crate) expires_at: Duration,
    used: AtomicBool,
    /// Up to here it counts that the KMS was asked to unwrap it again, and did not answer.
    pub(super) unanswered_until: Moment,
    stale: AtomicBool,
    _gauge: KeyGauge,
}

/// What a key is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Encrypt,
    Decrypt,
}

impl Limits {
    /// How long past its time a key serves while the KMS does not answer.
    fn stale(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Encrypt => self.stale_encrypt,
            Purpose::Decrypt => self.stale_decrypt,
        }
    }
}

impl KeyMeta {
    /// Notes that it was used since it was unwrapped.
    #[inline]
    pub(crate) fn mark_used(&self) {
        // Read first: a line that many cores write is slow, one that they read is not.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Tells whether it may be used now: in its time, or past it if the KMS was asked about it and did not answer.
    #[inline]
    pub(crate) fn serves(&self, purpose: Purpose, now: Duration, limits: &Limits) -> bool {
        now < self.expires_at || self.serves_stale(purpose, now, limits)
    }

    #[cold]
    fn serves_stale(&self, purpose: Purpose, now: Duration, limits: &Limits) -> bool {
        now < self.expires_at.saturating_add(limits.stale(purpose)) && self.is_unanswered(now)
    }

    pub(super) fn is_unanswered(&self, now: Duration) -> bool {
        now < self.unanswered_until.get()
    }

    /// Notes that it serves past its time. `true` the first time.
    pub(crate) fn becomes_stale(&self) -> bool {
        !self.stale.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
impl KeyMeta {
    pub(super) fn for_test() -> Self {
        Self {
            id: DataKeyId::generate(1, None).unwrap(),
            expires_at: Duration::MAX,
            used: AtomicBool::new(false),
            unanswered_until: Moment::zero(),
            stale: AtomicBool::new(false),
            _gauge: KeyGauge::new(&Arc::default()),
        }
    }
}

impl fmt::Debug for KeyMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMeta")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
