//! Status: KMSs, KEKs, keys, processes and cost, for people.

use std::collections::BTreeSet;
use std::time::Duration;

use encx_core::key::{KekId, KeyState, KeyUsage, KmsName};
use encx_core::kms::KekDescription;
use encx_core::store::{Counted, DailyCounts, KeySummary, ProcessId, Timestamp};

use crate::cache::Stats;
use crate::crypto::Crypto;
use crate::kek::{CircuitState, KekRef};
use crate::keys::{DueVersion, Maintenance};
use crate::ops::cost::{CostEstimate, is_billed};
use crate::ops::health::Health;
#[cfg(feature = "serde")]
use crate::ops::json;
use crate::ops::reported::Reported;

/// KMSs and KEKs, keys, processes, due rotations and cost.
///
/// From [`Crypto::status`](crate::Crypto::status). A part that could not be read says so, and hides no other part.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::Crypto;
/// use encx::ops::{Reported, StatusOptions};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let status = crypto.status(&StatusOptions::new()).await;
/// for kek in status.kms.iter().flat_map(|kms| &kms.keks) {
///     match &kek.description {
///         Reported::Known(described) => println!("{}: {:?}", kek.name, described.state),
///         unknown => println!("{}: {unknown:?}", kek.name),
///     }
/// }
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The health of this process.
    pub health: Health,
    /// The KMSs, and the KEKs in the KEK rule.
    pub kms: Vec<KmsStatus>,
    /// The cache of this process.
    pub cache: CacheStatus,
    /// The versions in the key store, by usage and state.
    pub versions: Reported<Vec<VersionsStatus>>,
    /// How many more versions there are, in rows whose usage or state encx does not know.
    pub unreadable_versions: Reported<u64>,
    /// The versions that are due for rotation.
    pub due: Reported<DueStatus>,
    /// The processes that share the key store.
    pub processes: Reported<Vec<ProcessStatus>>,
    /// The activity of all processes, by day, oldest first.
    pub days: Reported<Vec<DayStatus>>,
    /// The cost of the KMSs.
    pub cost: Reported<CostEstimate>,
}

/// A KMS.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KmsStatus {
    /// The name under which it is registered.
    #[cfg_attr(feature = "serde", serde(rename = "name", serialize_with = "json::text"))]
    pub kms: KmsName,
    /// The kind of provider, such as `aws-kms`.
    pub provider: &'static str,
    /// Whether the circuit breaker lets calls through.
    pub circuit: CircuitState,
    /// Its KEKs that the KEK rule names; a closure's are not known.
    pub keks: Vec<KekStatus>,
}

/// A KEK.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KekStatus {
    /// The name in the KEK rule.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))]
    pub name: KekId,
    /// The KMS's description of it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::description"))]
    pub description: Reported<KekDescription>,
}

/// The cache of this process, since it started.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CacheStatus {
    /// Cached keyrings.
    pub keyrings: u64,
    /// Cached unwrapped keys.
    pub keys: u64,
    /// Uses of a cached key.
    pub hits: u64,
    /// Uses that waited for a key.
    pub misses: u64,
    /// Hits divided by hits and misses, from 0 to 1; `None` before the first use.
    pub hit_rate: Option<f64>,
}

/// The versions of one usage and state.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VersionsStatus {
    /// Their usage.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::usage"))]
    pub usage: KeyUsage,
    /// Their state.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))]
    pub state: KeyState,
    /// Their number.
    pub versions: u64,
    /// When the oldest of them became active; `None` if none did.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::moment_of"))]
    pub oldest_activated_at: Option<Timestamp>,
}

/// Versions that should have been rotated by now.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DueStatus {
    /// How many versions are due.
    pub versions: u64,
    /// How many rows of active versions have a usage or context that cannot be read.
    pub unreadable: u64,
    /// The first of them.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::due"))]
    pub first: Vec<DueVersion>,
}

/// A process that shares the key store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its id.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))]
    pub id: ProcessId,
    /// Its name.
    pub name: String,
    /// When it was first seen.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::moment"))]
    pub started_at: Timestamp,
    /// When it was last seen.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::moment"))]
    pub seen_at: Timestamp,
}

/// The activity of all processes on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DayStatus {
    /// When the day began: midnight, UTC.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::day"))]
    pub day: Timestamp,
    /// Encrypted values.
    pub encrypts: u64,
    /// Decrypted values.
    pub decrypts: u64,
    /// Uses of a cached key.
    pub hits: u64,
    /// Uses that waited for a key.
    pub misses: u64,
    /// Refused ciphertexts.
    pub refusals: u64,
    /// Calls to KMSs, including failed ones.
    pub kms_calls: u64,
    /// Failed calls to KMSs.
    pub kms_failures: u64,
}

/// Options of a status report.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    due_by: Option<Maintenance>,
    days: u32,
}

impl Default for StatusOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl StatusOptions {
    /// Reports the last 30 days, and counts versions as due that [`Maintenance`] would rotate by default.
    #[must_use]
    pub fn new() -> Self {
        Self {
            due_by: None,
            days: 30,
        }
    }

    /// Counts versions as due that this [`Maintenance`] would rotate.
    #[must_use]
    pub fn due_by(mut self, maintenance: &Maintenance) -> Self {
        self.due_by = Some(maintenance.clone());
        self
    }

