//! Sections about settings, KEKs and versions of data keys.

use maud::{Markup, html};

use crate::report::charts::Bars;
use crate::report::data::{AgeFacts, DueFacts, Facts, KekFacts, VersionFacts};
use crate::report::parts::{Cell, Chart, badge, chart, grouped, state, table, told, value};
use crate::report::told::Told;

pub(crate) fn settings(facts: &Facts) -> Markup {
    let kms = facts.settings.kms.iter();
    let kms = kms.map(|kms| vec![Cell::code(&kms.name), Cell::text(kms.provider)]);
    let values = facts.settings.values.iter().map(|setting| {
        let set = if setting.is_default { "default" } else { "set" };
        vec![
            Cell::code(&setting.key),
            Cell::text(&setting.value),
            Cell::text(set),
        ]
    });
    html! {
        p { "Keys are kept in a key store of kind " strong { (value(&facts.settings.key_store)) } ". Addresses, file names and secrets are left out." }
        (table("Key management services", &["Name", "Provider"], kms))
        (table("Settings of keys", &["Setting", "Value", "Set by"], values))
    }
}

pub(crate) fn keks(facts: &Facts) -> Markup {
    let rotation = |kek: &KekFacts| match (kek.rotation, kek.rotation_days) {
        (Some(true), Some(days)) => format!("every {days} days"),
        (Some(true), None) => "on".to_owned(),
        (Some(false), _) => "off".to_owned(),
        (None, _) => "not told".to_owned(),
    };
    let count = |told: &Told<u64>| match told.known() {
        Some(count) => Cell::number(*count),
        None => Cell::text(told.why().unwrap_or_default()),
    };
    let rows = facts.keks.iter().map(|kek| {
        let name = html! {
            code { (value(&kek.kms)) ":" (value(&kek.kek)) }
            @if let Some(alias) = &kek.alias { br; span .muted { "named " (value(alias)) } }
            @if !kek.is_in_rule { br; (badge("bad", "not in the KEK rule")) }
        };
        let state = html! {
            (badge(if kek.state == "enabled" { "good" } else { "bad" }, kek.state))
            @if let Some(error) = &kek.error { br; span .muted { (value(error)) } }
            @if let Some(at) = &kek.deletion { br; "deleted at " (value(at)) }
        };
        vec![
            Cell::Markup(name),
            Cell::text(kek.provider.unwrap_or("–")),
            Cell::Markup(state),
            Cell::text(rotation(kek)),
            Cell::moment_or_dash(kek.last_rotation.as_ref()),
            Cell::moment_or_dash(kek.next_rotation.as_ref()),
            count(&kek.versions),
            count(&kek.sole),
        ]
    });
    let header = [
        "KEK",
        "Provider",
        "State",
        "Rotation",
        "Last rotation",
        "Next rotation",
        "#Versions wrapped",
        "#By it alone",
    ];
    html! {
        p { "KEKs that the KEK rule names, as their KMS describes them, and KEKs that wrap a version all the same." }
        (table("Key-encryption keys", &header, rows))
    }
}

pub(crate) fn versions(facts: &Facts) -> Markup {
    html! {
        (told("Versions by usage and state", &facts.versions, counts))
        (legend())
        (told("Ages", &facts.ages, ages))
    }
}

fn counts(versions: &VersionFacts) -> Markup {
    let rows = versions.counts.iter().map(|count| {
        vec![
            Cell::text(count.usage),
            Cell::Markup(state(count.state)),
            Cell::number(count.versions),
            Cell::moment_or_dash(count.oldest_activated_at.as_ref()),
        ]
    });
    let header = ["Usage", "State", "#Versions", "Oldest active since"];
    html! {
        (table("Versions by usage and state", &header, rows))
        @if versions.unreadable > 0 {
            p { (badge("bad", "finding")) " Rows whose usage or state encx does not know: " (grouped(versions.unreadable)) "." }
        }
    }
}

/// Explains each state.
fn legend() -> Markup {
    let states = [
        (
            "pre-active",
            "no",
            "yes",
            "Made, and not yet the one that encrypts; another process may have switched first.",
        ),
        (
            "active",
            "yes",
            "yes",
            "Encrypts all new values of its context. There is at most one.",
        ),
        (
            "deactivated",
            "no",
            "yes",
            "Replaced by a newer version; opens what it encrypted.",
        ),
        (
            "suspended",
            "no",
            "no",
            "Stopped for a time, as before its destruction; can be resumed.",
        ),
        (
            "compromised",
            "no",
            "on request",
            "Known to others. Re-encrypt its values, then destroy it.",
        ),
        (
            "destroyed",
            "no",
            "no",
            "Its wraps are deleted, and what it encrypted cannot be read.",
        ),
    ];
    let rows = states.map(|(name, encrypts, decrypts, means)| {
        vec![
            Cell::Markup(state(name)),
            Cell::text(encrypts),
            Cell::text(decrypts),
            Cell::prose(means),
        ]
    });
    table(
        "What the states mean",
        &["State", "Encrypts", "Decrypts", "Meaning"],
        rows,
    )
}

fn ages(ages: &AgeFacts) -> Markup {
    let numbers = table(
        "Active versions by age",
        &["Active for", "#Versions"],
        ages.active
            .iter()
            .map(|bucket| vec![Cell::text(bucket.age), Cell::number(bucket.versions)]),
    );
    let bars = Bars {
        labels: ages.active.iter().map(|bucket| bucket.age.to_owned()).collect(),
        values: ages.active.iter().map(|bucket| bucket.versions).collect(),
        over: Vec::new(),
    };
    let drawn = Chart {
        id: "ages",
        title: "Active versions by age",
        description: "A bar for each range of ages; the table has the numbers.",
        legend: None,
        bars,
    };
    let oldest = ages
        .oldest_active_days
        .map_or_else(|| "none".to_owned(), |days| format!("{} days", grouped(days)));
    html! {
        h3 { "Age of active versions" }
        (chart(&drawn, &numbers))
        (table("Ages against the longest periods that NIST suggests", &["What", "#Value"], [
            vec![Cell::text("Oldest active version"), Cell::Number(oldest)],
            vec![Cell::text("Active versions that encrypt for more than 2 years"), Cell::number(ages.active_over_2_years)],
            vec![Cell::text("Deactivated versions that decrypt for more than 3 years beyond"), Cell::number(ages.deactivated_over_3_years)],
            vec![Cell::text("Versions without a wrap, which decrypt nothing"), Cell::number(ages.without_wraps)],
        ]))
    }
}

pub(crate) fn rotation(facts: &Facts) -> Markup {
    told("Versions that are due", &facts.due, due)
}

fn due(due: &DueFacts) -> Markup {
    let rows = due.first.iter().map(|version| {
        vec![
            Cell::code(&version.id),
            Cell::text(version.usage),
            Cell::code(&version.context),
            Cell::moment(&version.active_since),
            Cell::Number(format!("{} days", grouped(version.period_days))),
        ]
    });
    let header = [
        "Version",
        "Usage",
        "Encryption context",
        "Active since",
        "#Period",
    ];
    let listed = due.first.len() as u64;
    html! {
        p {
            "Versions that have encrypted for longer than their rotation period: " strong { (grouped(due.versions)) } "."
            @if due.unreadable > 0 { " Rows that do not say what they are for: " strong { (grouped(due.unreadable)) } "." }
        }
        @if due.versions > 0 { (table("Versions due for rotation", &header, rows)) }
        @if due.versions > listed { p .muted { (grouped(due.versions - listed)) " more are due." } }
    }
}
