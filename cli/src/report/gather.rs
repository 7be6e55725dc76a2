//! Gathers the report's facts. A part that fails reports its error; the others continue.

use std::collections::BTreeMap;
use std::time::Duration;

use encx::Crypto;
use encx::kms::KekRef;
use encx::ops::{DayStatus, Reported, Status, StatusOptions};
use encx::store::{KekUse, KeyStore, StoreError, Timestamp};

use super::data::{
    CostFacts, DayFacts, DueFacts, DueVersionFacts, Facts, KekFacts, KmsFacts, ProcessFacts, Report,
    SettingFacts, SettingsFacts, VersionCount, VersionFacts,
};
use super::told::{NOT_ASKED, NOT_RECORDED, Told};
use super::{checks, controls, history, keys, receipts, verified};
use crate::context::describe;
use crate::keks::state_name;
use crate::receipts::{ReceiptError, Receipts};
use crate::record::{moment, now};
use crate::session::{Session, own_name};

/// What to gather.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Days of usage to show.
    pub(crate) days: u32,
    /// Whether to count rows.
    pub(crate) census: bool,
    /// The shredding receipts, or why they cannot be read; `None` if no folder was given.
    pub(crate) receipts: Option<Result<Receipts, ReceiptError>>,
}

/// Time without a heartbeat after which a process counts as silent.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// Settings about the use of keys. None contains an address or a file name.
const TOLD_SETTINGS: [&str; 5] = ["cache.", "cipher.", "outage.", "rotation.", "allow_insecure"];

/// Gathers the report.
///
/// # Cancellation
///
/// May be dropped at any time.
pub(crate) async fn gather(session: &Session, crypto: &Crypto, asked: Asked) -> anyhow::Result<Report> {
    let store = session.store().await?;
    let store = &*store;
    // Ages use the clock that wrote the timestamps.
    let now = crypto
        .key_manager()
        .time_of_store()
        .await
        .unwrap_or_else(|_| now());
    let maintenance = session.settings.maintenance(crypto.key_manager());
    let options = StatusOptions::new().due_by(&maintenance).days(asked.days);
    let status = crypto.status(&options).await;
    let (audit, shreddings) = match store.audit() {
        None => (Told::Missing(NOT_RECORDED), Told::Missing(NOT_RECORDED)),
        Some(log) => match history::read(log, now).await {
            Ok(history) => {
                let shreddings = Told::of(history.shreddings(store).await);
                (Told::Known(history.facts), shreddings)
            }
            Err(error) => (Told::Failed(error.to_string()), Told::Failed(error.to_string())),
        },
    };
    let facts = Facts {
        settings: settings(session, &status),
        keks: keks(&status, store.keks().await),
        versions: versions(&status),
        ages: Told::of(keys::ages(store, now).await),
        due: due(&status),
        audit,
        days: days(&status, now),
        cost: Told::reported(&status.cost, |cost| CostFacts {
            usd_per_month: cost.usd_per_month,
            calls_usd: cost.calls_usd,
            keks_usd: cost.keks_usd,
            days: cost.days,
        }),
        columns: columns(session, store, asked.census).await,
        shreddings,
        receipts: match &asked.receipts {
            None => Told::Missing(NOT_ASKED),
            Some(Err(error)) => Told::Failed(error.to_string()),
            Some(Ok(read)) => Told::of(receipts::look_up(store, read).await),
        },
        processes: processes(&status, now),
    };
    Ok(Report {
        format: "encx/report/1",
        generated_at: moment(now),
        program: format!("encx {}", env!("CARGO_PKG_VERSION")),
        summary: checks::of(&facts),
        controls: controls::of(&facts),
        facts,
    })
}

