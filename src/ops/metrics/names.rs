//! The names and descriptions of the metrics.

use encx_core::kms::KmsOperation;
use metrics::{Unit, describe_counter, describe_gauge};

/// A metric that encx publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a counter or a gauge.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its description.
    pub help: &'static str,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows while the process lives.
    Counter,
    /// It goes up and down.
    Gauge,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    let kind = MetricKind::Counter;
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    let kind = MetricKind::Gauge;
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

/// All metrics, sorted by name.
pub const ALL: [Metric; 23] = [
    counter("encx_cache_hits_total", &[], "Uses of a cached key."),
    counter("encx_cache_misses_total", &[], "Uses that waited for a key."),
    gauge(
        "encx_due_versions",
        &[],
        "Active versions that should have been rotated by now. Published by one process.",
    ),
    counter(
        "encx_failed_polls_total",
        &[],
        "Failed polls of the key store for changes.",
    ),
    gauge(
        "encx_health",
        &["status"],
        "1 for the current status of the process (up, degraded or down), 0 for the others.",
    ),
    counter(
        "encx_job_items_total",
        &["outcome"],
        "Items processed by jobs of this process, without dry runs.",
    ),
    gauge(
        "encx_key_versions",
        &["usage", "state"],
        "Versions in the key store. Published by one process.",
    ),
    gauge("encx_keyrings", &[], "Cached keyrings."),
    gauge("encx_keys", &[], "Cached unwrapped keys."),
    counter(
        "encx_kms_call_seconds_bucket",
        &["kms", "operation", "le"],
        "Calls to a KMS that took no longer than this.",
    ),
    counter(
        "encx_kms_call_seconds_count",
        &["kms", "operation"],
        "Measured calls to a KMS.",
    ),
    gauge(
        "encx_kms_call_seconds_sum",
        &["kms", "operation"],
        "Total time of calls to a KMS.",
    ),
    counter(
        "encx_kms_calls_total",
        &["kms", "operation", "outcome"],
        "Calls to a KMS.",
    ),
    gauge(
        "encx_kms_circuit_open",
        &["kms"],
        "1 while the circuit breaker of a KMS is not closed, 0 otherwise.",
    ),
    counter(
        "encx_kms_circuit_openings_total",
        &["kms"],
        "Times the circuit breaker of a KMS opened.",
    ),
    gauge(
        "encx_oldest_active_seconds",
        &["usage"],
        "Age of the oldest active version since it became active. Published by one process.",
    ),
    counter(
        "encx_operations_total",
        &["operation"],
        "Values encrypted or decrypted, including those refused although their key was found.",
    ),
    gauge(
        "encx_poll_lag_seconds",
        &[],
        "Time since the last successful poll of the key store began.",
    ),
    counter(
        "encx_refreshes_total",
        &["outcome"],
        "Background refreshes of cached keys by the KMS, and failed tries.",
    ),
    counter("encx_refusals_total", &["kind"], "Refused ciphertexts."),
    counter(
        "encx_stale_serves_total",
        &["what"],
        "Uses of an expired key or a stale key state during an outage.",
    ),
    gauge(
        "encx_store_gauges_held",
        &[],
        "1 in the process that publishes the key store's metrics, 0 in the other candidates.",
    ),
    counter(
        "encx_store_loads_total",
        &[],
        "Reads of keys from the key store, without polls.",
    ),
];

/// Describes all metrics to the recorder. Call it once, after the recorder was installed.
pub fn describe() {
    for metric in ALL {
        let unit = if metric.name.contains("_seconds")
            && !metric.name.ends_with("_bucket")
            && !metric.name.ends_with("_count")
        {
            Unit::Seconds
        } else {
            Unit::Count
        };
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, unit, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, unit, metric.help),
        }
    }
}

/// The operations of a KMS, and their names.
pub(super) const OPERATIONS: [(KmsOperation, &str); 5] = [
    (KmsOperation::DescribeKek, "describe_kek"),
    (KmsOperation::GenerateDataKey, "generate_data_key"),
    (KmsOperation::RewrapKey, "rewrap_key"),
    (KmsOperation::UnwrapKey, "unwrap_key"),
    (KmsOperation::WrapKey, "wrap_key"),
];
