//! A file as a tree of keys and values with line numbers. Reading a value removes it, so what remains is unknown and
//! refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::keys::similar;
use crate::source::{Origin, Set};

/// A value with its line.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// A TOML value. Numbers stay text.
#[derive(Debug)]
pub(crate) enum Value {
    Boolean(bool),
    List(Vec<Node>),
    Number(String),
    Other,
    Table(BTreeMap<String, Node>),
    Text(String),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Number(_) => "a number",
            Self::Other => "a date or time",
            Self::Table(_) => "a table",
            Self::Text(_) => "text",
        }
    }
}

/// A table, with its full name and the keys that have been asked for.
#[derive(Debug)]
pub(crate) struct Section {
    path: Arc<PathBuf>,
    /// Such as `cache`, `kms.eu` or `column[2]`; empty for the whole file.
    name: String,
    line: usize,
    entries: BTreeMap<String, Node>,
    asked: Vec<String>,
}

impl Section {
    /// Parses the text of a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`], with the line.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_path_buf(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            what: error.message().replace('\n', ", "),
        })?;
        Ok(Self {
            path: Arc::new(path.to_path_buf()),
            name: String::new(),
            line: 1,
            entries: entries_of(table.into_inner(), text),
            asked: Vec::new(),
        })
    }

    /// Finds a text that satisfies a predicate, and returns its origin.
    pub(crate) fn find_text(&self, has: fn(&str) -> bool) -> Option<Origin> {
        fn find(entries: &BTreeMap<String, Node>, has: fn(&str) -> bool) -> Option<(String, usize)> {
            entries.iter().find_map(|(key, node)| {
                let (inner, line) = find_in(node, has)?;
                Some((format!("{key}{inner}"), line))
            })
        }
        fn find_in(node: &Node, has: fn(&str) -> bool) -> Option<(String, usize)> {
            match &node.value {
                Value::Text(text) => has(text).then(|| (String::new(), node.line)),
                Value::List(list) => list.iter().find_map(|node| find_in(node, has)),
                Value::Table(entries) => find(entries, has).map(|(key, line)| (format!(".{key}"), line)),
                Value::Boolean(_) | Value::Number(_) | Value::Other => None,
            }
        }
        let (key, line) = find(&self.entries, has)?;
        Some(self.origin_at(&key, line))
    }

    /// Removes and returns a value.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
        }
        self.entries.remove(key)
    }

    /// Removes and returns all remaining values.
    pub(crate) fn take_all(&mut self) -> BTreeMap<String, Node> {
        std::mem::take(&mut self.entries)
    }

    /// Removes and returns a text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a text, or empty.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<Set<String>>, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let origin = self.origin_at(key, node.line);
        match node.value {
            Value::Text(value) if !value.is_empty() => Ok(Some(Set { value, origin })),
            Value::Text(_) => Err(ConfigError::Value {
                origin,
                what: "it is empty".to_owned(),
                write: "a text, or leave it out".to_owned(),
            }),
            _ => Err(self.wrong(&self.full(key), &node, "text in quotes")),
        }
    }

    /// Removes and returns a required text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is missing, not a text, or empty.
    pub(crate) fn needed_text(&mut self, key: &str, write: &str) -> Result<Set<String>, ConfigError> {
        let text = self.text(key)?;
        text.ok_or_else(|| ConfigError::Value {
            origin: self.origin(),
            what: format!("it has no `{key}`"),
            write: write.to_owned(),
        })
    }

    /// Removes and returns a list of texts. A single text counts as a list.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is neither.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<String>, ConfigError> {
        let (name, write) = (self.full(key), "a list of texts, such as `[\"a\", \"b\"]`");
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Node {
                value: Value::Text(text),
                ..
            }) => Ok(vec![text]),
            Some(Node {
                value: Value::List(list),
                ..
            }) => list
                .into_iter()
                .map(|node| match node.value {
                    Value::Text(text) => Ok(text),
                    _ => Err(self.wrong(&name, &node, write)),
                })
                .collect(),
            Some(node) => Err(self.wrong(&name, &node, write)),
        }
    }

    /// Removes and returns a table; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a table.
    pub(crate) fn section(&mut self, key: &str) -> Result<Section, ConfigError> {
        let name = self.full(key);
        match self.take(key) {
            None => Ok(self.empty(name)),
            Some(node) => self.section_of(name, node),
        }
    }

    /// Removes and returns a list of tables; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a list of tables.
    pub(crate) fn sections(&mut self, key: &str) -> Result<Vec<Section>, ConfigError> {
        let name = self.full(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Node {
                value: Value::List(list),
                ..
            }) => {
                let numbered = (1..).zip(list);
                numbered
                    .map(|(number, node)| self.section_of(format!("{name}[{number}]"), node))
                    .collect()
            }
            Some(node) => Err(self.wrong(&name, &node, &format!("`[[{name}]]` above each entry"))),
        }
    }

    /// Makes a section of a value that was removed from this one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a table.
    pub(crate) fn section_of(&self, name: String, node: Node) -> Result<Section, ConfigError> {
        match node.value {
            Value::Table(entries) => Ok(Section {
                path: Arc::clone(&self.path),
                name,
                line: node.line,
                entries,
                asked: Vec::new(),
            }),
            _ => Err(self.wrong(&name, &node, "a table, such as `{ key = \"value\" }`")),
        }
    }

    fn wrong(&self, name: &str, node: &Node, write: &str) -> ConfigError {
        ConfigError::Value {
            origin: self.origin_of(name.to_owned(), node.line),
            what: format!("it is {}", node.value.kind()),
            write: write.to_owned(),
        }
    }

    fn empty(&self, name: String) -> Section {
        Section {
            path: Arc::clone(&self.path),
            name,
            line: 0,
            entries: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    /// Returns where the section starts.
    pub(crate) fn origin(&self) -> Origin {
        self.origin_of(self.name.clone(), self.line)
    }

    /// Returns the origin of a key of this section.
    pub(crate) fn origin_at(&self, key: &str, line: usize) -> Origin {
        self.origin_of(self.full(key), line)
    }

    fn origin_of(&self, key: String, line: usize) -> Origin {
        Origin::File {
            path: Arc::clone(&self.path),
            line,
            key,
        }
    }

    fn full(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }

    /// Refuses remaining keys.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnknownKey`], with the keys allowed there.
    pub(crate) fn finish(self) -> Result<(), ConfigError> {
        let Some((key, node)) = self.entries.iter().min_by_key(|(_, node)| node.line) else {
            return Ok(());
        };
        let mut allowed: Vec<_> = self.asked.clone();
        allowed.sort();
        Err(ConfigError::UnknownKey {
            origin: self.origin_at(key, node.line),
            similar: similar(key, allowed.iter().map(String::as_str)),
            allowed: allowed.into_iter().map(|key| format!("`{key}`")).collect(),
        })
    }
}

fn entries_of(table: DeTable<'_>, text: &str) -> BTreeMap<String, Node> {
    let entries = table.into_iter().map(|(key, value)| {
        let line = line_of(text, key.span().start);
        (key.into_inner().into_owned(), node_of(value, line, text))
    });
    entries.collect()
}

fn node_of(value: Spanned<DeValue<'_>>, line: usize, text: &str) -> Node {
    let value = match value.into_inner() {
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|value| {
                    let line = line_of(text, value.span().start);
                    node_of(value, line, text)
                })
                .collect(),
        ),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(_) => Value::Other,
        DeValue::Float(float) => Value::Number(float.as_str().to_owned()),
        DeValue::Integer(integer) => Value::Number(integer.to_string()),
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Table(table) => Value::Table(entries_of(table, text)),
    };
    Node { line, value }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.split(|byte| *byte == b'\n').count().saturating_sub(1)
}

