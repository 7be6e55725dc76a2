//! The published metrics: their values, and the names that documentation, alerts and dashboards use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ::metrics as facade;
use encx::Crypto;
use encx::keys::{KeyState, Maintenance};
use encx::ops::metrics::{self, MetricKind, StoreGauges};
use encx::store::{KeyStore as _, ProcessId};
use encx_test_support::{FaultHarness, HOUR, MINUTE, SSN, context, open, seal, within};
use facade::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The kind and the labels of each name.
type Kinds = BTreeMap<String, (MetricKind, Vec<String>)>;

/// Keeps what is published: name and labels, and the last value.
#[derive(Clone, Debug, Default)]
struct Kept {
    values: Arc<Mutex<BTreeMap<String, f64>>>,
    kinds: Arc<Mutex<Kinds>>,
    described: Arc<Mutex<BTreeSet<String>>>,
}

struct Slot(Kept, String);

impl Slot {
    fn set(&self, value: f64) {
        self.0.values.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl CounterFn for Slot {
    fn increment(&self, _: u64) {
        panic!("counters are set, not added to");
    }

    fn absolute(&self, value: u64) {
        self.set(f64::from(u32::try_from(value).unwrap()));
    }
}

impl GaugeFn for Slot {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        Slot::set(self, value);
    }
}

impl Kept {
    fn slot(&self, key: &Key, kind: MetricKind) -> Arc<Slot> {
        let mut labels: Vec<_> = key.labels().map(|label| label.key().to_owned()).collect();
        let text: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        self.kinds
            .lock()
            .unwrap()
            .insert(key.name().to_owned(), (kind, labels));
        Arc::new(Slot(
            self.clone(),
            format!("{}{{{}}}", key.name(), text.join(",")),
        ))
    }

    fn get(&self, series: &str) -> f64 {
        let values = self.values.lock().unwrap();
        *values
            .get(series)
            .unwrap_or_else(|| panic!("{series} is not among {:?}", values.keys()))
    }

    fn names(&self) -> BTreeSet<String> {
        self.kinds.lock().unwrap().keys().cloned().collect()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(name.as_str().to_owned());
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(name.as_str().to_owned());
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key, MetricKind::Counter))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key, MetricKind::Gauge))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{key} would count single values again")
    }
}

#[tokio::test]
async fn what_is_published_is_what_was_counted() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let mine = context("secret-tenant");
    let sealed = seal(&process, &mine).await;
    open(&process, &mine, &sealed).await.unwrap();
    within(process.decrypt(&mine, &sealed, SSN.row(2)))
        .await
        .unwrap_err();
    let kept = Kept::default();
    facade::with_local_recorder(&kept, || metrics::record(&process));
    assert_eq!(kept.get("encx_operations_total{operation=encrypt}"), 1.0);
    assert_eq!(kept.get("encx_operations_total{operation=decrypt}"), 2.0);
    assert_eq!(kept.get("encx_refusals_total{kind=authentication}"), 1.0);
    assert_eq!(kept.get("encx_refusals_total{kind=key_row}"), 0.0);
    assert_eq!(kept.get("encx_cache_hits_total{}"), 2.0);
    assert_eq!(kept.get("encx_cache_misses_total{}"), 1.0);
    assert_eq!(kept.get("encx_keys{}"), 1.0);
    assert_eq!(kept.get("encx_health{status=up}"), 1.0);
    assert_eq!(kept.get("encx_health{status=down}"), 0.0);
    let calls = |outcome: &str| {
        kept.get(&format!(
            "encx_kms_calls_total{{kms=default,operation=generate_data_key,outcome={outcome}}}"
        ))
    };
    assert_eq!((calls("ok"), calls("access_denied")), (1.0, 0.0));
    let bucket = |le: &str| {
        kept.get(&format!(
            "encx_kms_call_seconds_bucket{{kms=default,operation=generate_data_key,le={le}}}"
        ))
    };
    // It took no time by the test's clock.
    assert_eq!(
        (bucket("0.0001"), bucket("0.0025"), bucket("10"), bucket("+Inf")),
        (1.0, 1.0, 1.0, 1.0)
    );
    // Publishing is not a use of a key, and makes no calls.
    let before = process.stats();
    facade::with_local_recorder(&kept, || metrics::record(&process));
    assert_eq!(process.stats(), before);
    // Labels have few values, and never a tenant.
    let values = kept.values.lock().unwrap();
    assert!(values.len() < 250, "{}", values.len());
    assert!(!values.keys().any(|series| series.contains("secret-tenant")));
}

