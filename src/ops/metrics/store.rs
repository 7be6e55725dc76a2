//! Metrics of the key store, published by one process.

use std::collections::BTreeSet;
use std::time::Duration;

use encx_core::key::{KeyState, KeyUsage};
use encx_core::store::{ProcessId, Timestamp};
use metrics::gauge;

use super::as_gauge;
use crate::crypto::Crypto;
use crate::error::Error;
use crate::keys::Maintenance;

/// The publishing process's lease. Not that of rotation: a publisher that held it, and does not rotate, would stop every rotation,
/// and where cron rotates by `encx maintain --once`, no process holds it between the runs.
const LEASE: &str = "maintenance/metrics";

/// How long a process publishes before it must renew the lease. Another process takes over after that.
const TERM: Duration = Duration::from_secs(180);

/// Publishes metrics of the key store, from one of the processes that share it.
///
/// Every process may run this. Only the holder of a lease in the key store publishes, so that sums over processes are
/// right. If the key store has no leases, every process publishes.
///
/// ```
/// # use std::time::Duration;
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::Crypto;
/// use encx::keys::Maintenance;
/// use encx::ops::metrics::StoreGauges;
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let mut gauges = StoreGauges::new(&crypto, &Maintenance::new(crypto.key_manager()));
/// // In a task, once a minute.
/// gauges.record().await?;
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct StoreGauges {
    crypto: Crypto,
    maintenance: Maintenance,
    holder: ProcessId,
    /// The published series, so that they can be withdrawn.
    shown: BTreeSet<(KeyUsage, KeyState)>,
    is_shown: bool,
}

impl StoreGauges {
    /// How often to call [`record`](Self::record): every minute. The lease lasts three.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    /// Prepares to publish. Versions that this [`Maintenance`] would rotate count as due.
    #[must_use]
    pub fn new(crypto: &Crypto, maintenance: &Maintenance) -> Self {
        Self {
            crypto: crypto.clone(),
            maintenance: maintenance.clone(),
            holder: ProcessId::random(),
            shown: BTreeSet::new(),
            is_shown: false,
        }
    }

    /// Publishes metrics of the key store if this process holds the lease; `false` if another does.
    ///
    /// Without the lease, it sets the gauges that this process published earlier to NaN. It does the same if the key
    /// store cannot be reached, so that an alert on missing values fires and no old value hides the outage.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::TimedOut`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn record(&mut self) -> Result<bool, Error> {
        let published = self.publish().await;
        if !matches!(published, Ok(true)) {
            self.take_back();
        }
        let held = if matches!(published, Ok(true)) { 1.0 } else { 0.0 };
        gauge!("encx_store_gauges_held").set(held);
        published
    }

    async fn publish(&mut self) -> Result<bool, Error> {
        let cache = self.crypto.core().cache();
        if let Some(leases) = cache.store.leases() {
            let lease = leases.acquire_lease(LEASE, self.holder, TERM);
            if cache.ask_in_time(lease).await?.is_none() {
                return Ok(false);
            }
        }
        let summary = cache.ask_in_time(cache.store.summary()).await?;
        let due = self.maintenance.due(0).await?;
        let now = self.crypto.key_manager().time_of_store().await?;
        self.is_shown = true;
        let counts = summary.counts.iter();
        self.shown.extend(counts.map(|count| (count.usage, count.state)));
        // Including those that have dropped to zero.
        for (usage, state) in &self.shown {
            versions(*usage, *state, as_gauge(summary.versions(*usage, *state)));
        }
        for usage in KeyUsage::ALL {
            let oldest = summary.oldest_active(usage);
            oldest_active(usage, oldest.map_or(0.0, |since| seconds_since(since, now)));
        }
        gauge!("encx_due_versions").set(as_gauge(due.versions));
        Ok(true)
    }

    fn take_back(&mut self) {
        if !std::mem::take(&mut self.is_shown) {
            return;
        }
        for (usage, state) in std::mem::take(&mut self.shown) {
            versions(usage, state, f64::NAN);
        }
        for usage in KeyUsage::ALL {
            oldest_active(usage, f64::NAN);
        }
        gauge!("encx_due_versions").set(f64::NAN);
    }
}

fn versions(usage: KeyUsage, state: KeyState, count: f64) {
    gauge!("encx_key_versions", "usage" => usage.name(), "state" => state.name()).set(count);
}

fn oldest_active(usage: KeyUsage, seconds: f64) {
    gauge!("encx_oldest_active_seconds", "usage" => usage.name()).set(seconds);
}

fn seconds_since(since: Timestamp, now: Timestamp) -> f64 {
    let micros = now.as_micros().saturating_sub(since.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()
}
