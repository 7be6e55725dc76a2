//! Serialises plain data for people and probes: names as text, timestamps as RFC 3339, durations as numbers.

use std::fmt::Display;
use std::time::Duration;

use encx_core::key::KeyUsage;
use encx_core::kms::{KekDescription, KekState};
use encx_core::store::Timestamp;
use serde::{Serialize, Serializer};

use crate::keys::DueVersion;
use crate::ops::reported::Reported;

/// Writes a name as text.
pub(super) fn text<T: Display, S: Serializer>(name: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// Writes an optional name as text.
pub(super) fn text_of<T: Display, S: Serializer>(name: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(ToString::to_string).serialize(serializer)
}

/// Writes a timestamp as RFC 3339 in UTC, to the second.
pub(super) fn moment<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*moment))
}

/// Writes an optional timestamp as RFC 3339 in UTC, to the second.
pub(super) fn moment_of<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    moment.map(rfc3339).serialize(serializer)
}

/// Writes a day as `2026-11-30`.
pub(super) fn day<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    let (year, month, day) = civil(moment.as_micros().div_euclid(DAY));
    serializer.collect_str(&format_args!("{year:04}-{month:02}-{day:02}"))
}

/// Writes a duration in seconds.
pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Writes a key usage as its name.
pub(super) fn usage<S: Serializer>(usage: &KeyUsage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(usage.name())
}

/// Writes the KMS's description of a KEK, without unknown parts.
pub(super) fn description<S: Serializer>(
    description: &Reported<KekDescription>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let written = match description {
        Reported::Failed { error } => Reported::Failed { error: error.clone() },
        Reported::Known(known) => Reported::Known(WrittenDescription::of(known)),
        Reported::NotRecorded => Reported::NotRecorded,
    };
    written.serialize(serializer)
}

#[derive(Serialize)]
struct WrittenDescription<'a> {
    kek: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_material: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_region: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_days: Option<u32>,
    #[serde(serialize_with = "moment_of", skip_serializing_if = "Option::is_none")]
    last_rotation: Option<Timestamp>,
    #[serde(serialize_with = "moment_of", skip_serializing_if = "Option::is_none")]
    next_rotation: Option<Timestamp>,
    #[serde(serialize_with = "moment_of", skip_serializing_if = "Option::is_none")]
    deletion: Option<Timestamp>,
}

impl<'a> WrittenDescription<'a> {
    fn of(description: &'a KekDescription) -> Self {
        Self {
            kek: description.kek.as_str(),
            state: match description.state {
                KekState::Disabled => "disabled",
                KekState::Enabled => "enabled",
                KekState::PendingDeletion => "pending_deletion",
                _ => "unavailable",
            },
            current_material: description.current_material.as_deref(),
            multi_region: description.multi_region,
            rotation: description.rotation,
            rotation_days: description.rotation_days,
            last_rotation: description.last_rotation,
            next_rotation: description.next_rotation,
            deletion: description.deletion,
        }
    }
}

/// Writes due versions, with the names and values of their contexts.
pub(super) fn due<S: Serializer>(due: &[DueVersion], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(serialize_with = "text")]
        id: &'a encx_core::key::DataKeyId,
        usage: &'static str,
        context: Fields<&'a str>,
        #[serde(serialize_with = "moment")]
        active_since: Timestamp,
        #[serde(rename = "period_seconds", serialize_with = "seconds")]
        period: Duration,
    }
    serializer.collect_seq(due.iter().map(|version| {
        let mut context = Fields::new();
        for (key, value) in version.context.pairs() {
            context.push(key, value);
        }
        Written {
            id: &version.id,
            usage: version.usage.name(),
            context,
            active_since: version.active_since,
            period: version.period,
        }
    }))
}

/// The fields of an object, in insertion order.
pub(super) struct Fields<T>(Vec<(String, T)>);

impl<T> Fields<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn push(&mut self, name: &str, value: T) {
        self.0.push((name.to_owned(), value));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Serialize> Serialize for Fields<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A day, in microseconds.
const DAY: i64 = 86_400_000_000;

fn rfc3339(moment: Timestamp) -> String {
    let (days, micros) = (
        moment.as_micros().div_euclid(DAY),
        moment.as_micros().rem_euclid(DAY),
    );
    let (year, month, day) = civil(days);
    let second = micros / 1_000_000;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns the year, month and day of a day number that counts from 1970-01-01, in the Gregorian calendar.
///
/// Years start in March, so that the leap day is the last: 400 of them have 146 097 days.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_calendars_say() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_796_083_199, "2026-11-30T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_micros(seconds * 1_000_000)), expected);
        }
        // A database may hold any value.
        rfc3339(Timestamp::from_micros(i64::MIN));
        rfc3339(Timestamp::from_micros(i64::MAX));
    }
}