#[tokio::test]
async fn jobs_count_their_items_and_dry_runs_do_not() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    seal(&process, &context("a")).await;
    let kept = Kept::default();
    let items = || {
        facade::with_local_recorder(&kept, || metrics::record(&process));
        kept.get("encx_job_items_total{outcome=unchanged}")
    };
    // Other tests of this binary run no jobs.
    let before = items();
    let dry = within(process.key_manager().rewrap_all().dry_run().run()).await;
    assert!(dry.is_complete());
    assert_eq!(items(), before);
    assert!(
        within(process.key_manager().rewrap_all().run())
            .await
            .is_complete()
    );
    assert_eq!(items(), before + 1.0);
}

#[tokio::test]
async fn each_metric_is_listed_with_its_kind_and_labels() {
    let kept = published().await;
    let listed: BTreeMap<_, _> = metrics::ALL
        .iter()
        .map(|metric| {
            let mut labels: Vec<_> = metric.labels.iter().map(ToString::to_string).collect();
            labels.sort();
            (metric.name.to_owned(), (metric.kind, labels))
        })
        .collect();
    assert_eq!(listed.len(), metrics::ALL.len());
    assert!(metrics::ALL.is_sorted_by_key(|metric| metric.name));
    assert_eq!(*kept.kinds.lock().unwrap(), listed);
    facade::with_local_recorder(&kept, metrics::describe);
    assert_eq!(*kept.described.lock().unwrap(), listed.into_keys().collect());
}

/// The words of a text that have the form of metric names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| word.starts_with("encx_"));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn documentation_alerts_and_dashboard_name_what_a_process_publishes() {
    let published = published().await.names();
    let page = include_str!("../../docs/operations.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `encx_"));
    let rows: BTreeSet<_> = rows
        .filter_map(|row| Some(format!("encx_{}", row.split_once('`')?.0)))
        .collect();
    assert_eq!(rows, published);
    for row in page.lines().filter(|line| line.starts_with("| `encx_")) {
        let name = row.split('`').nth(1).unwrap();
        let metric = metrics::ALL.iter().find(|metric| metric.name == name).unwrap();
        let columns: Vec<_> = row.split(" | ").collect();
        let kind = match metric.kind {
            MetricKind::Gauge => "gauge",
            _ => "counter",
        };
        assert_eq!(columns[1], kind, "{name}");
        let labels: Vec<_> = columns[2].split('`').skip(1).step_by(2).collect();
        assert_eq!(labels, metric.labels, "{name}");
        assert!(
            columns.last().unwrap().contains(name),
            "the query of {name} is about another"
        );
    }
    let alerts = include_str!("../../ops/alerts.yml");
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../ops/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() >= 20);
    for (what, names) in [
        ("ops/alerts.yml", named(alerts)),
        (
            "ops/alerts_test.yml",
            named(include_str!("../../ops/alerts_test.yml")),
        ),
        ("ops/dashboard.json", named(&dashboard.to_string())),
        ("docs/operations.md", named(page)),
    ] {
        // In the page, these may also be names of crates.
        let unknown: Vec<_> = names.difference(&published).collect();
        assert!(
            unknown.is_empty(),
            "{what} names {unknown:?}, which nothing publishes"
        );
        assert!(names.len() >= 10, "{what}: {names:?}");
    }
    for query in queries {
        assert!(!named(query).is_empty(), "{query}");
    }
    // Every published metric must be in a panel.
    let unseen: Vec<_> = published
        .difference(&named(&dashboard.to_string()))
        .cloned()
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
    // The alerts of the page are those of the file.
    let alert_names = |text: &str, before: &str| -> BTreeSet<String> {
        let words = text.split(before).skip(1);
        let names =
            words.filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next());
        names
            .filter(|name| name.starts_with("Encx"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(alert_names(alerts, "alert: "), alert_names(page, "`"));
}

/// All metrics that a process publishes.
async fn published() -> Kept {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    seal(&process, &context("a")).await;
    let kept = Kept::default();
    facade::with_local_recorder(&kept, || metrics::record(&process));
    assert!(record_store(&kept, &mut gauges(&process)).await);
    kept
}

fn gauges(process: &Crypto) -> StoreGauges {
    let maintenance = Maintenance::new(process.key_manager()).rotate_every(HOUR);
    StoreGauges::new(process, &maintenance)
}

/// Publishes the metrics of the key store. The recorder is per thread, and the runtime has one thread.
async fn record_store(kept: &Kept, gauges: &mut StoreGauges) -> bool {
    let _set = facade::set_default_local_recorder(kept);
    within(gauges.record()).await.unwrap()
}

/// One process rotates and one publishes: neither keeps the other from it, also if they are two.
#[tokio::test]
async fn a_process_that_publishes_stops_no_rotation() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    seal(&process, &context("a")).await;
    let other = harness.process().await;
    harness.clock.advance(2 * HOUR);
    let kept = Kept::default();
    let mut gauges = gauges(&process);
    assert!(record_store(&kept, &mut gauges).await);
    // Such as by `encx maintain --once`.
    let maintenance = Maintenance::new(other.key_manager()).rotate_every(HOUR);
    let running = tokio::spawn(async move { maintenance.run_once().await.unwrap() });
    harness.pass(10 * MINUTE).await;
    let report = within(running).await.unwrap();
    assert!(!report.held_elsewhere, "{report:?}");
    assert_eq!(report.promoted.len(), 1, "{report:?}");
    // While another process rotates.
    let leases = harness.rows.leases().unwrap();
    let taken = leases.acquire_lease("maintenance/rotation", ProcessId::random(), HOUR);
    assert!(taken.await.unwrap().is_some());
    assert!(record_store(&kept, &mut gauges).await);
    assert_eq!(kept.get("encx_due_versions{}"), 0.0);
}