/// Writes a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            char if char.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(char))),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes an inline table of entries that are written already.
pub(crate) fn inline(entries: &[String]) -> String {
    format!("{{ {} }}", entries.join(", "))
}

/// Writes a TOML key: bare if possible.
pub(crate) fn quoted_key(key: &str) -> String {
    let is_bare = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    if !key.is_empty() && key.chars().all(is_bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Section, ConfigError> {
        Section::parse(Path::new("encx.toml"), text)
    }

    #[test]
    fn what_is_left_is_refused_with_its_line_and_what_may_stand_there() {
        let mut file = parse("a = 1\n\n[cache]\nttl = \"1h\"\nstate_tll = \"1m\"\n").unwrap();
        assert!(matches!(file.take("a"), Some(Node { line: 1, value: Value::Number(one) }) if one == "1"));
        let mut cache = file.section("cache").unwrap();
        assert!(cache.take("ttl").is_some());
        assert!(cache.take("state_ttl").is_none());
        assert_eq!(
            cache.finish().unwrap_err().to_string(),
            "`cache.state_tll` in encx.toml, line 5 is not a setting; did you mean `state_ttl`?; allowed here: `state_ttl`, `ttl`"
        );
        file.finish().unwrap();
    }

    #[test]
    fn errors_of_toml_have_their_line() {
        for (text, line) in [
            ("a = 1\nb = \n", 2),
            ("a = 1\na = 2\n", 2),
            ("[x\n", 1),
            ("a = 1\n\n= 3", 3),
        ] {
            match parse(text) {
                Err(ConfigError::Syntax {
                    line: found, what, ..
                }) => {
                    assert_eq!(found, line, "{text:?}: {what}");
                    assert!(!what.is_empty() && !what.contains('\n'), "{what}");
                }
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_quoted_is_read_again() {
        for text in ["", "plain", "a \"b\" \\ c", "line\nand\ttab", "\u{1}", "Straße"] {
            let document = format!("x = {}\n{} = 1", quoted(text), quoted_key(&format!("k{text}")));
            let mut file = parse(&document).unwrap();
            assert!(matches!(file.take("x"), Some(Node { value: Value::Text(read), .. }) if read == text));
            assert!(file.take(&format!("k{text}")).is_some(), "{document}");
        }
    }
}
