//! Building blocks of sections: badges, tables, and charts with their numbers. Every value is escaped here or by
//! `maud`.

use maud::{Markup, PreEscaped, html};

use super::charts::Bars;
use super::told::Told;
use crate::output::printable;

/// A table cell.
pub(super) enum Cell {
    /// An identifier.
    Code(String),
    Markup(Markup),
    /// A date; kept on one line.
    Moment(String),
    Number(String),
    /// A sentence; needs a wide column.
    Prose(String),
    Text(String),
}

impl Cell {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(value(text.as_ref()))
    }

    pub(super) fn prose(text: impl AsRef<str>) -> Self {
        Self::Prose(value(text.as_ref()))
    }

    pub(super) fn moment(moment: impl AsRef<str>) -> Self {
        Self::Moment(value(moment.as_ref()))
    }

    pub(super) fn moment_or_dash(moment: Option<&String>) -> Self {
        moment.map_or_else(Self::dash, Self::moment)
    }

    pub(super) fn prose_or_dash(text: Option<&String>) -> Self {
        text.map_or_else(Self::dash, Self::prose)
    }

    pub(super) fn number(number: u64) -> Self {
        Self::Number(grouped(number))
    }

    pub(super) fn code(code: impl AsRef<str>) -> Self {
        Self::Code(value(code.as_ref()))
    }

    fn dash() -> Self {
        Self::Text("–".to_owned())
    }

    /// Returns the CSS class.
    fn class(&self) -> Option<&'static str> {
        match self {
            Self::Code(_) => Some("id"),
            Self::Moment(_) => Some("moment"),
            Self::Number(_) => Some("number"),
            Self::Prose(_) => Some("prose"),
            Self::Markup(_) | Self::Text(_) => None,
        }
    }
}

/// Makes characters visible that reorder or hide text: database rows may contain any text.
pub(super) fn value(text: &str) -> String {
    printable(text)
}

/// Formats a number with grouped thousands.
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

/// Shows a level as a coloured word.
pub(super) fn badge(class: &str, name: &str) -> Markup {
    html! { span class={ "badge " (class) } { (name) } }
}

/// Shows the state of a key in its colour.
pub(super) fn state(state: &str) -> Markup {
    let class = match state {
        "active" => "good",
        "compromised" => "bad",
        "suspended" => "warn",
        _ => "plain",
    };
    badge(class, state)
}

/// Lays out rows whose first cell is a row header. `#` at the start of a column header marks numbers.
pub(super) fn table(caption: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Markup {
    let rows: Vec<_> = rows.into_iter().collect();
    if rows.is_empty() {
        return html! { p .unknown { (caption) ": none." } };
    }
    // Tables with few columns do not fill the page's width.
    let is_narrow = header.len() <= 3;
    html! {
        div .scroll .narrow[is_narrow] role="group" aria-label=(caption) tabindex="0" {
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
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.into_iter().enumerate() {
                                @let class = cell.class();
                                @if at == 0 {
                                    th scope="row" class=[class] { (content(cell)) }
                                } @else {
                                    td class=[class] { (content(cell)) }
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
        Cell::Code(name) => html! { code { (name) } },
        Cell::Markup(markup) => markup,
        Cell::Moment(text) | Cell::Number(text) | Cell::Prose(text) | Cell::Text(text) => html! { (text) },
    }
}

/// A chart: its bars and texts. `id` prefixes the ids of its texts.
pub(super) struct Chart<'c> {
    pub(super) id: &'c str,
    pub(super) title: &'c str,
    pub(super) description: &'c str,
    /// Names of the bars, and of the parts drawn over them.
    pub(super) legend: Option<[&'c str; 2]>,
    pub(super) bars: Bars,
}

/// Shows a chart beside the table of its numbers.
pub(super) fn chart(chart: &Chart<'_>, numbers: &Markup) -> Markup {
    let (id, title) = (chart.id, chart.title);
    html! {
        div .pair {
            @if let Some((inside, view_box)) = chart.bars.draw() {
                figure {
                    div .scroll role="group" aria-label={ (title) ", chart" } tabindex="0" {
                        svg role="img" aria-labelledby={ (id) "-title " (id) "-desc" } viewBox=(view_box)
                            xmlns="http://www.w3.org/2000/svg" {
                            title id={ (id) "-title" } { (title) }
                            desc id={ (id) "-desc" } { (chart.description) }
                            // plotters escapes texts.
                            (PreEscaped(inside))
                        }
                    }
                    figcaption {
                        (title)
                        @if let Some([bars, over]) = chart.legend {
                            ": " span .swatch .bar {} (bars) ", " span .swatch .over {} (over)
                        }
                    }
                }
            }
            (numbers)
        }
    }
}

/// Shows a known part, or why it is unknown.
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
