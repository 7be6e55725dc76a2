//! What this system shows: one sentence each, computed from the facts, and whether it is in order.

use super::data::{ColumnFacts, Facts, KekFacts, Level};
use super::told::Told;
use super::verified::{MISSING, NEVER, NO_KEY};

/// A sentence about this system.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) says: String,
    pub(super) level: Level,
    /// Whether it was read from this system, and does not hold for every one.
    pub(super) is_measured: bool,
}

fn line(level: Level, says: impl Into<String>) -> Line {
    let mut says = says.into();
    if let Some(first) = says.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Line {
        says,
        level,
        is_measured: true,
    }
}

fn unknown<T>(what: &str, told: &Told<T>) -> Line {
    line(
        Level::NotKnown,
        format!("{what}: {}", told.why().unwrap_or_default()),
    )
}

/// Says whether the KEKs of the rule answer and are enabled, and whether any is about to be deleted.
pub(super) fn keks(facts: &Facts) -> Vec<Line> {
    let in_rule = || facts.keks.iter().filter(|kek| kek.is_in_rule);
    let all = in_rule().count();
    if all == 0 {
        return vec![line(
            Level::NotKnown,
            "no KEK is known: the KEK rule is a function of the application",
        )];
    }
    let enabled = in_rule().filter(|kek| kek.state == "enabled").count();
    let level = if enabled == all { Level::InOrder } else { Level::Finding };
    let mut lines = vec![line(level, format!("KEKs that answer and are enabled: {enabled} of {all}"))];
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

/// Says which KEKs get new material automatically.
pub(super) fn kek_rotation(facts: &Facts) -> Line {
    let in_rule = || facts.keks.iter().filter(|kek| kek.is_in_rule);
    let (all, on) = (
        in_rule().count(),
        in_rule().filter(|kek| kek.rotation == Some(true)).count(),
    );
    let off = in_rule().filter(|kek| kek.rotation == Some(false)).count();
    match (off, on == all && all > 0) {
        (0, true) => line(
            Level::InOrder,
            format!("automatic rotation of KEKs is on: {on} of {all}"),
        ),
        (0, false) => line(
            Level::NotKnown,
            format!(
                "automatic rotation of KEKs is on: {on} of {all}; of {} the KMS does not tell",
                all - on
            ),
        ),
        _ => line(
            Level::Finding,
            format!("automatic rotation of KEKs is off: {off} of {all}"),
        ),
    }
}

/// Says that every version is wrapped, and by KEKs that the rule allows.
pub(super) fn wraps(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    match facts.ages.known() {
        None => lines.push(unknown("versions without a wrap", &facts.ages)),
        Some(ages) if ages.without_wraps == 0 => lines.push(line(
            Level::InOrder,
            "every version that is not destroyed is stored wrapped by a KEK, and in no other form",
        )),
        Some(ages) => lines.push(line(
            Level::Finding,
            format!("versions without a wrap, which decrypt nothing: {}", ages.without_wraps),
        )),
    }
    let outside: Vec<_> = facts.keks.iter().filter(|kek| !kek.is_in_rule).collect();
    // Without a KEK in the rule its closure may allow any.
    if facts.keks.iter().any(|kek| kek.is_in_rule) {
        lines.push(match outside[..] {
            [] => line(Level::InOrder, "KEKs that wrap versions and are not in the KEK rule: none"),
            [..] => {
                let names: Vec<_> = outside.iter().map(|kek| name(kek)).collect();
                line(
                    Level::Finding,
                    format!("KEKs that wrap versions and are not in the KEK rule: {}", names.join(", ")),
                )
            }
        });
    }
    lines
}

/// Says where KEKs and wrapped keys are kept.
pub(super) fn places(facts: &Facts) -> Vec<Line> {
    let kms: Vec<_> = facts.settings.kms.iter().map(|kms| format!("{} ({})", kms.name, kms.provider)).collect();
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

pub(super) fn has_local_keks(facts: &Facts) -> bool {
    facts.settings.kms.iter().any(|kms| kms.provider == "local")
}

/// Says which cipher is set.
pub(super) fn cipher(facts: &Facts) -> Line {
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

/// Says for how long a key may be used after the KMS withdrew it.
pub(super) fn cache(facts: &Facts) -> Line {
    let ttl = setting(facts, "cache.ttl").unwrap_or("unknown");
    line(
        Level::InOrder,
        format!("a process keeps an unwrapped data key in memory for at most {ttl} before it asks the KMS again (`cache.ttl`)"),
    )
}

/// Says how old active versions are, by which period, and whether any is due.
pub(super) fn rotation(facts: &Facts) -> Vec<Line> {
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

/// Says what is due.
pub(super) fn due(facts: &Facts) -> Line {
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

/// Compares ages with the longest that NIST suggests.
pub(super) fn cryptoperiods(facts: &Facts) -> Vec<Line> {
    let Some(ages) = facts.ages.known() else {
        return vec![unknown("age of versions", &facts.ages)];
    };
    let of = |count: u64| if count == 0 { Level::InOrder } else { Level::Finding };
    vec![
        line(
            of(ages.active_over_2_years),
            format!("active versions that encrypt for more than 2 years: {}", ages.active_over_2_years),
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
pub(super) fn rotations(facts: &Facts) -> Line {
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
pub(super) fn states(facts: &Facts) -> Vec<Line> {
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
            format!("rows whose usage or state encx does not know: {}", versions.unreadable),
        ));
    }
    lines
}

/// Says what was destroyed.
pub(super) fn destroyed(facts: &Facts) -> Line {
    match facts.shreddings.known() {
        None => unknown("shredded contexts", &facts.shreddings),
        Some(shredded) => {
            let more = if shredded.is_cut_short { " or more" } else { "" };
            line(
                Level::InOrder,
                format!("contexts of which every key is destroyed: {}{more}", shredded.contexts.len()),
            )
        }
    }
}

/// Says since when the audit log goes, and whether an entry was edited.
pub(super) fn audit(facts: &Facts) -> Vec<Line> {
    let Some(audit) = facts.audit.known() else {
        return vec![unknown("audit log of keys", &facts.audit)];
    };
    let since = audit.first_at.as_ref().map(|at| format!(" since {at}")).unwrap_or_default();
    let mut lines = vec![line(
        Level::InOrder,
        format!(
            "audit log of keys: {} entries{since}; {} name the database's user",
            audit.entries, audit.with_user
        ),
    )];
    if audit.unreadable > 0 {
        lines.push(line(
            Level::Finding,
            format!("entries of the audit log that were edited: {}", audit.unreadable),
        ));
    }
    lines
}

/// Counts the changes of states that the audit log has.
pub(super) fn transitions(facts: &Facts) -> Line {
    match facts.audit.known() {
        None => unknown("changes of states", &facts.audit),
        Some(audit) => line(
            Level::InOrder,
            format!("changes of states in the audit log: {}", audit.transitions),
        ),
    }
}

/// Names the declared columns.
pub(super) fn columns(facts: &Facts) -> Line {
    match facts.columns[..] {
        [] => line(Level::NotKnown, "no encrypted column is declared in the settings"),
        [..] => {
            let names: Vec<_> = facts.columns.iter().map(ColumnFacts::name).collect();
            line(
                Level::InOrder,
                format!("columns declared as encrypted: {} ({})", names.len(), names.join(", ")),
            )
        }
    }
}

/// Says for each declared column how its last verify ended.
pub(super) fn verified(facts: &Facts) -> Vec<Line> {
    let columns = facts.columns.iter().map(|column| {
        let name = column.name();
        let Some(verified) = column.verified.known() else {
            let level = match column.verified {
                Told::Missing(NEVER) => Level::Attention,
                _ => Level::NotKnown,
            };
            return line(
                level,
                format!("last verify of {name}: {}", column.verified.why().unwrap_or_default()),
            );
        };
        let at = verified.at.as_deref().unwrap_or("at an unknown time");
        let rows = verified.opened.saturating_add(verified.failed);
        match (verified.failed, verified.is_complete) {
            (0, true) => line(
                Level::InOrder,
                format!("last verify of {name}: {at}, {rows} rows opened, none failed"),
            ),
            (0, false) => line(
                Level::Attention,
                format!("last verify of {name}: not finished; {rows} rows opened until {at}"),
            ),
            (failed, _) => line(
                Level::Finding,
                format!("last verify of {name}: {at}, {failed} of {rows} rows did not open"),
            ),
        }
    });
    columns.collect()
}

/// Says whether rows lie under keys that cannot or should not open them.
pub(super) fn census(facts: &Facts) -> Line {
    if facts.columns.is_empty() {
        return columns(facts);
    }
    if let Some(column) = facts.columns.iter().find(|column| column.census.known().is_none()) {
        return unknown("rows by the state of their key", &column.census);
    }
    let counts = facts.columns.iter().filter_map(|column| column.census.known()).flatten();
    let bad: u64 = counts
        .filter(|count| matches!(count.state, "compromised" | "destroyed" | MISSING | NO_KEY))
        .map(|count| count.rows)
        .sum();
    match bad {
        0 => line(Level::InOrder, "rows under compromised, destroyed or missing keys, or under none: none"),
        rows => line(
            Level::Finding,
            format!("rows under compromised, destroyed or missing keys, or under none: {rows}"),
        ),
    }
}

/// Counts the processes that hold keys.
pub(super) fn processes(facts: &Facts) -> Line {
    match facts.processes.known() {
        None => unknown("processes", &facts.processes),
        Some(processes) => {
            let silent = processes.iter().filter(|process| process.is_silent).count();
            match silent {
                0 => line(Level::InOrder, format!("registered processes: {}", processes.len())),
                _ => line(
                    Level::Attention,
                    format!("registered processes: {}; not heard of for 5 minutes: {silent}", processes.len()),
                ),
            }
        }
    }
}

/// Counts refused ciphertexts and failed calls of KMSs.
pub(super) fn refusals(facts: &Facts) -> Vec<Line> {
    let Some(days) = facts.days.known() else {
        return vec![unknown("refused ciphertexts", &facts.days)];
    };
    let of = |count: u64| if count == 0 { Level::InOrder } else { Level::Attention };
    let sum = |get: fn(&super::data::DayFacts) -> u64| days.iter().map(get).fold(0, u64::saturating_add);
    let (refusals, calls, failures) = (
        sum(|day| day.refusals),
        sum(|day| day.kms_calls),
        sum(|day| day.kms_failures),
    );
    let since = days.first().map(|day| format!(" since {}", day.day)).unwrap_or_default();
    vec![
        line(of(refusals), format!("ciphertexts refused{since}: {refusals}")),
        line(of(failures), format!("calls of KMSs{since}: {calls}, of which failed: {failures}")),
    ]
}

/// Says whether receipts of shreddings were given and are complete.
pub(super) fn receipts(facts: &Facts) -> Vec<Line> {
    let has_none = facts.shreddings.known().is_some_and(|shredded| shredded.contexts.is_empty());
    match facts.receipts.known() {
        None if has_none => Vec::new(),
        None => vec![unknown("receipts of shreddings", &facts.receipts)],
        Some(receipts) => {
            let open = receipts.iter().filter(|receipt| !receipt.is_complete).count();
            vec![match open {
                0 => line(
                    Level::InOrder,
                    format!("receipts of shreddings: {}, their chain is whole", receipts.len()),
                ),
                _ => line(
                    Level::Attention,
                    format!(
                        "receipts of shreddings: {}, their chain is whole; a process may still have read when it was written: {open}",
                        receipts.len()
                    ),
                ),
            }]
        }
    }
}
