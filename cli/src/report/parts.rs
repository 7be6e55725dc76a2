//! What sections are made of: badges, tables, charts beside their numbers. Every value is escaped here or by `maud`.

use maud::{Markup, PreEscaped, html};

use super::charts::Bars;
use super::told::Told;
use crate::output::printable;

/// A cell of a table.
pub(super) enum Cell {
    Markup(Markup),
    Number(String),
    Text(String),
}

impl Cell {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(value(text.as_ref()))
    }

    pub(super) fn text_or_dash(text: Option<&String>) -> Self {
        text.map_or_else(|| Self::Text("–".to_owned()), Self::text)
    }

    pub(super) fn number(number: u64) -> Self {
        Self::Number(grouped(number))
    }

    /// Shows a name that is no word: an id, a KEK, a context.
    pub(super) fn code(code: impl AsRef<str>) -> Self {
        let code = value(code.as_ref());
        Self::Markup(html! { code { (code) } })
    }
}

/// Makes visible what would reorder or hide text: a row of the database may say anything.
pub(super) fn value(text: &str) -> String {
    printable(text)
}

/// Writes a number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for at in (first..digits.len()).step_by(3) {
        if !text.is_empty() {
            text.push('\u{202f}');
        }
        text.push_str(&digits[at..at + 3]);
    }
    text
}

/// Says how something is, in a word and a colour.
pub(super) fn badge(class: &str, name: &str) -> Markup {
    html! { span class={ "badge " (class) } { (name) } }
}

/// Names the state of a key in its colour.
pub(super) fn state(state: &str) -> Markup {
    let class = match state {
        "active" => "good",
        "compromised" => "bad",
        "suspended" => "warn",
        _ => "plain",
    };
    badge(class, state)
}

/// Lays out rows, whose first cell is their header. A header that begins with `#` is of numbers.
pub(super) fn table(caption: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Markup {
    let rows: Vec<_> = rows.into_iter().collect();
    html! {
        div .scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead {
                    tr {
                        @for name in header {
                            @match name.strip_prefix('#') {
                                Some(name) => th scope="col" .number { (name) },
                                None => th scope="col" { (name) },
                            }
                        }
                    }
                }
                tbody {
                    @if rows.is_empty() {
                        tr { td colspan=(header.len()) .muted { "none" } }
                    }
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.into_iter().enumerate() {
                                @if at == 0 {
                                    th scope="row" { (content(cell)) }
                                } @else if matches!(cell, Cell::Number(_)) {
                                    td .number { (content(cell)) }
                                } @else {
                                    td { (content(cell)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn content(cell: Cell) -> Markup {
    match cell {
        Cell::Markup(markup) => markup,
        Cell::Number(text) | Cell::Text(text) => html! { (text) },
    }
}

/// Shows a chart and, beside it, the table of its numbers. `id` begins the ids of the chart's texts.
pub(super) fn chart(id: &str, title: &str, description: &str, bars: &Bars, numbers: &Markup) -> Markup {
    let drawn = bars.draw();
    html! {
        div .pair {
            @if let Some((inside, view_box)) = drawn {
                figure {
                    div .scroll role="region" aria-label={ (title) ", chart" } tabindex="0" {
                        svg role="img" aria-labelledby={ (id) "-title " (id) "-desc" } viewBox=(view_box)
                            xmlns="http://www.w3.org/2000/svg" {
                            title id={ (id) "-title" } { (title) }
                            desc id={ (id) "-desc" } { (description) }
                            // Drawn by plotters, which escapes texts.
                            (PreEscaped(inside))
                        }
                    }
                    figcaption { (title) }
                }
            }
            (numbers)
        }
    }
}

/// Shows what is known, or says why it is not.
pub(super) fn told<T>(what: &str, told: &Told<T>, show: impl FnOnce(&T) -> Markup) -> Markup {
    match told.known() {
        Some(known) => show(known),
        None => html! {
            p .unknown { (what) ": " (value(&told.why().unwrap_or_default())) "." }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_escaped() {
        let table = table(
            "<caption>",
            &["<a>", "#<b>"],
            [vec![
                Cell::code("<script>alert(1)</script>"),
                Cell::text("a\"><img\u{202e}"),
            ]],
        );
        let text = table.into_string();
        assert!(
            !text.contains("<script>") && !text.contains("<img") && !text.contains('\u{202e}'),
            "{text}"
        );
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{text}");
        assert!(
            text.contains("<th class=\"number\" scope=\"col\">&lt;b&gt;"),
            "{text}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1\u{202f}000");
        assert_eq!(grouped(12_345_678), "12\u{202f}345\u{202f}678");
    }
}
