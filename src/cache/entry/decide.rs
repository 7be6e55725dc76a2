//! Decides what a call does about the key that it needs. Asks nothing, waits for nothing, changes nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use encx_core::key::DataKeyId;
use encx_core::store::KeyRecord;

use super::records::Records;
use super::state::State;
use crate::cache::{CachedKey, Limits, Purpose};
use crate::error::Error;

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Request {
    /// The key that encrypts; with `may_make`, a first one is made if there is none.
    Active { may_make: bool },
    /// The key of this id, to decrypt.
    Key(DataKeyId),
    /// All versions, and no key.
    Versions,
    /// All versions, among them this one, and no key.
    VersionsWith(DataKeyId),
}

/// What a call has done so far about its key.
#[derive(Default)]
pub(in crate::cache) struct SoFar {
    /// The records that it read last, because an entry that the cache has dropped keeps none.
    pub(in crate::cache) records: Option<Arc<Records>>,
    /// Whether it has read the records after it began: then they need not be read again, whatever their age.
    pub(in crate::cache) has_read: bool,
    /// The key that it had unwrapped, because an entry that the cache has dropped keeps none.
    pub(in crate::cache) key: Option<CachedKey>,
    /// Whether it had a key made or unwrapped.
    pub(in crate::cache) has_loaded: bool,
    /// The key that the KMS did not unwrap, because it did not answer.
    pub(in crate::cache) unanswered: Option<(DataKeyId, Error)>,
}

/// What a decision depends on besides the entry.
#[derive(Clone, Copy)]
pub(in crate::cache) struct Surroundings<'a> {
    pub(in crate::cache) limits: &'a Limits,
    /// The clock's time.
    pub(in crate::cache) now: Duration,
    /// When the last successful poll of the key store began.
    pub(in crate::cache) polled_at: Duration,
    pub(in crate::cache) is_store_unreachable: bool,
    /// Whether the key store was asked for the requested id a moment ago, and does not have it.
    pub(in crate::cache) is_unknown: bool,
}

/// What a call does next.
pub(in crate::cache) enum Decision {
    /// It goes on with this.
    Use(Found),
    /// It loads this, and decides again.
    Load(Load),
    /// It fails.
    Refuse(Why, Error),
}

/// What a call needed.
#[derive(Clone)]
pub(in crate::cache) struct Found {
    pub(in crate::cache) records: Arc<Records>,
    /// `None` if the call needs no key.
    pub(in crate::cache) key: Option<CachedKey>,
    /// Whether the states are older than `state_ttl`, because the key store is unreachable.
    pub(in crate::cache) are_states_stale: bool,
}

/// What a call has to wait for.
#[derive(Clone, Debug)]
pub(in crate::cache) enum Load {
    /// A first version, which this process makes.
    FirstVersion,
    /// A key, which the KMS unwraps.
    Key(Arc<KeyRecord>),
    /// The records, which the key store returns; `again` if some are known that do not suffice.
    Records { again: bool },
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Why {
    /// The key store has lost a version under which this process encrypted.
    Lost,
    /// No version is active.
    NoneActive,
    /// The states are too old, and the builder forbids using them.
    StaleStates,
    /// The state of the version forbids it.
    State,
    /// The KMS did not answer, and no cached key may serve.
    Unanswered,
    /// There is no such version.
    Unknown,
}

/// How far the known states of keys can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Trust {
    /// The key store must be asked.
    Ask,
    /// They are recent enough.
    Current,
    /// They are too old, and the builder forbids using them.
    Refuse,
    /// They are too old, but the key store is unreachable.
    Stale,
}

impl Request {
    /// Returns the requested id.
    pub(in crate::cache) fn id(self) -> Option<DataKeyId> {
        match self {
            Self::Key(id) | Self::VersionsWith(id) => Some(id),
            Self::Active { .. } | Self::Versions => None,
        }
    }
}

impl Surroundings<'_> {
    /// Returns how far states that were read at `known_at` can be trusted now.
    pub(in crate::cache) fn trust(&self, known_at: Duration) -> Trust {
        let age = self.now.saturating_sub(known_at.max(self.polled_at));
        if age <= self.limits.state_ttl {
            Trust::Current
        } else if !self.is_store_unreachable {
            Trust::Ask
        } else if self.limits.fail_closed_on_stale_state {
            Trust::Refuse
        } else if age > self.limits.ttl {
            // Not forever: the KMS does not know that a key was suspended.
            Trust::Ask
        } else {
            Trust::Stale
        }
    }

    /// Tells whether records were read recently enough to unwrap by them.
    ///
    /// Polls do not suffice here. They list no row that was deleted or edited by hand, and only check the rows of
    /// cached keys. While the key store is unreachable, the known records are used.
    pub(in crate::cache) fn is_fresh(&self, records: &Records) -> bool {
        self.now.saturating_sub(records.read_at) <= self.limits.state_ttl || self.is_store_unreachable
    }
}

