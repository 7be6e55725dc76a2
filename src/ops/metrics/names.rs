//! The names of the metrics, and what they mean.

use encx_core::kms::KmsOperation;
use metrics::{Unit, describe_counter, describe_gauge};

/// A metric that encx publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// The labels that it has.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It grows for as long as the process lives.
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

/// All metrics, in the order of their names.
pub const ALL: [Metric; 23] = [
    counter("encx_cache_hits_total", &[], "Uses of a key that was in memory."),
    counter(
        "encx_cache_misses_total",
        &[],
        "How often a key had to be waited for.",
    ),
    gauge(
        "encx_due_versions",
        &[],
        "Active versions that should have been rotated by now. From one process of all.",
    ),
    counter(
        "encx_failed_polls_total",
        &[],
        "Polls of the key store for changes that failed.",
    ),
    gauge(
        "encx_health",
        &["status"],
        "1 for the status that the process has, up, degraded or down; 0 for the others.",
    ),
    counter(
        "encx_job_items_total",
        &["outcome"],
        "Items that jobs of this process went through, dry runs not counted.",
    ),
    gauge(
        "encx_key_versions",
        &["usage", "state"],
        "Versions in the key store. From one process of all.",
    ),
    gauge("encx_keyrings", &[], "Keyrings in memory."),
    gauge("encx_keys", &[], "Unwrapped keys in memory."),
    counter(
        "encx_kms_call_seconds_bucket",
        &["kms", "operation", "le"],
        "Calls to a KMS that took no longer than this.",
    ),
    counter(
        "encx_kms_call_seconds_count",
        &["kms", "operation"],
        "Calls to a KMS whose time was measured.",
    ),
    gauge(
        "encx_kms_call_seconds_sum",
        &["kms", "operation"],
        "How long calls to a KMS took together.",
    ),
    counter(
        "encx_kms_calls_total",
        &["kms", "operation", "outcome"],
        "Calls to a KMS.",
    ),
    gauge(
        "encx_kms_circuit_open",
        &["kms"],
        "1 while calls to a KMS fail at once because it did not answer; 0 else.",
    ),
    counter(
        "encx_kms_circuit_openings_total",
        &["kms"],
        "How often the circuit of a KMS opened.",
    ),
    gauge(
        "encx_oldest_active_seconds",
        &["usage"],
        "For how long the oldest active version has been active. From one process of all.",
    ),
    counter(
        "encx_operations_total",
        &["operation"],
        "Values that were encrypted or decrypted, or refused although there was a key.",
    ),
    gauge(
        "encx_poll_lag_seconds",
        &[],
        "How long ago the last poll of the key store that succeeded began.",
    ),
    counter(
        "encx_refreshes_total",
        &["outcome"],
        "Keys that were unwrapped again in the background, and tries of that which failed.",
    ),
    counter("encx_refusals_total", &["kind"], "Ciphertexts that were refused."),
    counter(
        "encx_stale_serves_total",
        &["what"],
        "Uses of a key whose state was too old, or that was past its time, during an outage.",
    ),
    gauge(
        "encx_store_gauges_held",
        &[],
        "1 in the process that publishes what is in the key store; 0 in the others that try.",
    ),
    counter(
        "encx_store_loads_total",
        &[],
        "Reads of keys from the key store, polls not counted.",
    ),
];

/// Gives the recorder the descriptions of all metrics: call it once, after the recorder was installed.
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