fn settings(session: &Session, status: &Status) -> SettingsFacts {
    let described = session.settings.describe();
    let is_told = |key: &str| TOLD_SETTINGS.iter().any(|told| key.starts_with(told));
    SettingsFacts {
        kms: status
            .kms
            .iter()
            .map(|kms| KmsFacts {
                name: kms.kms.to_string(),
                provider: kms.provider,
            })
            .collect(),
        key_store: match session.settings.key_store_url() {
            Some(url) => url.scheme().unwrap_or("unknown").to_owned(),
            None => "the application's own".to_owned(),
        },
        values: described
            .settings()
            .iter()
            .filter(|setting| is_told(&setting.key))
            .map(|setting| SettingFacts {
                key: setting.key.clone(),
                value: setting.value.clone(),
                is_default: setting.is_default,
            })
            .collect(),
    }
}

fn keks(status: &Status, used: Result<Vec<KekUse>, StoreError>) -> Vec<KekFacts> {
    let unknown = used.as_ref().err().map(ToString::to_string);
    let mut used: BTreeMap<_, _> = used
        .unwrap_or_default()
        .into_iter()
        .map(|used| (KekRef::new(used.kms.clone(), used.kek.clone()), used))
        .collect();
    let count = |count: u64| match &unknown {
        None => Told::Known(count),
        Some(error) => Told::Failed(error.clone()),
    };
    let mut keks: Vec<KekFacts> = Vec::new();
    for kms in &status.kms {
        for named in &kms.keks {
            let told = named.description.known();
            let lasting = told.map_or(&named.name, |told| &told.kek);
            let (kms_name, kek) = (kms.kms.to_string(), lasting.to_string());
            // Two names may refer to one KEK.
            if keks.iter().any(|known| known.kms == kms_name && known.kek == kek) {
                continue;
            }
            let used = used.remove(&KekRef::new(kms.kms.clone(), lasting.clone()));
            keks.push(KekFacts {
                kms: kms_name,
                provider: Some(kms.provider),
                alias: (*lasting != named.name).then(|| named.name.to_string()),
                kek,
                is_in_rule: true,
                state: told.map_or("unknown", |told| state_name(told.state)),
                error: match &named.description {
                    Reported::Failed { error } => Some(error.clone()),
                    _ => None,
                },
                rotation: told.and_then(|told| told.rotation),
                rotation_days: told.and_then(|told| told.rotation_days),
                last_rotation: told.and_then(|told| told.last_rotation).map(moment),
                next_rotation: told.and_then(|told| told.next_rotation).map(moment),
                deletion: told.and_then(|told| told.deletion).map(moment),
                versions: count(used.as_ref().map_or(0, |used| used.versions)),
                sole: count(used.as_ref().map_or(0, |used| used.sole)),
            });
        }
    }
    // Rows name these KEKs, but the rule does not. No KMS is called: rows must not choose which one is.
    keks.extend(used.into_values().map(|used| KekFacts {
        kms: used.kms.to_string(),
        provider: None,
        kek: used.kek.to_string(),
        alias: None,
        is_in_rule: false,
        state: "not asked",
        error: None,
        rotation: None,
        rotation_days: None,
        last_rotation: None,
        next_rotation: None,
        deletion: None,
        versions: Told::Known(used.versions),
        sole: Told::Known(used.sole),
    }));
    keks
}

fn versions(status: &Status) -> Told<VersionFacts> {
    Told::reported(&status.versions, |versions| VersionFacts {
        counts: versions
            .iter()
            .map(|of| VersionCount {
                usage: of.usage.name(),
                state: of.state.name(),
                versions: of.versions,
                oldest_activated_at: of.oldest_activated_at.map(moment),
            })
            .collect(),
        unreadable: status.unreadable_versions.known().copied().unwrap_or(0),
    })
}

