//! A key version in output.

use std::collections::BTreeMap;
use std::time::SystemTime;

use encx::keys::{KeyState, KeyUsage};
use encx::store::{KeyRecord, Timestamp};
use encx::{Clock, SystemClock};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct KeyView {
    pub(crate) id: String,
    pub(crate) usage: &'static str,
    pub(crate) version: u32,
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suspended_from: Option<&'static str>,
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) keks: Vec<WrapView>,
    pub(crate) created_at: String,
    pub(crate) activated_at: Option<String>,
    pub(crate) deactivated_at: Option<String>,
    pub(crate) destroyed_at: Option<String>,
    pub(crate) changed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) due_at: Option<String>,
}

/// A wrap of a key version.
#[derive(Debug, Serialize)]
pub(crate) struct WrapView {
    pub(crate) kms: String,
    pub(crate) kek: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) material: Option<String>,
}

impl KeyView {
    pub(crate) fn new(record: &KeyRecord, due_at: Option<Timestamp>) -> Self {
        Self {
            id: record.id.to_string(),
            usage: record.usage.name(),
            version: record.version.get(),
            state: record.state.name(),
            suspended_from: record.suspended_from.map(KeyState::name),
            context: record.context.clone(),
            keks: record
                .wraps
                .iter()
                .map(|wrap| WrapView {
                    kms: wrap.kms.to_string(),
                    kek: wrap.wrapped.kek.to_string(),
                    material: wrap.wrapped.kek_material.clone(),
                })
                .collect(),
            created_at: moment(record.created_at),
            activated_at: record.activated_at.map(moment),
            deactivated_at: record.deactivated_at.map(moment),
            destroyed_at: record.destroyed_at.map(moment),
            changed_at: moment(record.changed_at),
            due_at: due_at.map(moment),
        }
    }

    pub(crate) fn context(&self) -> String {
        crate::context::describe(&self.context)
    }

    pub(crate) fn keks(&self) -> String {
        let keks: Vec<_> = self
            .keks
            .iter()
            .map(|wrap| format!("{}:{}", wrap.kms, wrap.kek))
            .collect();
        keks.join(" ")
    }
}

/// Formats a time as RFC 3339 to the second. A time outside the calendar is written as in the row.
pub(crate) fn moment(at: Timestamp) -> String {
    const YEAR_10000: i64 = 253_402_300_800_000_000;
    match at.as_micros() {
        0..YEAR_10000 => humantime::format_rfc3339_seconds(SystemTime::from(at)).to_string(),
        micros => format!("{micros} µs"),
    }
}

/// Reads this machine's clock, for times that need no better precision than a minute.
pub(crate) fn now() -> Timestamp {
    let millis = i64::try_from(SystemClock::new().unix_millis()).unwrap_or(i64::MAX);
    Timestamp::from_micros(millis.saturating_mul(1000))
}

/// Formats a time, or a dash.
pub(crate) fn moment_or_dash(at: Option<&String>) -> String {
    at.map_or_else(|| "-".to_owned(), Clone::clone)
}

/// Parses a usage by its name.
pub(crate) fn parse_usage(name: &str) -> Result<KeyUsage, String> {
    KeyUsage::ALL
        .into_iter()
        .find(|usage| usage.name() == name)
        .ok_or_else(|| one_of(KeyUsage::ALL.map(KeyUsage::name)))
}

/// Parses a state by its name.
pub(crate) fn parse_state(name: &str) -> Result<KeyState, String> {
    KeyState::from_name(name).ok_or_else(|| one_of(KeyState::ALL.map(KeyState::name)))
}

fn one_of<const N: usize>(names: [&str; N]) -> String {
    format!("write one of {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_a_row_makes_up_is_no_panic() {
        assert_eq!(
            moment(Timestamp::from_micros(1_700_000_000_000_000)),
            "2023-11-14T22:13:20Z"
        );
        assert_eq!(moment(Timestamp::from_micros(-1)), "-1 µs");
        assert_eq!(
            moment(Timestamp::from_micros(i64::MAX)),
            format!("{} µs", i64::MAX)
        );
    }
}
