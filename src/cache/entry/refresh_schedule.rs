//! When a cached key is checked, unwrapped again, and dropped.

use std::time::Duration;

use crate::cache::{CachedKey, Limits};

/// A cached key, and when to check it next.
pub(super) struct ScheduledKey {
    pub(super) key: CachedKey,
    look_at: Duration,
    /// How often the KMS was asked to unwrap it again.
    tries: u32,
}

impl ScheduledKey {
    pub(super) fn new(key: &CachedKey, limits: &Limits) -> Self {
        Self {
            key: key.clone(),
            look_at: limits.refresh_at(key.expires_at),
            tries: 0,
        }
    }

    /// Tells whether to keep the key in memory.
    pub(super) fn is_kept(&self, now: Duration, limits: &Limits, is_hopeless: impl FnOnce() -> bool) -> bool {
        let key = &self.key;
        if now < key.expires_at {
            return true;
        }
        // An expired key is kept only if it may have to serve: the KMS did not answer, is about to be asked, or is known
        // not to answer.
        now < key.expires_at.saturating_add(limits.longest_stale())
            && (key.is_unanswered(now) || key.is_used() || is_hopeless())
    }

    /// Tells whether to unwrap it again now, and decides when to check next.
    pub(super) fn look(&mut self, now: Duration, limits: &Limits) -> bool {
        if now < self.look_at {
            return false;
        }
        let on = !limits.refresh_window().is_zero() || !limits.longest_stale().is_zero();
        if on && (self.key.is_used() || self.key.is_unanswered(now)) {
            self.tries = self.tries.saturating_add(1);
            self.look_at = now.saturating_add(limits.pause_after(self.tries));
            return true;
        }
        let pause = if now < self.key.expires_at {
            // It may still be used until it expires.
            let left = self.key.expires_at.saturating_sub(now) / 2;
            left.max(limits.between_sweeps())
        } else {
            limits.pause_after(u32::MAX)
        };
        self.look_at = now.saturating_add(pause);
        false
    }

    /// Returns when the key must be handled next.
    pub(super) fn next(&self, now: Duration, limits: &Limits) -> Duration {
        let expires_at = self.key.expires_at;
        let end = if now < expires_at {
            expires_at
        } else {
            expires_at.saturating_add(limits.longest_stale())
        };
        end.min(self.look_at)
    }
}
