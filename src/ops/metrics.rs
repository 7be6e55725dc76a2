//! Metrics for Prometheus and similar systems, through the `metrics` facade.
//!
//! [`record`] publishes the counts of [`Crypto::stats`] when it is called; nothing is counted twice. Call it before the
//! exporter renders, and [`StoreGauges::record`] periodically in the background. [`ALL`] lists names and labels. Labels
//! have few values, and none is a tenant. `docs/operations.md` has queries and alerts.
//!
//! ```
//! # use encx_testkit::{MemoryKeyStore, MemoryKms};
//! # use encx::Crypto;
//! # encx_testkit::block_on(async {
//! # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
//! // Once, after the recorder was installed.
//! encx::ops::metrics::describe();
//! // In the handler of `/metrics`.
//! encx::ops::metrics::record(&crypto);
//! # Ok::<(), encx::Error>(())
//! # }).unwrap();
//! ```

mod names;
mod store;

use std::time::Duration;

use metrics::{SharedString, counter, gauge};

use crate::cache::Stats;
use crate::crypto::Crypto;
use crate::jobs;
use crate::kek::{CircuitState, KmsOutcome, KmsStats, LatencyStats};
use crate::ops::health::{Health, HealthStatus};

pub use names::{ALL, Metric, MetricKind, describe};
pub use store::StoreGauges;

/// Publishes the counts of a `Crypto` so far, and its cache size. Calls neither a KMS nor the key store.
///
/// Counters are set, not added to: if a process has several `Crypto`s, publish only one.
pub fn record(crypto: &Crypto) {
    let stats = crypto.stats();
    record_use(&stats);
    for kms in &stats.kms {
        record_kms(kms);
    }
    record_health(&crypto.health());
    let serving = crypto.core().cache().serving();
    gauge!("encx_poll_lag_seconds").set(serving.states_age.as_secs_f64());
    let items = jobs::items_of_this_process();
    for (outcome, count) in [
        ("changed", items.changed),
        ("failed", items.failed),
        ("unchanged", items.unchanged),
    ] {
        counter!("encx_job_items_total", "outcome" => outcome).absolute(count);
    }
}

fn record_use(stats: &Stats) {
    counter!("encx_operations_total", "operation" => "encrypt").absolute(stats.encrypts);
    counter!("encx_operations_total", "operation" => "decrypt").absolute(stats.decrypts);
    let refused = stats.refused;
    for (kind, count) in [
        ("authentication", refused.authentication),
        ("key_row", refused.key_row),
        ("key_state", refused.key_state),
        ("suite", refused.suite),
        ("unknown_key", refused.unknown_key),
    ] {
        counter!("encx_refusals_total", "kind" => kind).absolute(count);
    }
    counter!("encx_cache_hits_total").absolute(stats.hits);
    counter!("encx_cache_misses_total").absolute(stats.misses);
    counter!("encx_refreshes_total", "outcome" => "ok").absolute(stats.refreshes);
    counter!("encx_refreshes_total", "outcome" => "failed").absolute(stats.failed_refreshes);
    counter!("encx_stale_serves_total", "what" => "state").absolute(stats.stale_serves);
    counter!("encx_stale_serves_total", "what" => "key").absolute(stats.stale_key_serves);
    counter!("encx_store_loads_total").absolute(stats.store_loads);
    counter!("encx_failed_polls_total").absolute(stats.failed_polls);
    gauge!("encx_keyrings").set(as_gauge(stats.keyrings));
    gauge!("encx_keys").set(as_gauge(stats.keys));
}

fn record_kms(stats: &KmsStats) {
    let kms = SharedString::from(stats.kms.to_string());
    let open = if stats.circuit == CircuitState::Closed {
        0.0
    } else {
        1.0
    };
    gauge!("encx_kms_circuit_open", "kms" => kms.clone()).set(open);
    counter!("encx_kms_circuit_openings_total", "kms" => kms.clone()).absolute(stats.circuit_openings);
    for (operation, name) in names::OPERATIONS {
        let of = stats.of(operation);
        // Including 0: Prometheus sees no increase in a series that starts at 1.
        for outcome in KmsOutcome::ALL {
            counter!(
                "encx_kms_calls_total",
                "kms" => kms.clone(), "operation" => name, "outcome" => outcome.name()
            )
            .absolute(of.count(outcome));
        }
        // A Prometheus histogram, bucket by bucket: the facade takes single values, but these are already counted.
        let mut up_to = 0;
        let bounds = LatencyStats::BOUNDS.iter().map(|bound| bound_name(*bound));
        for (count, bound) in of.latency.buckets.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            up_to += count;
            counter!(
                "encx_kms_call_seconds_bucket",
                "kms" => kms.clone(), "operation" => name, "le" => bound
            )
            .absolute(up_to);
        }
        let labels = [("kms", kms.clone()), ("operation", name.into())];
        counter!("encx_kms_call_seconds_count", &labels).absolute(up_to);
        gauge!("encx_kms_call_seconds_sum", &labels).set(of.latency.sum.as_secs_f64());
    }
}

fn record_health(health: &Health) {
    for (status, name) in [
        (HealthStatus::Up, "up"),
        (HealthStatus::Degraded, "degraded"),
        (HealthStatus::Down, "down"),
    ] {
        let is_so = if health.status == status { 1.0 } else { 0.0 };
        gauge!("encx_health", "status" => name).set(is_so);
    }
}

/// Formats a bucket's bound in seconds, as Prometheus does.
fn bound_name(bound: Duration) -> String {
    bound.as_secs_f64().to_string()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are floats, and these counts are small"
)]
fn as_gauge(count: u64) -> f64 {
    count as f64
}
