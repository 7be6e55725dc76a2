//! Permanent names of the KEKs in a rule: a rule may name a KEK by an alias, a row never does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use encx_core::key::KekId;

use crate::error::Error;
use crate::kek::KekRef;

/// How long an answer of the KMS is used. A moved alias takes effect within this time.
const FRESH: Duration = Duration::from_secs(60);

/// How long the last answer is used while the KMS does not answer.
const STALE: Duration = Duration::from_secs(60 * 60);

/// How long a refusal is remembered, so that rows that match no KEK cannot flood the KMS.
const REFUSED: Duration = Duration::from_secs(5);

/// The permanent names of the KEKs in a rule, as far as the KMS reported them.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<KekRef, Known>>);

#[derive(Debug, Default)]
struct Known {
    name: Option<(KekId, Duration)>,
    refused: Option<(Error, Duration)>,
}

impl Names {
    /// Returns a name that the KMS reported a moment ago.
    pub(super) fn fresh(&self, kek: &KekRef, now: Duration) -> Option<KekId> {
        self.not_older(kek, now, FRESH)
    }

    /// Returns a name to use while the KMS does not answer.
    pub(super) fn stale(&self, kek: &KekRef, now: Duration) -> Option<KekId> {
        self.not_older(kek, now, STALE)
    }

    /// Returns the last name that the KMS reported, however old.
    pub(super) fn last(&self, kek: &KekRef) -> Option<KekId> {
        self.not_older(kek, Duration::ZERO, Duration::MAX)
    }

    /// Returns a recent refusal.
    pub(super) fn refused(&self, kek: &KekRef, now: Duration) -> Option<Error> {
        let known = self.known();
        let (error, at) = known.get(kek)?.refused.as_ref()?;
        (now.saturating_sub(*at) < REFUSED).then(|| error.clone())
    }

    /// Stores a name that the KMS has just reported.
    pub(super) fn learn(&self, kek: &KekRef, name: &KekId, now: Duration) {
        let known = Known {
            name: Some((name.clone(), now)),
            refused: None,
        };
        self.known().insert(kek.clone(), known);
    }

    /// Remembers that the KMS refused.
    pub(super) fn refuse(&self, kek: &KekRef, error: &Error, now: Duration) {
        self.known().entry(kek.clone()).or_default().refused = Some((error.clone(), now));
    }

    fn not_older(&self, kek: &KekRef, now: Duration, age: Duration) -> Option<KekId> {
        let known = self.known();
        let (name, at) = known.get(kek)?.name.as_ref()?;
        (now.saturating_sub(*at) < age).then(|| name.clone())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<KekRef, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