fn due(status: &Status) -> Told<DueFacts> {
    Told::reported(&status.due, |due| DueFacts {
        versions: due.versions,
        unreadable: due.unreadable,
        first: due
            .first
            .iter()
            .map(|version| {
                let pairs = version.context.pairs();
                let pairs: BTreeMap<_, _> = pairs
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect();
                DueVersionFacts {
                    id: version.id.to_string(),
                    usage: version.usage.name(),
                    context: describe(&pairs),
                    active_since: moment(version.active_since),
                    period_days: version.period.as_secs() / (24 * 60 * 60),
                }
            })
            .collect(),
    })
}

/// Lists every day from the first that was counted until today. A day without a count had no usage.
fn days(status: &Status, now: Timestamp) -> Told<Vec<DayFacts>> {
    let usd_per_call = match (status.cost.known(), status.days.known()) {
        (Some(cost), Some(days)) => per_call(cost.calls_usd, days),
        _ => 0.0,
    };
    Told::reported(&status.days, |counted| {
        let mut days = Vec::new();
        for of in counted {
            let mut next = days.last().map(|(day, _): &(Timestamp, _)| day.plus(DAY));
            while let Some(day) = next.filter(|day| *day < of.day && days.len() < MAX_DAYS) {
                days.push((day, DayFacts::idle(day)));
                next = Some(day.plus(DAY));
            }
            days.push((of.day, DayFacts::of(of, usd_per_call)));
        }
        while let Some(day) = days.last().map(|(day, _)| day.plus(DAY)) {
            if day > now || days.len() >= MAX_DAYS {
                break;
            }
            days.push((day, DayFacts::idle(day)));
        }
        days.into_iter().map(|(_, facts)| facts).collect()
    })
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Limit on the number of days: a row may contain any day.
const MAX_DAYS: usize = 1000;

/// Returns the cost of one call. `usd_per_month` is the cost of 30 average days.
fn per_call(usd_per_month: f64, days: &[DayStatus]) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    let (counted, calls) = (
        days.len() as f64,
        days.iter().map(|day| day.kms_calls as f64).sum::<f64>(),
    );
    if calls > 0.0 {
        usd_per_month / 30.0 * counted / calls
    } else {
        0.0
    }
}

impl DayFacts {
    fn of(of: &DayStatus, usd_per_call: f64) -> Self {
        Self {
            day: date(of.day),
            encrypts: of.encrypts,
            decrypts: of.decrypts,
            refusals: of.refusals,
            kms_calls: of.kms_calls,
            kms_failures: of.kms_failures,
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            calls_usd: of.kms_calls as f64 * usd_per_call,
        }
    }

    fn idle(day: Timestamp) -> Self {
        Self {
            day: date(day),
            encrypts: 0,
            decrypts: 0,
            refusals: 0,
            kms_calls: 0,
            kms_failures: 0,
            calls_usd: 0.0,
        }
    }
}

fn date(day: Timestamp) -> String {
    let day = moment(day);
    day.split('T').next().unwrap_or(&day).to_owned()
}

async fn columns(session: &Session, store: &dyn KeyStore, census: bool) -> Vec<super::data::ColumnFacts> {
    let declared = session.settings.columns();
    let rows = match census && !declared.is_empty() {
        true => Some(crate::rows::connect(&session.settings).await),
        false => None,
    };
    let mut columns = Vec::with_capacity(declared.len());
    for declared in declared {
        columns.push(verified::column(store, &declared.column, rows.as_ref()).await);
    }
    columns
}

fn processes(status: &Status, now: Timestamp) -> Told<Vec<ProcessFacts>> {
    let silent_before = now.minus(SILENCE);
    let own = own_name();
    Told::reported(&status.processes, |processes| {
        let others = processes.iter().filter(|process| process.name != own);
        let mut facts: Vec<_> = others
            .map(|process| ProcessFacts {
                name: process.name.clone(),
                started_at: moment(process.started_at),
                seen_at: moment(process.seen_at),
                is_silent: process.seen_at < silent_before,
            })
            .collect();
        facts.sort_by(|a, b| (&a.name, &a.started_at).cmp(&(&b.name, &b.started_at)));
        facts
    })
}
