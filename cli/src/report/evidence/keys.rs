//! Evidence about KEKs and versions of data keys.

use super::line::{Line, line, unknown};
use crate::report::data::{Facts, KekFacts, Level};

/// States whether the rule's KEKs answer, are enabled, and are not pending deletion.
pub(crate) fn keks(facts: &Facts) -> Vec<Line> {
    let in_rule = || facts.keks.iter().filter(|kek| kek.is_in_rule);
    let all = in_rule().count();
    if all == 0 {
        return vec![line(
            Level::NotKnown,
            "no KEK is known: the KEK rule is a function of the application",
        )];
    }
    let enabled = in_rule().filter(|kek| kek.state == "enabled").count();
    let level = if enabled == all {
        Level::InOrder
    } else {
        Level::Finding
    };
    let mut lines = vec![line(
        level,
        format!("KEKs that answer and are enabled: {enabled} of {all}"),
    )];
    for kek in in_rule() {
        if let Some(at) = &kek.deletion {
            lines.push(line(
                Level::Finding,
                format!("{} is planned to be deleted at {at}", name(kek)),
            ));
        }
    }
    if !in_rule().any(|kek| kek.deletion.is_some()) {
        lines.push(line(Level::InOrder, "KEKs planned to be deleted: none"));
    }
    lines
}

fn name(kek: &KekFacts) -> String {
    format!("KEK {}:{}", kek.kms, kek.kek)
}

/// States which KEKs rotate automatically.
pub(crate) fn kek_rotation(facts: &Facts) -> Line {
    let count = |rotation: Option<bool>| {
        let of = facts
            .keks
            .iter()
            .filter(|kek| kek.is_in_rule && kek.rotation == rotation);
        of.count()
    };
    let (on, off, not_told) = (count(Some(true)), count(Some(false)), count(None));
    let level = match (off, not_told) {
        (0, 0) if on > 0 => Level::InOrder,
        (0, _) => Level::NotKnown,
        _ => Level::Finding,
    };
    let told = [
        (on, "on for"),
        (off, "off for"),
        (not_told, "not told by the KMS for"),
    ];
    let told: Vec<_> = told
        .iter()
        .filter(|(keks, _)| *keks > 0)
        .map(|(keks, how)| format!("{how} {keks}"))
        .collect();
    let told = if told.is_empty() {
        "not known".to_owned()
    } else {
        told.join(", ")
    };
    line(level, format!("automatic rotation of KEKs: {told}"))
}

/// States whether every version is wrapped, and by KEKs that the rule allows.
pub(crate) fn wraps(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    match facts.ages.known() {
        None => lines.push(unknown("versions without a wrap", &facts.ages)),
        Some(ages) if ages.without_wraps == 0 => lines.push(line(
            Level::InOrder,
            "every version that is not destroyed is stored wrapped by a KEK, and in no other form",
        )),
        Some(ages) => lines.push(line(
            Level::Finding,
            format!(
                "versions without a wrap, which decrypt nothing: {}",
                ages.without_wraps
            ),
        )),
    }
    let outside: Vec<_> = facts.keks.iter().filter(|kek| !kek.is_in_rule).collect();
    // Without a KEK in the rule, its closure may allow any.
    if facts.keks.iter().any(|kek| kek.is_in_rule) {
        lines.push(match outside[..] {
            [] => line(
                Level::InOrder,
                "KEKs that wrap versions and are not in the KEK rule: none",
            ),
            [..] => {
                let names: Vec<_> = outside.iter().map(|kek| name(kek)).collect();
                line(
                    Level::Finding,
                    format!(
                        "KEKs that wrap versions and are not in the KEK rule: {}",
                        names.join(", ")
                    ),
                )
            }
        });
    }
    lines
}

/// States where KEKs and wrapped keys are stored.
pub(crate) fn places(facts: &Facts) -> Vec<Line> {
    let kms: Vec<_> = facts
        .settings
        .kms
        .iter()
        .map(|kms| format!("{} ({})", kms.name, kms.provider))
        .collect();
    let mut lines = vec![line(
        Level::InOrder,
        format!(
            "KEKs are kept in {}; wrapped data keys in the key store ({})",
            kms.join(", "),
            facts.settings.key_store
        ),
    )];
    if has_local_keks(facts) {
        lines.push(line(
            Level::NotKnown,
            "KEKs of provider local are kept in an encrypted file, not in a hardware security module; where its passphrase or key is kept is not known",
        ));
    }
    lines
}

pub(crate) fn has_local_keks(facts: &Facts) -> bool {
    facts.settings.kms.iter().any(|kms| kms.provider == "local")
}

