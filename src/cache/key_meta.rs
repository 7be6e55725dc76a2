//! The common part of every cached key: its id, its expiry, and its use.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use encx_core::key::DataKeyId;

use crate::cache::Limits;
use crate::cache::stats::{Counters, KeyGauge};
use crate::clock::Moment;

/// The id of a cached key, its expiry, and the outcome of asking the KMS again.
pub(crate) struct KeyMeta {
    pub(crate) id: DataKeyId,
    /// The clock's time from which it may no longer be used, unless the KMS does not answer.
    pub(crate) expires_at: Duration,
    used: AtomicBool,
    /// Until when a failed attempt to have it unwrapped again counts as no answer.
    pub(super) unanswered_until: Moment,
    stale: AtomicBool,
    _gauge: KeyGauge,
}

/// The purpose of a key in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Encrypt,
    Decrypt,
}

impl Limits {
    /// How long an expired key serves while the KMS does not answer.
    fn stale(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Encrypt => self.stale_encrypt,
            Purpose::Decrypt => self.stale_decrypt,
        }
    }
}

impl KeyMeta {
    pub(super) fn new(id: DataKeyId, expires_at: Duration, counters: &Arc<Counters>) -> Self {
        Self {
            id,
            expires_at,
            used: AtomicBool::new(false),
            unanswered_until: Moment::zero(),
            stale: AtomicBool::new(false),
            _gauge: KeyGauge::new(counters),
        }
    }

    /// Records that it was used since it was unwrapped.
    #[inline]
    pub(crate) fn mark_used(&self) {
        // Read first: a cache line that many cores write is slow, one that they only read is not.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Tells whether it may be used now: it has not expired, or the KMS was asked about it and did not answer.
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

    /// Records that it serves although expired. `true` the first time.
    pub(crate) fn becomes_stale(&self) -> bool {
        !self.stale.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
impl KeyMeta {
    pub(super) fn for_test() -> Self {
        Self::new(
            DataKeyId::generate(1, None).unwrap(),
            Duration::MAX,
            &Arc::default(),
        )
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
