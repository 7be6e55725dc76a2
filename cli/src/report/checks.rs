//! The summary: one check per topic, with its worst result.

use super::data::{Check, Facts, Level};
use super::evidence::{self, Line};

/// Judges the facts.
pub(super) fn of(facts: &Facts) -> Vec<Check> {
    let mut keks = evidence::keks(facts);
    keks.push(evidence::kek_rotation(facts));
    let mut versions = evidence::states(facts);
    versions.extend(evidence::wraps(facts));
    let mut rotation = evidence::rotation(facts);
    rotation.extend(evidence::cryptoperiods(facts));
    let mut rows = vec![evidence::columns(facts)];
    rows.extend(evidence::verified(facts));
    let mut shreddings = vec![evidence::destroyed(facts)];
    shreddings.extend(evidence::receipts(facts));
    vec![
        check("KEKs", "keks", &keks),
        check("Key versions", "versions", &versions),
        check("Rotation of data keys", "rotation", &rotation),
        check("Encrypted columns", "columns", &rows),
        check("Rows by key", "columns", &evidence::census(facts)),
        check("Audit log", "history", &evidence::audit(facts)),
        check("Shreddings", "shreddings", &shreddings),
        check("Use of keys", "use", &evidence::refusals(facts)),
        check("Processes", "processes", &[evidence::processes(facts)]),
    ]
}

/// Joins the worst lines, or all lines if all are in order.
fn check(topic: &'static str, section: &'static str, lines: &[Line]) -> Check {
    let worst = lines.iter().map(|line| line.level).max();
    let level = worst.unwrap_or(Level::NotKnown);
    let says: Vec<_> = lines
        .iter()
        .filter(|line| line.level == level)
        .map(|line| line.says.as_str())
        .collect();
    Check {
        topic,
        level,
        says: says.join(". "),
        section,
    }
}
