//! Unwraps keys again before their time is over, so that no request waits when it is.
//!
//! The sweeper looks at every key when its moment has come, and hands over those that were used. Each key's moment
//! is drawn from the last part of its life, so that keys which came together do not go to the KMS together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::entry::Entry;
use crate::cache::{Cache, Limits, Records, background};
use crate::error::Error;
use crate::key::DataKeyId;
use crate::kms::KmsErrorKind;

/// How long a key that could not be refreshed is left alone at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How many looks there are at least in the time in which keys are refreshed.
const LOOKS: u32 = 10;

impl Limits {
    /// The last part of a key's life, in which it is refreshed.
    pub(crate) fn refresh_window(&self) -> Duration {
        self.ttl.mul_f64(self.refresh_ahead)
    }

    /// For how long a process may use a key that was withdrawn, if it reaches neither the KMS nor the key store.
    pub(crate) fn serves_for(&self) -> Duration {
        self.ttl.saturating_add(self.longest_stale())
    }

    pub(crate) fn longest_stale(&self) -> Duration {
        self.stale_encrypt.max(self.stale_decrypt)
    }

    /// How far apart the sweeper's rounds are at least. Keys that have their moment close together are taken together.
    pub(crate) fn between_sweeps(&self) -> Duration {
        let shortest = (self.ttl / 100).min(Duration::from_secs(10));
        match self.refresh_window() {
            Duration::ZERO => shortest,
            window => shortest.min(window / LOOKS),
        }
    }

    /// Draws the moment from which a key that expires then is refreshed if it was used. A quarter of the window is left for
    /// a KMS that does not answer at first.
    pub(super) fn refresh_at(&self, expires_at: Duration) -> Duration {
        let ahead = self.refresh_window().mul_f64(1.0 - 0.75 * rand::random::<f64>());
        expires_at.saturating_sub(ahead)
    }

    /// Draws how long a key is left alone after this many tries to refresh it.
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

    /// For how long a KMS that was asked about a key and did not answer need not be asked again before the key may
    /// serve. The background asks again long before that; if it cannot run, requests do.
    pub(super) fn silence_counts_for(&self) -> Duration {
        let background = LONGEST_PAUSE.saturating_add(self.between_sweeps());
        background.saturating_add(self.load_timeout.saturating_mul(2))
    }
}

/// What the failure to unwrap a key that is in memory means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The KMS was not heard about this key: it lives until its time is over.
    Other,
    /// The KMS answered, and said nothing against this key: it lives until its time is over and no longer.
    Quota,
    /// The key may not be used any more.
    Refused,
    /// The KMS was asked and did not answer.
    Unanswered,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            error if error.is_unavailability() => Self::Unanswered,
            Error::Kms(error) if error.kind() == KmsErrorKind::LimitExceeded => Self::Quota,
            // What else may succeed later without a change is about this process or the key store.
            error if error.is_retryable() => Self::Other,
            Error::NoRuntime | Error::Random(_) | Error::ShutDown | Error::Store(_) => Self::Other,
            // No permission, a KEK that is disabled or gone, a wrap that was changed, a rule that forbids it: whatever
            // it is, the key would not be unwrapped today.
            _ => Self::Refused,
        }
    }
}

/// A key whose moment has come.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) entry: Arc<Entry>,
    pub(super) id: DataKeyId,
    /// Tells the key that is there from the one that is to take its place.
    pub(super) expires_at: Duration,
}

impl Due {
    fn records(&self) -> Option<Arc<Records>> {
        self.entry
            .records()
            .filter(|records| records.find(self.id).is_some())
    }

    /// Notes that a KMS which is known not to answer would not have answered. `false` if it can be asked.
    fn is_hopeless(&self, cache: &Cache) -> bool {
        let records = self.records();
        let record = records.as_ref().and_then(|records| records.find(self.id));
        let Some(error) = record.and_then(|record| cache.keks.circuits_open(record)) else {
            return false;
        };
        self.entry.note_failure(cache, self.id, &error);
        true
    }
}

/// Unwraps keys again: one query for those whose rows were read too long ago, then the KMS calls, of which only some are under
/// way at once.
pub(super) async fn refresh(cache: Arc<Cache>, mut due: Vec<Due>) {
    // Without a query, and so at no cost during an outage however many keys there are.
    due.retain(|due| !due.is_hopeless(&cache));
    let unread = due
        .iter()
        .filter(|due| due.records().is_some_and(|records| !cache.is_fresh(&records)));
    let unread: HashMap<_, _> = unread
        .map(|due| (due.entry.scope, Arc::clone(&due.entry)))
        .collect();
    if unread.len() > 1 {
        let unread: Vec<_> = unread.into_values().collect();
        tokio::select! {
            // What it does not bring is read for each key by itself.
            _ = background::read(&cache, &unread) => {}
            () = cache.clock.sleep(cache.limits.load_timeout) => {}
        }
    }
    for due in due {
        let cache_of_task = Arc::clone(&cache);
        let spawned = cache.tasks.spawn(async move {
            // Never closed. Requests must find permits of the KMS too, however many keys are due.
            let permit = cache_of_task.refreshes.acquire().await;
            if due.is_hopeless(&cache_of_task) {
                return;
            }
            let refreshed = cache_of_task
                .refresh_key(&due.entry, due.id, due.expires_at)
                .await;
            drop(permit);
            note_refresh(&cache_of_task, due.id, refreshed);
        });
        if spawned.is_err() {
            return;
        }
    }
}

fn note_refresh(cache: &Cache, id: DataKeyId, refreshed: Result<bool, Error>) {
    match refreshed {
        Ok(true) => cache.counters.count(&cache.counters.refreshes),
        // It is gone, or was refreshed by somebody else.
        Ok(false) => {}
        Err(Error::ShutDown) => {}
        Err(error) => {
            cache.counters.count(&cache.counters.failed_refreshes);
            tracing::warn!(target: "encx::cache", key = %id, %error, "refreshing a key failed");
        }
    }
}
