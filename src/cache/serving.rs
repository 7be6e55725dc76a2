//! Which keys a process can use without any call, and the state of the key store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::entry::Trust;
use crate::calls::CallMemory;

/// What the cache knows without asking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving {
    /// The number of cached keys.
    pub(crate) keys: u64,
    /// Whether any of them encrypts now.
    pub(crate) encrypts: bool,
    /// Whether any of them decrypts now.
    pub(crate) decrypts: bool,
    /// The greatest age of the states of keys.
    pub(crate) states_age: Duration,
    /// The outcomes of the calls to the key store.
    pub(crate) store: CallMemory,
}

impl Cache {
    /// Inspects the cache, and stops at the first key that serves.
    pub(crate) fn serving(&self) -> Serving {
        let now = self.clock.elapsed();
        let mut serving = Serving {
            keys: self.counters.keys.load(Ordering::Relaxed),
            encrypts: false,
            decrypts: false,
            states_age: now.saturating_sub(self.polls.polled_at()),
            store: self.store_calls.read(),
        };
        if serving.keys == 0 {
            return serving;
        }
        let around = self.surroundings(now);
        for (_, entry) in &self.entries {
            let guard = entry.snapshot();
            let Some(snapshot) = guard.as_ref() else { continue };
            if matches!(around.trust(snapshot.known_at), Trust::Ask | Trust::Refuse) {
                continue;
            }
            let (encrypts, decrypts) = snapshot.serves(now, &self.limits);
            serving.encrypts |= encrypts;
            serving.decrypts |= decrypts;
            if serving.encrypts && serving.decrypts {
                break;
            }
        }
        serving
    }
}