/// States the configured cipher.
pub(crate) fn cipher(facts: &Facts) -> Line {
    let suite = setting(facts, "cipher.suite").unwrap_or("kc-xaes-256-gcm");
    line(
        Level::InOrder,
        format!("values are encrypted and authenticated under 256-bit data keys, by suite {suite}"),
    )
}

fn setting<'f>(facts: &'f Facts, key: &str) -> Option<&'f str> {
    let setting = facts.settings.values.iter().find(|setting| setting.key == key);
    setting.map(|setting| setting.value.as_str())
}

/// States how long a key may be used after the KMS withdrew it.
pub(crate) fn cache(facts: &Facts) -> Line {
    let ttl = setting(facts, "cache.ttl").unwrap_or("unknown");
    line(
        Level::InOrder,
        format!(
            "a process keeps an unwrapped data key in memory for at most {ttl} before it asks the KMS again"
        ),
    )
}

/// States the ages of active versions, their rotation period, and whether any is due.
pub(crate) fn rotation(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    let period = setting(facts, "rotation.every").unwrap_or("unknown");
    match facts.ages.known() {
        None => lines.push(unknown("age of active versions", &facts.ages)),
        Some(ages) => lines.push(match ages.oldest_active_days {
            None => line(Level::InOrder, "active versions: none"),
            Some(days) => line(
                Level::InOrder,
                format!("oldest active version: {days} days; rotation period: {period}"),
            ),
        }),
    }
    lines.push(due(facts));
    lines
}

/// States what is due.
pub(crate) fn due(facts: &Facts) -> Line {
    match facts.due.known() {
        None => unknown("versions due for rotation", &facts.due),
        Some(due) if due.unreadable > 0 => line(
            Level::Finding,
            format!(
                "versions due for rotation: {}; rows that do not say what they are for: {}",
                due.versions, due.unreadable
            ),
        ),
        Some(due) if due.versions > 0 => line(
            Level::Finding,
            format!("versions due for rotation: {}", due.versions),
        ),
        Some(_) => line(Level::InOrder, "versions due for rotation: none"),
    }
}

/// Compares ages with NIST's suggested maximums.
pub(crate) fn cryptoperiods(facts: &Facts) -> Vec<Line> {
    let Some(ages) = facts.ages.known() else {
        return vec![unknown("age of versions", &facts.ages)];
    };
    let of = |count: u64| {
        if count == 0 {
            Level::InOrder
        } else {
            Level::Finding
        }
    };
    vec![
        line(
            of(ages.active_over_2_years),
            format!(
                "active versions that encrypt for more than 2 years: {}",
                ages.active_over_2_years
            ),
        ),
        line(
            of(ages.deactivated_over_3_years),
            format!(
                "deactivated versions that decrypt for more than 3 years beyond: {}",
                ages.deactivated_over_3_years
            ),
        ),
    ]
}

/// Counts rotations of the last twelve months.
pub(crate) fn rotations(facts: &Facts) -> Line {
    match facts.audit.known() {
        None => unknown("rotations", &facts.audit),
        Some(audit) => {
            let months = audit.months.iter().rev().take(12);
            let rotations: u64 = months.map(|month| month.rotations).sum();
            line(
                Level::InOrder,
                format!("rotations of data keys in the last 12 months, this one included: {rotations}"),
            )
        }
    }
}

/// Counts versions by state.
pub(crate) fn states(facts: &Facts) -> Vec<Line> {
    let Some(versions) = facts.versions.known() else {
        return vec![unknown("versions by state", &facts.versions)];
    };
    let counted = |state: &str| -> u64 {
        let of = versions.counts.iter().filter(|count| count.state == state);
        of.map(|count| count.versions).sum()
    };
    let states = encx::keys::KeyState::ALL.map(encx::keys::KeyState::name);
    let told: Vec<_> = states
        .iter()
        .filter(|state| counted(state) > 0)
        .map(|state| format!("{} {state}", counted(state)))
        .collect();
    let mut lines = vec![line(
        Level::InOrder,
        match told[..] {
            [] => "versions: none".to_owned(),
            [..] => format!("versions: {}", told.join(", ")),
        },
    )];
    let compromised = counted("compromised");
    if compromised > 0 {
        lines.push(line(
            Level::Finding,
            format!("compromised versions that are not destroyed: {compromised}"),
        ));
    }
    let suspended = counted("suspended");
    if suspended > 0 {
        lines.push(line(Level::Attention, format!("suspended versions: {suspended}")));
    }
    if versions.unreadable > 0 {
        lines.push(line(
            Level::Finding,
            format!(
                "rows whose usage or state encx does not know: {}",
                versions.unreadable
            ),
        ));
    }
    lines
}