impl State {
    /// Decides what a call does next about its key.
    pub(super) fn decide(&self, request: Request, so_far: &SoFar, around: &Surroundings<'_>) -> Decision {
        // What it read itself may have become too old since.
        let own = so_far.records.as_ref().filter(|own| own.tick >= self.not_before);
        let Some(records) = self.records.as_ref().or(own) else {
            return Decision::Load(Load::Records { again: false });
        };
        let again = Decision::Load(Load::Records { again: true });
        let trust = match around.trust(records.read_at) {
            Trust::Ask if so_far.has_read => Trust::Current,
            trust => trust,
        };
        match trust {
            Trust::Ask => return again,
            Trust::Refuse => return Decision::Refuse(Why::StaleStates, Error::StaleState),
            Trust::Current | Trust::Stale => {}
        }
        let is_fresh = so_far.has_read || around.is_fresh(records);
        let refuse_if_fresh = |why, error| match is_fresh {
            true => Decision::Refuse(why, error),
            false => Decision::Load(Load::Records { again: true }),
        };
        let found = |key| {
            Decision::Use(Found {
                records: Arc::clone(records),
                key,
                are_states_stale: trust == Trust::Stale,
            })
        };
        let (record, purpose) = match request {
            // Rows that were lost may have been restored, which no poll lists.
            Request::Versions if records.active().is_err() && !is_fresh => return again,
            Request::Versions => return found(None),
            Request::Active { may_make } => match records.active() {
                Ok(Some(record)) => (record, Purpose::Encrypt),
                Ok(None) if records.is_empty() && may_make => return Decision::Load(Load::FirstVersion),
                // Another process may have just made it.
                Ok(None) if records.is_empty() && !so_far.has_read => return again,
                Ok(None) => return Decision::Refuse(Why::NoneActive, records.why_none_is_active()),
                Err(error) => return refuse_if_fresh(Why::Lost, error),
            },
            Request::Key(id) | Request::VersionsWith(id) => match records.find(id) {
                Some(_) if matches!(request, Request::VersionsWith(_)) => return found(None),
                Some(record) => (record, Purpose::Decrypt),
                // Another process may have just made it.
                None if !so_far.has_read && !around.is_unknown => return again,
                None => return Decision::Refuse(Why::Unknown, records.why_unknown(id)),
            },
        };
        if purpose == Purpose::Decrypt
            && let Err(error) = records.check_opens(record, around.limits)
        {
            return refuse_if_fresh(Why::State, error);
        }
        let cached = self.find(record.id);
        let serves = |key: &&CachedKey| key.serves(purpose, around.now, around.limits);
        if let Some(key) = cached.filter(serves) {
            return found(Some(key.clone()));
        }
        // However short its time to live is, a key serves the call that waited for it.
        if let Some(key) = so_far.key.as_ref().filter(|key| key.id == record.id) {
            return found(Some(key.clone()));
        }
        if !is_fresh {
            return again;
        }
        match &so_far.unanswered {
            Some((id, error)) if *id == record.id => Decision::Refuse(Why::Unanswered, error.clone()),
            _ => Decision::Load(Load::Key(Arc::clone(record))),
        }
    }
}

impl Records {
    /// Checks that a version may decrypt, and that the key store still has its wraps.
    fn check_opens(&self, record: &KeyRecord, limits: &Limits) -> Result<(), Error> {
        if self.is_shredded() {
            return Err(Error::Shredded);
        }
        limits.check_decrypts(record)?;
        if record.lacks_wraps() {
            let id = record.id;
            return Err(Error::RolledBack {
                found: Some(id),
                used: id,
            });
        }
        Ok(())
    }

    /// Tells whether a version may be used for this.
    pub(in crate::cache) fn allows(&self, id: DataKeyId, purpose: Purpose, limits: &Limits) -> bool {
        match purpose {
            Purpose::Encrypt => self
                .active()
                .is_ok_and(|active| active.is_some_and(|active| active.id == id)),
            Purpose::Decrypt => self
                .find(id)
                .is_some_and(|record| self.check_opens(record, limits).is_ok()),
        }
    }
}

impl Why {
    /// Tells whether the key itself is the reason, and not an outage.
    pub(in crate::cache) fn is_of_the_key(self) -> bool {
        !matches!(self, Self::StaleStates | Self::Unanswered)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the key store has lost the key to encrypt with",
            Self::NoneActive => "there is no key to encrypt with",
            Self::StaleStates => "the states of keys are too old",
            Self::State => "the state of the key forbids its use",
            Self::Unanswered => "the KMS did not answer, and no cached key may serve",
            Self::Unknown => "no such key in this context",
        })
    }
}

#[cfg(test)]
mod tests;
