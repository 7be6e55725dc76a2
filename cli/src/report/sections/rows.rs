//! Sections about encrypted columns and shreddings.

use maud::{Markup, html};

use crate::report::data::{ColumnFacts, Facts, ReceiptFacts, ShredFacts};
use crate::report::parts::{Cell, badge, grouped, state, table, told, value};
use crate::report::verified::{MISSING, NO_KEY};

/// Rows of a list that the page shows; the JSON has all.
const SHOWN: usize = 200;

pub(crate) fn columns(facts: &Facts) -> Markup {
    let rows = facts.columns.iter().map(|column| {
        vec![
            Cell::code(column.name()),
            Cell::Markup(verified(column)),
            match column.verified.known() {
                Some(verified) => Cell::number(verified.opened),
                None => Cell::Number("–".to_owned()),
            },
            match column.verified.known() {
                Some(verified) => Cell::number(verified.failed),
                None => Cell::Number("–".to_owned()),
            },
            Cell::Markup(census(column)),
        ]
    });
    let header = [
        "Column",
        "Last verify",
        "#Opened",
        "#Failed",
        "Rows by state of their key",
    ];
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
                @if let Some(at) = &verified.at { " " span .moment { (value(at)) } }
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
        MISSING | NO_KEY | "destroyed" => badge("bad", name),
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
            Cell::prose(fault.examples.join("; ")),
        ]
    });
    rows.collect()
}

pub(crate) fn shreddings(facts: &Facts) -> Markup {
    html! {
        (told("Shredded contexts", &facts.shreddings, shredded))
        (told("Receipts", &facts.receipts, |list| receipts(list)))
    }
}

fn shredded(shredded: &ShredFacts) -> Markup {
    let rows = shredded.contexts.iter().take(SHOWN).map(|of| {
        vec![
            Cell::code(&of.context),
            Cell::moment_or_dash(of.destroyed_at.as_ref()),
            Cell::number(of.versions),
            Cell::prose_or_dash(of.by.as_ref()),
            Cell::prose_or_dash(of.reason.as_ref()),
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
        let state = match (receipt.not_destroyed, receipt.is_complete) {
            (0, true) => badge("good", "destroyed"),
            (0, false) => badge("warn", "a process may read"),
            _ => badge("bad", "not destroyed"),
        };
        vec![
            Cell::number(receipt.number),
            Cell::code(&receipt.context),
            Cell::moment(&receipt.shredded_at),
            Cell::number(receipt.versions),
            Cell::Markup(state),
            Cell::prose(&receipt.reason),
        ]
    });
    let header = [
        "#Number",
        "Encryption context",
        "Shredded at",
        "#Versions",
        "State",
        "Reason",
    ];
    html! {
        (table("Receipts of shreddings", &header, rows))
        @if receipts.len() > SHOWN { p .muted { "The latest " (SHOWN) " of " (grouped(receipts.len() as u64)) "." } }
    }
}