#[tokio::test]
async fn one_process_of_all_publishes_what_is_in_the_key_store() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.process().await;
    seal(&process, &context("a")).await;
    let other = harness.process().await;
    let (mut first, mut second) = (gauges(&process), gauges(&other));
    let (seen, unseen) = (Kept::default(), Kept::default());
    harness.clock.advance(2 * HOUR);
    assert!(record_store(&seen, &mut first).await);
    assert!(!record_store(&unseen, &mut second).await);
    assert_eq!(seen.get("encx_key_versions{usage=data,state=active}"), 1.0);
    let oldest = seen.get("encx_oldest_active_seconds{usage=data}");
    assert!((oldest - 7200.0).abs() < 0.01, "{oldest}");
    assert_eq!(seen.get("encx_due_versions{}"), 1.0);
    assert_eq!(
        (
            seen.get("encx_store_gauges_held{}"),
            unseen.get("encx_store_gauges_held{}")
        ),
        (1.0, 0.0)
    );
    assert_eq!(unseen.names().len(), 1, "{:?}", unseen.names());
    // A state without versions reports 0, not its last value.
    let id = process.key_manager().list(&context("a")).await.unwrap()[0].id;
    let manager = process.key_manager();
    manager
        .set_state(&context("a"), id, KeyState::Suspended)
        .await
        .unwrap();
    assert!(record_store(&seen, &mut first).await);
    assert_eq!(seen.get("encx_key_versions{usage=data,state=active}"), 0.0);
    assert_eq!(seen.get("encx_key_versions{usage=data,state=suspended}"), 1.0);
    // The first process dies or stops: another takes over, and the first retracts its values.
    harness.clock.advance(4 * MINUTE);
    assert!(record_store(&unseen, &mut second).await);
    assert_eq!(unseen.get("encx_key_versions{usage=data,state=suspended}"), 1.0);
    assert!(!record_store(&seen, &mut first).await);
    assert!(seen.get("encx_key_versions{usage=data,state=suspended}").is_nan());
    assert!(seen.get("encx_due_versions{}").is_nan());
    // As when the key store is unavailable.
    harness.rows.set_unavailable(true);
    let _set = facade::set_default_local_recorder(&unseen);
    within(second.record()).await.unwrap_err();
    assert!(unseen.get("encx_due_versions{}").is_nan());
    assert_eq!(unseen.get("encx_store_gauges_held{}"), 0.0);
}
