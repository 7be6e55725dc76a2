//! Evidence about rows, the audit log and the use of keys.

use super::line::{Line, line, unknown};
use crate::report::data::{ColumnFacts, DayFacts, Facts, Level};
use crate::report::told::Told;
use crate::report::verified::{MISSING, NEVER, NO_KEY};

/// States what was destroyed.
pub(crate) fn destroyed(facts: &Facts) -> Line {
    match facts.shreddings.known() {
        None => unknown("shredded contexts", &facts.shreddings),
        Some(shredded) => {
            let more = if shredded.is_cut_short { " or more" } else { "" };
            line(
                Level::InOrder,
                format!(
                    "contexts of which every key is destroyed: {}{more}",
                    shredded.contexts.len()
                ),
            )
        }
    }
}

/// States when the audit log begins, and whether an entry was edited.
pub(crate) fn audit(facts: &Facts) -> Vec<Line> {
    let Some(audit) = facts.audit.known() else {
        return vec![unknown("audit log of keys", &facts.audit)];
    };
    let since = audit
        .first_at
        .as_ref()
        .map(|at| format!(" since {at}"))
        .unwrap_or_default();
    let mut lines = vec![line(
        Level::InOrder,
        format!(
            "audit log of keys: {} entries{since}; {} of them name the database's user",
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

/// Counts the state changes in the audit log.
pub(crate) fn transitions(facts: &Facts) -> Line {
    match facts.audit.known() {
        None => unknown("changes of states", &facts.audit),
        Some(audit) => line(
            Level::InOrder,
            format!("changes of states in the audit log: {}", audit.transitions),
        ),
    }
}

/// Names the declared columns.
pub(crate) fn columns(facts: &Facts) -> Line {
    match facts.columns[..] {
        [] => line(Level::NotKnown, "no encrypted column is declared in the settings"),
        [..] => {
            let names: Vec<_> = facts.columns.iter().map(ColumnFacts::name).collect();
            line(
                Level::InOrder,
                format!(
                    "columns declared as encrypted: {} ({})",
                    names.len(),
                    names.join(", ")
                ),
            )
        }
    }
}

/// States the result of each declared column's last verification.
pub(crate) fn verified(facts: &Facts) -> Vec<Line> {
    let columns = facts.columns.iter().map(|column| {
        let name = column.name();
        let Some(verified) = column.verified.known() else {
            let level = match column.verified {
                Told::Missing(NEVER) => Level::Attention,
                _ => Level::NotKnown,
            };
            return line(
                level,
                format!(
                    "last verify of {name}: {}",
                    column.verified.why().unwrap_or_default()
                ),
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

/// States whether rows are under keys that cannot or should not decrypt them.
pub(crate) fn census(facts: &Facts) -> Vec<Line> {
    if facts.columns.is_empty() {
        return vec![columns(facts)];
    }
    let known = facts.columns.iter().filter_map(|column| column.census.known());
    let bad = known
        .clone()
        .flatten()
        .filter(|count| matches!(count.state, "compromised" | "destroyed" | MISSING | NO_KEY));
    let what = "rows under compromised, destroyed or missing keys, or under none";
    let mut lines: Vec<_> = match (known.count(), bad.map(|count| count.rows).sum()) {
        (0, _) => Vec::new(),
        (_, 0_u64) => vec![line(Level::InOrder, format!("{what}: none"))],
        (_, rows) => vec![line(Level::Finding, format!("{what}: {rows}"))],
    };
    let mut reasons = Vec::new();
    for column in &facts.columns {
        match (&column.census, column.census.why()) {
            (_, None) => {}
            // The reason applies to every column.
            (Told::Missing(why), _) => reasons.push(format!("rows by the state of their key: {why}")),
            (_, Some(why)) => reasons.push(format!(
                "rows of {} by the state of their key: {why}",
                column.name()
            )),
        }
    }
    reasons.dedup();
    lines.extend(reasons.into_iter().map(|reason| line(Level::NotKnown, reason)));
    lines
}

/// Counts the processes that hold keys.
pub(crate) fn processes(facts: &Facts) -> Line {
    match facts.processes.known() {
        None => unknown("processes", &facts.processes),
        Some(processes) => {
            let silent = processes.iter().filter(|process| process.is_silent).count();
            match silent {
                0 => line(
                    Level::InOrder,
                    format!("registered processes: {}", processes.len()),
                ),
                _ => line(
                    Level::Attention,
                    format!(
                        "registered processes: {}; not heard of for 5 minutes: {silent}",
                        processes.len()
                    ),
                ),
            }
        }
    }
}

/// Counts refused ciphertexts and failed KMS calls.
pub(crate) fn refusals(facts: &Facts) -> Vec<Line> {
    let Some(days) = facts.days.known() else {
        return vec![unknown("refused ciphertexts", &facts.days)];
    };
    let of = |count: u64| {
        if count == 0 {
            Level::InOrder
        } else {
            Level::Attention
        }
    };
    let sum = |get: fn(&DayFacts) -> u64| days.iter().map(get).fold(0, u64::saturating_add);
    let (refusals, calls, failures) = (
        sum(|day| day.refusals),
        sum(|day| day.kms_calls),
        sum(|day| day.kms_failures),
    );
    let since = days
        .first()
        .map(|day| format!(" since {}", day.day))
        .unwrap_or_default();
    vec![
        line(of(refusals), format!("ciphertexts refused{since}: {refusals}")),
        line(
            of(failures),
            format!("calls of KMSs{since}: {calls}, of which failed: {failures}"),
        ),
    ]
}

/// States whether receipts were given, and whether the versions they list are destroyed.
pub(crate) fn receipts(facts: &Facts) -> Vec<Line> {
    let shredded = facts.shreddings.known();
    let receipts = match &facts.receipts {
        // Without a shredding there is no receipt.
        Told::Missing(_) if shredded.is_some_and(|shredded| shredded.contexts.is_empty()) => {
            return Vec::new();
        }
        Told::Missing(_) => return vec![unknown("receipts of shreddings", &facts.receipts)],
        Told::Failed(error) => return vec![line(Level::Finding, format!("receipts of shreddings: {error}"))],
        Told::Known(receipts) => receipts,
    };
    let mut lines = vec![line(
        Level::InOrder,
        format!("receipts of shreddings: {}, in a whole chain", receipts.len()),
    )];
    let open = receipts.iter().filter(|receipt| !receipt.is_complete).count();
    if open > 0 {
        lines.push(line(
            Level::Attention,
            format!("receipts of shreddings that leave open whether a process may still read: {open}"),
        ));
    }
    let alive: u64 = receipts.iter().map(|receipt| receipt.not_destroyed).sum();
    if alive > 0 {
        lines.push(line(
            Level::Finding,
            format!("versions that receipts list and that are not destroyed, as after a restore: {alive}"),
        ));
    }
    lines
}