    /// Sets how many days of activity are listed and used to estimate cost: 1 to 400.
    #[must_use]
    pub fn days(mut self, days: u32) -> Self {
        self.days = days.clamp(1, 400);
        self
    }
}

/// The maximum number of due versions listed.
const LISTED: usize = 100;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads each part.
pub(super) async fn status(crypto: &Crypto, options: &StatusOptions) -> Status {
    let kms = kms_status(crypto).await;
    let days = daily(crypto, options.days).await;
    let billed = kms.iter().filter(|kms| is_billed(kms.provider));
    let is_billed = billed.clone().next().is_some();
    // A rule may name one KEK twice, by an alias and by its id.
    let lasting = |kek: &'_ KekStatus| match kek.description.known() {
        Some(described) => described.kek.clone(),
        None => kek.name.clone(),
    };
    let keks: BTreeSet<_> = billed.flat_map(|kms| &kms.keks).map(lasting).collect();
    let keks = keks.len();
    let cost = days.clone().map(|days| {
        let calls: Vec<_> = days.iter().map(|day| day.kms_calls).collect();
        CostEstimate::new(is_billed, keks, &calls)
    });
    let cache = crypto.core().cache();
    let summary = Reported::of(cache.ask_in_time(cache.store.summary()).await);
    Status {
        health: crypto.health(),
        kms,
        cache: CacheStatus::of(&crypto.stats()),
        unreadable_versions: summary.clone().map(|summary| summary.unreadable),
        versions: summary.map(versions),
        due: due_status(crypto, options.due_by.as_ref()).await,
        processes: process_status(crypto).await,
        days,
        cost,
    }
}

async fn kms_status(crypto: &Crypto) -> Vec<KmsStatus> {
    let keks = &crypto.core().cache().keks;
    let mut named: Vec<&KekRef> = keks.rule().named().collect();
    named.sort_unstable();
    named.dedup();
    let mut all = Vec::new();
    for kms in keks.known() {
        let mut of_kms = Vec::new();
        for kek in named.iter().filter(|kek| kek.kms == kms.name) {
            of_kms.push(KekStatus {
                name: kek.kek.clone(),
                description: Reported::of(keks.describe_now(kek).await),
            });
        }
        all.push(KmsStatus {
            kms: kms.name,
            provider: kms.provider,
            circuit: kms.circuit,
            keks: of_kms,
        });
    }
    all
}

async fn due_status(crypto: &Crypto, by: Option<&Maintenance>) -> Reported<DueStatus> {
    let default = || Maintenance::new(crypto.key_manager());
    let due = by.cloned().unwrap_or_else(default).due(LISTED).await;
    Reported::of(due).map(|due| DueStatus {
        versions: due.versions,
        unreadable: due.unreadable,
        first: due.first,
    })
}

async fn process_status(crypto: &Crypto) -> Reported<Vec<ProcessStatus>> {
    let cache = crypto.core().cache();
    let Some(registry) = cache.store.processes() else {
        return Reported::NotRecorded;
    };
    let list = cache.ask_in_time(registry.list_processes()).await;
    Reported::of(list).map(|list| {
        let processes = list.processes.into_iter().map(|process| ProcessStatus {
            id: process.info.id,
            name: process.info.name,
            started_at: process.started_at,
            seen_at: process.seen_at,
        });
        processes.collect()
    })
}

fn versions(summary: KeySummary) -> Vec<VersionsStatus> {
    let counts = summary.counts.into_iter().map(|count| VersionsStatus {
        usage: count.usage,
        state: count.state,
        versions: count.versions,
        oldest_activated_at: count.first_activated_at,
    });
    counts.collect()
}

async fn daily(crypto: &Crypto, days: u32) -> Reported<Vec<DayStatus>> {
    let cache = crypto.core().cache();
    let Some(registry) = cache.store.processes() else {
        return Reported::NotRecorded;
    };
    let counted = async {
        let now = crypto.key_manager().time_of_store().await?;
        // Today is included.
        let since = now.minus(DAY.saturating_mul(days.saturating_sub(1)));
        cache.ask_in_time(registry.daily_counts(since)).await
    };
    let counted = counted.await;
    Reported::of(counted).map(|days| days.iter().map(DayStatus::of).collect())
}

impl DayStatus {
    fn of(counted: &DailyCounts) -> Self {
        let get = |what| counted.counts.get(what);
        let of_kms = |is: fn(Counted) -> bool| {
            let counts = counted.counts.iter().filter(|(what, _)| is(*what));
            counts.map(|(_, count)| count).fold(0, u64::saturating_add)
        };
        Self {
            day: counted.day,
            encrypts: get(Counted::Encrypts),
            decrypts: get(Counted::Decrypts),
            hits: get(Counted::Hits),
            misses: get(Counted::Misses),
            refusals: get(Counted::Refusals),
            kms_calls: of_kms(|what| matches!(what, Counted::KmsCalls(_))),
            kms_failures: of_kms(|what| matches!(what, Counted::KmsFailures(_))),
        }
    }
}

impl CacheStatus {
    fn of(stats: &Stats) -> Self {
        let lookups = stats.hits.saturating_add(stats.misses);
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let hit_rate = (lookups > 0).then(|| stats.hits as f64 / lookups as f64);
        Self {
            keyrings: stats.keyrings,
            keys: stats.keys,
            hits: stats.hits,
            misses: stats.misses,
            hit_rate,
        }
    }
}
