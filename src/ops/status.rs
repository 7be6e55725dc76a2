//! Status: KMSs, KEKs, keys, processes and cost, for people.

use std::time::Duration;

use encx_core::key::{DataKeyId, KekId, KeyState, KeyUsage, KmsName};
use encx_core::kms::KekState;
use encx_core::store::{ProcessId, Timestamp};

use crate::keys::Maintenance;
use crate::ops::health::Health;

/// What is there: KMSs and KEKs, keys, processes, what is due, what it costs.
///
/// From [`Crypto::status`](crate::Crypto::status). What could not be found out says so and hides nothing else.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How well this process works.
    pub health: Health,
    /// The KMSs, and the KEKs that the KEK rule names.
    pub kms: Vec<KmsStatus>,
    /// The cache of this process.
    pub cache: CacheStatus,
    /// The versions in the key store.
    pub versions: Reported<Vec<VersionsStatus>>,
    /// What is due.
    pub due: Reported<DueStatus>,
    /// The processes that share the key store.
    pub processes: Reported<Vec<ProcessStatus>>,
    /// What all processes did, by day.
    pub days: Reported<Vec<DayStatus>>,
    /// What it costs a month.
    pub cost: Reported<CostEstimate>,
}

/// A part of a report.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reported<T> {
    /// It could not be found out.
    Failed {
        /// Why. Never a secret.
        error: String,
    },
    /// It is this.
    Known(T),
    /// The key store does not record it.
    NotRecorded,
}

/// A KMS.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KmsStatus {
    /// The name under which it is registered.
    pub kms: KmsName,
    /// The kind of provider, such as `aws-kms`.
    pub provider: &'static str,
    /// Its KEKs, as far as the KEK rule names them; a closure's are not known.
    pub keks: Vec<KekStatus>,
}

/// A KEK.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KekStatus {
    /// The name in the KEK rule.
    pub named: KekId,
    /// What the KMS says of it.
    pub described: Reported<encx_core::kms::KekDescription>,
}

/// The cache of this process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// Keyrings in memory.
    pub keyrings: u64,
    /// Unwrapped keys in memory.
    pub keys: u64,
    /// Encryptions and decryptions whose key was in memory.
    pub hits: u64,
    /// How often a key had to be waited for.
    pub misses: u64,
    /// The part of both that were hits, from 0 to 1; `None` before the first.
    pub hit_rate: Option<f64>,
}

/// How many versions of one usage are in one state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VersionsStatus {
    /// What they are for.
    pub usage: KeyUsage,
    /// Their state.
    pub state: KeyState,
    /// How many there are.
    pub versions: u64,
    /// Since when the oldest of them has been active; `None` if it never was.
    pub oldest_activated_at: Option<Timestamp>,
}

/// Which versions should have been rotated by now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DueStatus {
    /// How many active versions are due.
    pub versions: u64,
    /// The first of them, at most a hundred.
    pub first: Vec<DataKeyId>,
    /// Whether all versions were looked at.
    pub is_complete: bool,
}

/// A process that shares the key store.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its id.
    pub id: ProcessId,
    /// Its name.
    pub name: String,
    /// How long ago the key store heard of it.
    pub heard_ago: Duration,
}

/// What all processes did on a day.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DayStatus {
    /// When the day began: midnight, UTC.
    pub day: Timestamp,
    /// Values that were encrypted.
    pub encrypts: u64,
    /// Values that were decrypted.
    pub decrypts: u64,
    /// Calls to KMSs.
    pub kms_calls: u64,
}

/// What AWS KMS costs a month, in USD.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CostEstimate {
    /// For the calls, as many as on the days that were counted.
    pub calls_usd: f64,
    /// For the KEKs that the KEK rule names.
    pub keks_usd: f64,
    /// For both.
    pub total_usd: f64,
    /// How many days were counted.
    pub days: u64,
}

/// What a report asks for.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    pub(super) due_by: Option<Maintenance>,
    pub(super) days: u32,
}

impl Default for StatusOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl StatusOptions {
    /// Asks for the last 30 days, and takes versions as due that [`Maintenance`] would rotate by its defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            due_by: None,
            days: 30,
        }
    }

    /// Takes those versions as due that this [`Maintenance`] would rotate.
    #[must_use]
    pub fn due_by(mut self, maintenance: &Maintenance) -> Self {
        self.due_by = Some(maintenance.clone());
        self
    }

    /// Sets for how many days usage is listed and cost is estimated: 1 to 400.
    #[must_use]
    pub fn days(mut self, days: u32) -> Self {
        self.days = days.clamp(1, 400);
        self
    }
}

#[allow(dead_code)]
const _: Option<KekState> = None;
