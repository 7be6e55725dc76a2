//! Sections about history: rotations, usage and cost, processes.

use maud::{Markup, html};

use crate::report::charts::Bars;
use crate::report::data::{AuditFacts, DayFacts, Facts};
use crate::report::parts::{Cell, Chart, badge, chart, grouped, table, told, value};

pub(crate) fn history(facts: &Facts) -> Markup {
    told("Audit log", &facts.audit, months)
}

fn months(audit: &AuditFacts) -> Markup {
    let numbers = table(
        "Changes of data keys by month",
        &["Month", "#Rotations", "#First versions", "#Destroyed"],
        audit.months.iter().map(|month| {
            vec![
                Cell::moment(&month.month),
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
    let drawn = Chart {
        id: "months",
        title: "Rotations of data keys by month",
        description: "A bar for each of the last 24 months; the table has the numbers.",
        legend: None,
        bars,
    };
    html! {
        p {
            "The audit log has " strong { (grouped(audit.entries)) } " entries"
            @if let (Some(first), Some(last)) = (&audit.first_at, &audit.last_at) {
                ", from " (value(first)) " to " (value(last))
            }
            "; " (grouped(audit.with_user)) " of them name the database's user."
            @if audit.unreadable > 0 {
                " " (badge("bad", "finding")) " Entries that were edited and say nothing that encx writes: " (grouped(audit.unreadable)) "."
            }
        }
        (chart(&drawn, &numbers))
    }
}

pub(crate) fn usage(facts: &Facts) -> Markup {
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
    let calls = table(
        "Calls of KMSs by day",
        &["Day", "#Calls", "#Failed", "#USD"],
        days.iter().rev().map(|day| {
            vec![
                Cell::moment(&day.day),
                Cell::number(day.kms_calls),
                Cell::number(day.kms_failures),
                Cell::Number(format!("{:.4}", day.calls_usd)),
            ]
        }),
    );
    let values = table(
        "Values encrypted, decrypted and refused by day",
        &["Day", "#Encrypted", "#Decrypted", "#Refused"],
        days.iter().rev().map(|day| {
            vec![
                Cell::moment(&day.day),
                Cell::number(day.encrypts),
                Cell::number(day.decrypts),
                Cell::number(day.refusals),
            ]
        }),
    );
    let of = |get: fn(&DayFacts) -> u64| days.iter().map(get).collect();
    // The table shows the years.
    let labels = days
        .iter()
        .map(|day| day.day.get(5..).unwrap_or(&day.day).to_owned());
    let of_calls = Chart {
        id: "calls",
        title: "Calls of KMSs by day",
        description: "A bar for each day, and in it the part that failed; the table has the numbers.",
        legend: Some(["all calls", "those that failed"]),
        bars: Bars {
            labels: labels.collect(),
            values: of(|day| day.kms_calls),
            over: of(|day| day.kms_failures),
        },
    };
    html! {
        (chart(&of_calls, &calls))
        div .days { (values) }
    }
}

pub(crate) fn processes(facts: &Facts) -> Markup {
    told("Processes", &facts.processes, |processes| {
        let rows = processes.iter().map(|process| {
            let state = match process.is_silent {
                true => badge("warn", "silent"),
                false => badge("good", "heard of"),
            };
            vec![
                Cell::code(&process.name),
                Cell::Markup(state),
                Cell::moment(&process.started_at),
                Cell::moment(&process.seen_at),
            ]
        });
        html! {
            p { "Processes that are registered with the key store. The one that made this report is left out." }
            (table("Processes", &["Name", "State", "Since", "Last heard of"], rows))
        }
    })
}
