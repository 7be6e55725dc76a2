//! Output: data on stdout, messages on stderr; as a table or as JSON.

use std::io::{self, Write};

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// JSON; lists have one object per line.
    Json,
}

/// Writes data to stdout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output(pub(crate) Format);

impl Output {
    pub(crate) fn is_json(self) -> bool {
        self.0 == Format::Json
    }

    /// Writes one value: a JSON object, or the text that `table` makes.
    pub(crate) fn object(self, value: &impl Serialize, table: impl FnOnce() -> String) -> Result<()> {
        match self.0 {
            Format::Json => self.text(&serde_json::to_string_pretty(value)?),
            Format::Table => self.text(&table()),
        }
    }

    /// Writes a list: one JSON object per line, or rows under a header.
    pub(crate) fn list<T: Serialize, const N: usize>(
        self,
        header: [&str; N],
        items: &[T],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<()> {
        match self.0 {
            Format::Json => items
                .iter()
                .try_for_each(|item| self.text(&serde_json::to_string(item)?)),
            Format::Table => self.text(&columns(Some(header), items.iter().map(row))),
        }
    }

    /// Writes text and a line break.
    pub(crate) fn text(self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
        Ok(stdout.flush()?)
    }
}

/// Prints a message to stderr. Never data.
pub(crate) fn tell(text: &str) {
    // If stderr is closed, the message is lost.
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// Lays out rows in columns without borders, as `kubectl` does.
pub(crate) fn columns<const N: usize>(
    header: Option<[&str; N]>,
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // The terminal wraps long lines, so an id stays in one piece.
    table.set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell).replace('\n', "\\n")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Lays out names and values.
pub(crate) fn pairs(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    columns(
        None,
        pairs.into_iter().map(|(name, value)| [name.to_owned(), value]),
    )
}

/// Escapes characters that control a terminal: database rows may contain any text.
pub(crate) fn printable(text: &str) -> String {
    // Text direction, separators and zero-width characters.
    let is_hidden = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let escape = |c: char| (c.is_control() && c != '\n') || is_hidden(c);
    match text.contains(escape) {
        false => text.to_owned(),
        true => text.chars().fold(String::new(), |mut text, c| {
            match escape(c) {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
            text
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_no_lines_and_no_trailing_spaces() {
        let rows = [
            ["1".to_owned(), "active".to_owned()],
            ["12".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            columns(Some(["VERSION", "STATE"]), rows),
            "VERSION  STATE\n1        active\n12       x"
        );
    }

    #[test]
    fn what_would_control_a_terminal_is_escaped() {
        assert_eq!(printable("a\u{1b}]0;title\u{7}\nb"), "a\\u{1b}]0;title\\u{7}\nb");
        assert_eq!(printable("straße"), "straße");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(columns(None, [["two\nlines".to_owned()]]), "two\\nlines");
    }
}
