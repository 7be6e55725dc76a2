//! The cache's limits, and the times of keys that follow from them.

use std::time::Duration;

use encx_core::key::KeyState;
use encx_core::store::KeyRecord;
use encx_suite::SuiteOptions;

use crate::error::{Error, Location};

/// The first and the longest pause before a key that could not be refreshed is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The least number of checks within the refresh window.
const LOOKS: u32 = 10;

/// How long and how much is cached; the builder of `Crypto` documents each limit.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) ttl: Duration,
    /// The last part of `ttl`, from 0 up to 1.
    pub(crate) refresh_ahead: f64,
    pub(crate) stale_encrypt: Duration,
    pub(crate) stale_decrypt: Duration,
    pub(crate) state_ttl: Duration,
    pub(crate) max_keyrings: u64,
    pub(crate) load_timeout: Duration,
    pub(crate) fail_closed_on_stale_state: bool,
    pub(crate) create_on_first_use: bool,
    pub(crate) accept_compromised: bool,
    pub(crate) suite: SuiteOptions,
}

impl Limits {
    /// The last part of a key's lifetime, in which it is refreshed.
    pub(crate) fn refresh_window(&self) -> Duration {
        self.ttl.mul_f64(self.refresh_ahead)
    }

    /// How long a process may use a withdrawn key if it reaches neither the KMS nor the key store.
    pub(crate) fn serves_for(&self) -> Duration {
        self.ttl.saturating_add(self.longest_stale())
    }

    pub(crate) fn longest_stale(&self) -> Duration {
        self.stale_encrypt.max(self.stale_decrypt)
    }

    /// The least time between the sweeper's rounds. Keys that are due close together are handled together.
    pub(crate) fn between_sweeps(&self) -> Duration {
        let shortest = (self.ttl / 100).min(Duration::from_secs(10));
        match self.refresh_window() {
            Duration::ZERO => shortest,
            window => shortest.min(window / LOOKS),
        }
    }

    /// Draws the moment from which a key with this expiry is refreshed if it was used. A quarter of the window is left
    /// for a KMS that does not answer at first.
    pub(super) fn refresh_at(&self, expires_at: Duration) -> Duration {
        let ahead = self.refresh_window().mul_f64(1.0 - 0.75 * rand::random::<f64>());
        expires_at.saturating_sub(ahead)
    }

    /// Draws the pause after this many attempts to refresh a key.
    pub(super) fn pause_after(&self, tries: u32) -> Duration {
        let first = match self.refresh_window() {
            Duration::ZERO => FIRST_PAUSE,
            window => FIRST_PAUSE.min(window / LOOKS),
        };
        let doubled = first.saturating_mul(1 << tries.saturating_sub(1).min(16));
        doubled
            .min(LONGEST_PAUSE)
            .mul_f64(1.0 - 0.25 * rand::random::<f64>())
    }

    /// How long a KMS that did not answer about a key need not be asked again before the key may serve. The background
    /// asks again long before that; if it cannot run, requests do.
    pub(super) fn silence_counts_for(&self) -> Duration {
        let background = LONGEST_PAUSE.saturating_add(self.between_sweeps());
        background.saturating_add(self.load_timeout.saturating_mul(2))
    }

    /// Checks that a version's state lets it decrypt.
    pub(crate) fn check_decrypts(&self, record: &KeyRecord) -> Result<(), Error> {
        let (id, at) = (record.id, Location::default());
        match record.state {
            state if state.decrypts() => Ok(()),
            KeyState::Compromised if self.accept_compromised => Ok(()),
            KeyState::Compromised => Err(Error::Compromised { id, at }),
            KeyState::Suspended => Err(Error::Suspended { id, at }),
            _ => Err(Error::Destroyed { id, at }),
        }
    }
}
