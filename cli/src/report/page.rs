//! The HTML page: one file without scripts or external resources.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::data::{Control, Level, Report, Standing};
use super::parts::{badge, grouped, value};
use super::sections;

const STYLE: &str = include_str!("page.css");

/// The file contains everything: no script, no request.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Renders the report as a page.
pub(crate) fn page(report: &Report) -> String {
    let facts = &report.facts;
    let day = report.generated_at.split('T').next().unwrap_or_default();
    let sections = [
        ("keks", "Key-encryption keys", sections::keks(facts)),
        ("versions", "Versions of data keys", sections::versions(facts)),
        ("rotation", "Rotation due", sections::rotation(facts)),
        ("history", "Rotations over time", sections::history(facts)),
        ("columns", "Encrypted columns", sections::columns(facts)),
        ("shreddings", "Shreddings", sections::shreddings(facts)),
        ("use", "Use and cost", sections::usage(facts)),
        ("processes", "Processes", sections::processes(facts)),
        ("settings", "Settings", sections::settings(facts)),
        ("controls", "Controls", controls(&report.controls)),
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                meta name="generator" content=(report.program);
                title { "Key management report, " (day) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                a .skip href="#main" { "Skip to the summary" }
                header .top {
                    h1 { "Key management report" }
                    p .lede { "What encx, envelope encryption for services, shows of the keys of this system." }
                    dl .meta {
                        div { dt { "Generated" } dd { time datetime=(report.generated_at) { (report.generated_at) } } }
                        div { dt { "Program" } dd { (report.program) } }
                        div { dt { "Key store" } dd { (value(&facts.settings.key_store)) } }
                        div { dt { "KMS" } dd {
                            @for (at, kms) in facts.settings.kms.iter().enumerate() {
                                @if at > 0 { ", " }
                                (value(&kms.name)) " (" (kms.provider) ")"
                            }
                        } }
                    }
                }
                nav aria-label="Contents" {
                    ul {
                        li { a href="#summary" { "Summary" } }
                        @for (id, title, _) in &sections { li { a href={ "#" (id) } { (title) } } }
                    }
                }
                main #main tabindex="-1" {
                    section #summary {
                        h2 { "Summary" }
                        (summary(report))
                    }
                    @for (id, title, content) in &sections {
                        section id=(id) {
                            h2 { (title) }
                            (content)
                        }
                    }
                }
                footer {
                    p {
                        "The report says what the key store, its audit log, the KMSs and the settings said at " (report.generated_at) ". \
                         Who can write to the key store's database can change what these tables say: read it beside the KMS's own log. \
                         Moments are in UTC. "
                        code { "encx report --format json" } " gives the same as data."
                    }
                }
            }
        }
    };
    page.into_string()
}

fn summary(report: &Report) -> Markup {
    let count = |level| report.summary.iter().filter(|check| check.level == level).count();
    html! {
        ul .tiles aria-label="Topics by status" {
            @for level in [Level::InOrder, Level::Attention, Level::Finding, Level::NotKnown] {
                li .tile .(level_class(level)) {
                    span .big { (count(level)) } " " span { (plural(level)) }
                }
            }
        }
        table .stack role="table" {
            caption { "Topics and what was found" }
            thead role="rowgroup" { tr role="row" {
                th scope="col" role="columnheader" { "Topic" }
                th scope="col" role="columnheader" { "Status" }
                th scope="col" role="columnheader" { "Found" }
            } }
            tbody role="rowgroup" {
                @for check in &report.summary {
                    tr role="row" {
                        th scope="row" role="rowheader" { a href={ "#" (check.section) } { (check.topic) } }
                        td role="cell" data-label="Status" { (badge(level_class(check.level), check.level.name())) }
                        td role="cell" data-label="Found" { (value(&check.says)) "." }
                    }
                }
            }
        }
        p {
            a href="#controls" { "Controls" } ": "
            @for (at, standing) in Standing::ALL.into_iter().enumerate() {
                @let controls = report.controls.iter().filter(|control| control.standing == standing).count();
                @if at > 0 { ", " }
                (grouped(controls as u64)) " " (in_sentence(standing))
            }
            ". encx shows a part of each control, and never that one is met."
        }
    }
}

/// Names a standing, for use after a number of controls.
fn in_sentence(standing: Standing) -> &'static str {
    match standing {
        Standing::Finding => "with a finding",
        Standing::NotShown | Standing::Partly | Standing::Shown => standing.name(),
    }
}

fn plural(level: Level) -> &'static str {
    match level {
        Level::Finding => "with findings",
        Level::Attention => "to look at",
        Level::InOrder | Level::NotKnown => level.name(),
    }
}

fn level_class(level: Level) -> &'static str {
    match level {
        Level::InOrder => "good",
        Level::NotKnown => "plain",
        Level::Attention => "warn",
        Level::Finding => "bad",
    }
}

fn controls(controls: &[Control]) -> Markup {
    let by_standard = controls.chunk_by(|a, b| a.standard == b.standard);
    html! {
        p {
            "What each control asks is told in our words; the standard's own text holds. "
            em { "Shown" } " means that the evidence beside it was read from this system, and not that the control is met."
        }
        @for controls in by_standard {
            @let standard = controls.first().map(|control| control.standard).unwrap_or_default();
            h3 { (standard) }
            table .stack .controls role="table" {
                caption { "Controls of " (standard) }
                thead role="rowgroup" { tr role="row" {
                    th scope="col" role="columnheader" { "Control" }
                    th scope="col" role="columnheader" { "Asks" }
                    th scope="col" role="columnheader" { "Status" }
                    th scope="col" role="columnheader" { "Evidence in this system" }
                    th scope="col" role="columnheader" { "Not shown by encx" }
                } }
                tbody role="rowgroup" {
                    @for control in controls { (row(control)) }
                }
            }
        }
    }
}

fn row(control: &Control) -> Markup {
    let class = match control.standing {
        Standing::Finding => "bad",
        Standing::NotShown => "plain",
        Standing::Partly => "part",
        Standing::Shown => "good",
    };
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { (control.control) }
            td role="cell" data-label="Asks" { (control.asks) }
            td role="cell" data-label="Status" { (badge(class, control.standing.name())) }
            td role="cell" data-label="Evidence" {
                @if control.evidence.is_empty() { span .muted { "none" } }
                @else { ul { @for line in &control.evidence { li { (value(line)) "." } } } }
            }
            td role="cell" data-label="Not shown by encx" { (control.elsewhere) }
        }
    }
}
