//! The sections of the page: the evidence, topic by topic.

use maud::{Markup, html};

use super::charts::Bars;
use super::data::{
    AgeFacts, AuditFacts, ColumnFacts, DayFacts, DueFacts, Facts, KekFacts, ReceiptFacts, ShredFacts, VersionFacts,
};
use super::parts::{Cell, badge, chart, grouped, table, told, value};
use super::told::Told;

/// How many rows of a list are shown; JSON has all.
const SHOWN: usize = 200;

pub(super) fn settings(facts: &Facts) -> Markup {
    let kms = facts.settings.kms.iter();
    let kms = kms.map(|kms| vec![Cell::code(&kms.name), Cell::text(kms.provider)]);
    let values = facts.settings.values.iter().map(|setting| {
        let set = if setting.is_default { "default" } else { "set" };
        vec![Cell::code(&setting.key), Cell::text(&setting.value), Cell::text(set)]
    });
    html! {
        p { "Keys are kept in a key store of kind " strong { (value(&facts.settings.key_store)) } ". Addresses, file names and secrets are left out." }
        (table("Key management services", &["Name", "Provider"], kms))
        (table("Settings of keys", &["Setting", "Value", "Set by"], values))
    }
}

pub(super) fn keks(facts: &Facts) -> Markup {
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
            Cell::text_or_dash(kek.last_rotation.as_ref()),
            Cell::text_or_dash(kek.next_rotation.as_ref()),
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

pub(super) fn versions(facts: &Facts) -> Markup {
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
            Cell::text_or_dash(count.oldest_activated_at.as_ref()),
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

fn state(state: &str) -> Markup {
    let class = match state {
        "active" => "good",
        "compromised" => "bad",
        "suspended" => "warn",
        _ => "plain",
    };
    badge(class, state)
}

/// Says what each state means.
fn legend() -> Markup {
    let states = [
        ("pre-active", "no", "yes", "Made, and not yet the one that encrypts; another process may have switched first."),
        ("active", "yes", "yes", "Encrypts all new values of its context. There is at most one."),
        ("deactivated", "no", "yes", "Replaced by a newer version; opens what it encrypted."),
        ("suspended", "no", "no", "Stopped for a time, as before its destruction; can be resumed."),
        ("compromised", "no", "on request", "Known to others. Its values are to be encrypted anew, then it is destroyed."),
        ("destroyed", "no", "no", "Its wraps are deleted, and what it encrypted cannot be read."),
    ];
    let rows = states.map(|(name, encrypts, decrypts, means)| {
        vec![
            Cell::Markup(state(name)),
            Cell::text(encrypts),
            Cell::text(decrypts),
            Cell::text(means),
        ]
    });
    table("What the states mean", &["State", "Encrypts", "Decrypts", "Meaning"], rows)
}

fn ages(ages: &AgeFacts) -> Markup {
    let numbers = table(
        "Active versions by age",
        &["Active for", "#Versions"],
        ages.active.iter().map(|bucket| vec![Cell::text(bucket.age), Cell::number(bucket.versions)]),
    );
    let bars = Bars {
        labels: ages.active.iter().map(|bucket| bucket.age.to_owned()).collect(),
        values: ages.active.iter().map(|bucket| bucket.versions).collect(),
        over: Vec::new(),
    };
    let oldest = ages.oldest_active_days.map_or_else(|| "none".to_owned(), |days| format!("{} days", grouped(days)));
    html! {
        h3 { "Age of active versions" }
        (chart("ages", "Active versions by age", "A bar for each range of ages; the table has the numbers.", &bars, &numbers))
        (table("Ages against the longest periods that NIST suggests", &["What", "#Value"], [
            vec![Cell::text("Oldest active version"), Cell::Number(oldest)],
            vec![Cell::text("Active versions that encrypt for more than 2 years"), Cell::number(ages.active_over_2_years)],
            vec![Cell::text("Deactivated versions that decrypt for more than 3 years beyond"), Cell::number(ages.deactivated_over_3_years)],
            vec![Cell::text("Versions without a wrap, which decrypt nothing"), Cell::number(ages.without_wraps)],
        ]))
    }
}

pub(super) fn rotation(facts: &Facts) -> Markup {
    told("Versions that are due", &facts.due, due)
}

fn due(due: &DueFacts) -> Markup {
    let rows = due.first.iter().map(|version| {
        vec![
            Cell::code(&version.id),
            Cell::text(version.usage),
            Cell::code(&version.context),
            Cell::text(&version.active_since),
            Cell::Number(format!("{} days", grouped(version.period_days))),
        ]
    });
    let header = ["Version", "Usage", "Encryption context", "Active since", "#Period"];
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

pub(super) fn history(facts: &Facts) -> Markup {
    told("Audit log", &facts.audit, months)
}

fn months(audit: &AuditFacts) -> Markup {
    let numbers = table(
        "Changes of data keys by month",
        &["Month", "#Rotations", "#First versions", "#Destroyed"],
        audit.months.iter().map(|month| {
            vec![
                Cell::text(&month.month),
                Cell::number(month.rotations),
                Cell::number(month.first_versions),
                Cell::number(month.destroyed),
            ]
        }),
    );
    let bars = Bars {
        labels: audit.months.iter().map(|month| month.month.clone()).collect(),
        values: audit.months.iter().map(|month| month.rotations).collect(),
        over: Vec::new(),
    };
    html! {
        p {
            "The audit log has " strong { (grouped(audit.entries)) } " entries"
            @if let (Some(first), Some(last)) = (&audit.first_at, &audit.last_at) {
                ", from " (value(first)) " to " (value(last))
            }
            "; " (grouped(audit.with_user)) " name the database's user."
            @if audit.unreadable > 0 {
                " " (badge("bad", "finding")) " Entries that were edited and say nothing that encx writes: " (grouped(audit.unreadable)) "."
            }
        }
        (chart("months", "Rotations of data keys by month", "A bar for each of the last 24 months; the table has the numbers.", &bars, &numbers))
    }
}

pub(super) fn usage(facts: &Facts) -> Markup {
    html! {
        (told("Use by day", &facts.days, |list| days(list)))
        (told("Cost", &facts.cost, |cost| html! {
            (table("Estimated cost of the KMSs in USD", &["What", "#USD"], [
                vec![Cell::text("A month"), Cell::Number(format!("{:.2}", cost.usd_per_month))],
                vec![Cell::text("Of this for calls"), Cell::Number(format!("{:.2}", cost.calls_usd))],
                vec![Cell::text("Of this for KEKs"), Cell::Number(format!("{:.2}", cost.keks_usd))],
            ]))
            p .muted { "From " (grouped(cost.days)) " days on which something was counted, by the list price of AWS KMS; other providers are taken to cost nothing." }
        }))
    }
}

fn days(days: &[DayFacts]) -> Markup {
    let numbers = table(
        "Use by day",
        &["Day", "#KMS calls", "#Failed", "#USD", "#Encrypted", "#Decrypted", "#Refused"],
        days.iter().rev().map(|day| {
            vec![
                Cell::text(&day.day),
                Cell::number(day.kms_calls),
                Cell::number(day.kms_failures),
                Cell::Number(format!("{:.4}", day.calls_usd)),
                Cell::number(day.encrypts),
                Cell::number(day.decrypts),
                Cell::number(day.refusals),
            ]
        }),
    );
    let bars = Bars {
        labels: days.iter().map(|day| day.day.clone()).collect(),
        values: days.iter().map(|day| day.kms_calls).collect(),
        over: days.iter().map(|day| day.kms_failures).collect(),
    };
    html! {
        (chart("days", "Calls of KMSs by day", "A bar for each day, and in it the part that failed; the table has the numbers.", &bars, &numbers))
        ul .legend { li { span .swatch .bar {} "calls" } li { span .swatch .over {} "of these failed" } }
    }
}

pub(super) fn columns(facts: &Facts) -> Markup {
    let rows = facts.columns.iter().map(|column| {
        vec![
            Cell::code(column.name()),
            Cell::Markup(verified(column)),
            match column.verified.known() {
                Some(verified) => Cell::number(verified.opened),
                None => Cell::text("–"),
            },
            match column.verified.known() {
                Some(verified) => Cell::number(verified.failed),
                None => Cell::text("–"),
            },
            Cell::Markup(census(column)),
        ]
    });
    let header = ["Column", "Last verify", "#Opened", "#Failed", "Rows by state of their key"];
    let faults: Vec<_> = facts.columns.iter().flat_map(faults).collect();
    html! {
        p { "Columns that the settings declare as encrypted. A verify opens every row of a column; a census counts rows by the key that they name." }
        (table("Declared columns", &header, rows))
        @if !faults.is_empty() { (table("Rows that did not open", &["Column", "Kind", "#Rows", "First of them"], faults)) }
    }
}

fn verified(column: &ColumnFacts) -> Markup {
    html! {
        @match column.verified.known() {
            None => (value(&column.verified.why().unwrap_or_default())),
            Some(verified) => {
                @match (verified.failed, verified.is_complete) {
                    (0, true) => (badge("good", "complete")),
                    (0, false) => (badge("warn", "not finished")),
                    _ => (badge("bad", "rows failed")),
                }
                @if let Some(at) = &verified.at { " " (value(at)) }
            }
        }
    }
}

fn census(column: &ColumnFacts) -> Markup {
    html! {
        @match column.census.known() {
            None => (value(&column.census.why().unwrap_or_default())),
            Some(counts) => {
                @if counts.is_empty() { "no rows" }
                @for count in counts {
                    span .count { (grouped(count.rows)) " " (rows_under(count.state)) } " "
                }
            }
        }
    }
}

fn rows_under(name: &str) -> Markup {
    match name {
        super::verified::MISSING | super::verified::NO_KEY | "destroyed" => badge("bad", name),
        name => state(name),
    }
}

fn faults(column: &ColumnFacts) -> Vec<Vec<Cell>> {
    let verified = column.verified.known();
    let faults = verified.map(|verified| &verified.faults[..]).unwrap_or_default();
    let rows = faults.iter().map(|fault| {
        vec![
            Cell::code(column.name()),
            Cell::text(&fault.kind),
            Cell::number(fault.rows),
            Cell::text(fault.examples.join("; ")),
        ]
    });
    rows.collect()
}

pub(super) fn shreddings(facts: &Facts) -> Markup {
    html! {
        (told("Shredded contexts", &facts.shreddings, shredded))
        (told("Receipts", &facts.receipts, |list| receipts(list)))
    }
}

fn shredded(shredded: &ShredFacts) -> Markup {
    let rows = shredded.contexts.iter().take(SHOWN).map(|of| {
        vec![
            Cell::code(&of.context),
            Cell::text_or_dash(of.destroyed_at.as_ref()),
            Cell::number(of.versions),
            Cell::text_or_dash(of.by.as_ref()),
            Cell::text_or_dash(of.reason.as_ref()),
        ]
    });
    let header = ["Encryption context", "Destroyed at", "#Versions", "By", "Reason"];
    html! {
        p { "Contexts of which every version, of every usage, is destroyed. A backup of the database brings them back as long as a KEK that wrapped them exists." }
        (table("Shredded contexts", &header, rows))
        @if shredded.contexts.len() > SHOWN { p .muted { "The latest " (SHOWN) " of " (grouped(shredded.contexts.len() as u64)) "." } }
        @if shredded.is_cut_short { p .muted { "There are more destroyed keys than were looked at." } }
    }
}

fn receipts(receipts: &[ReceiptFacts]) -> Markup {
    let rows = receipts.iter().rev().take(SHOWN).map(|receipt| {
        let complete = match receipt.is_complete {
            true => badge("good", "complete"),
            false => badge("warn", "processes open"),
        };
        vec![
            Cell::number(receipt.number),
            Cell::code(&receipt.context),
            Cell::text(&receipt.shredded_at),
            Cell::number(receipt.versions),
            Cell::Markup(complete),
            Cell::text(&receipt.reason),
        ]
    });
    let header = ["#Number", "Encryption context", "Shredded at", "#Versions", "Processes", "Reason"];
    html! {
        (table("Receipts of shreddings", &header, rows))
        @if receipts.len() > SHOWN { p .muted { "The latest " (SHOWN) " of " (grouped(receipts.len() as u64)) "." } }
    }
}

pub(super) fn processes(facts: &Facts) -> Markup {
    told("Processes", &facts.processes, |processes| {
        let rows = processes.iter().map(|process| {
            let state = match process.is_silent {
                true => badge("warn", "silent"),
                false => badge("good", "heard of"),
            };
            vec![
                Cell::code(&process.name),
                Cell::Markup(state),
                Cell::text(&process.started_at),
                Cell::text(&process.seen_at),
            ]
        });
        html! {
            p { "Processes that are registered with the key store. The one that made this report is left out." }
            (table("Processes", &["Name", "State", "Since", "Last heard of"], rows))
        }
    })
}
