//! Resolves a setting from two sources: the environment, which wins, and the file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::describe::DescribedSetting;
use crate::document::{Node, Section, Value};
use crate::error::ConfigError;
use crate::keys::{self, Key};
use crate::secret::SecretUrl;
use crate::source::{Origin, Set};
use crate::units::{self, Refused};

/// The environment, of the process or as given.
pub(crate) type Environment = BTreeMap<String, String>;

/// An entry, from the file or as text from the environment.
pub(crate) enum Raw {
    Node(Node),
    Text(String),
}

/// Looks up settings and records what was found.
pub(crate) struct Resolver<'a> {
    env: &'a Environment,
    file: BTreeMap<&'static str, Section>,
    pub(crate) described: Vec<DescribedSetting>,
}

impl<'a> Resolver<'a> {
    /// Splits the file into the sections that have their own keys.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] if a section is not a table.
    pub(crate) fn new(env: &'a Environment, file: Option<&mut Section>) -> Result<Self, ConfigError> {
        let mut sections = BTreeMap::new();
        if let Some(file) = file {
            // `key_store = "postgres://…"` is short for a table with this `url`.
            let key_store = match file.take("key_store") {
                Some(Node {
                    line,
                    value: value @ Value::Text(_),
                }) => {
                    let url = Node { line, value };
                    let entries = BTreeMap::from([("url".to_owned(), url)]);
                    Some(Node {
                        line,
                        value: Value::Table(entries),
                    })
                }
                other => other,
            };
            if let Some(node) = key_store {
                sections.insert("key_store", file.section_of("key_store".to_owned(), node)?);
            }
            let named: BTreeSet<_> = keys::all()
                .filter_map(|key| Some(key.path.split_once('.')?.0))
                .collect();
            for name in named.into_iter().filter(|name| *name != "key_store") {
                sections.insert(name, file.section(name)?);
            }
            let own: BTreeMap<_, _> = keys::all()
                .filter(|key| !key.path.contains('.'))
                .filter_map(|key| Some((key.path.to_owned(), file.take(key.path)?)))
                .collect();
            let own = Node {
                line: 1,
                value: Value::Table(own),
            };
            sections.insert("", file.section_of(String::new(), own)?);
        }
        Ok(Self {
            env,
            file: sections,
            described: Vec::new(),
        })
    }

    /// Returns a section, for keys that have no variable.
    pub(crate) fn section(&mut self, name: &str) -> Option<&mut Section> {
        self.file.get_mut(name)
    }

    /// Refuses keys that were not asked for.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnknownKey`].
    pub(crate) fn finish(self) -> Result<Vec<DescribedSetting>, ConfigError> {
        self.file.into_values().try_for_each(Section::finish)?;
        Ok(self.described)
    }

    fn raw(&mut self, key: &Key) -> Option<Set<Raw>> {
        let of_env = |variable: &str| {
            let value = self.env.get(variable).filter(|value| !value.is_empty())?;
            let origin = Origin::Env {
                variable: variable.to_owned(),
            };
            Some(Set {
                value: Raw::Text(value.clone()),
                origin,
            })
        };
        let by_variable = of_env(key.variable);
        let by_else = key.else_variable.and_then(of_env);
        let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
        // Removed from the file even if a variable wins, because the key is a known setting.
        let by_file = self.file.get_mut(section).and_then(|section| {
            let node = section.take(name)?;
            let origin = section.origin_at(name, node.line);
            Some(Set {
                value: Raw::Node(node),
                origin,
            })
        });
        by_variable.or(by_file).or(by_else)
    }

    pub(crate) fn describe(&mut self, key: &Key, set: Option<(&Origin, String)>) {
        let (origin, value) = match set {
            Some((origin, value)) => (origin, value),
            None => (&Origin::Default, key.default.to_owned()),
        };
        self.described.push(DescribedSetting {
            key: key.path.to_owned(),
            value,
            origin: origin.to_string(),
            variable: Some(key.variable.to_owned()),
            is_default: *origin == Origin::Default,
        });
    }

    /// Describes a setting without a variable.
    pub(crate) fn describe_file(&mut self, key: String, value: String, origin: &Origin) {
        self.described.push(DescribedSetting {
            key,
            value,
            origin: origin.to_string(),
            variable: None,
            is_default: false,
        });
    }

    fn read<T>(
        &mut self,
        key: &Key,
        number_too: bool,
        parse: impl Fn(&str) -> Result<T, Refused>,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<Set<T>>, ConfigError> {
        let Some(Set { value: raw, origin }) = self.raw(key) else {
            self.describe(key, None);
            return Ok(None);
        };
        let text = match raw {
            Raw::Node(Node {
                value: Value::Boolean(boolean),
                ..
            }) => boolean.to_string(),
            Raw::Node(Node {
                value: Value::Number(number),
                ..
            }) if number_too => number,
            Raw::Node(Node {
                value: Value::Text(text),
                ..
            })
            | Raw::Text(text) => text,
            Raw::Node(node) => {
                let what = format!("it is {}", node.value.kind());
                let write = "text in quotes".to_owned();
                return Err(ConfigError::Value { origin, what, write });
            }
        };
        let value = match parse(&text) {
            Ok(value) => value,
            Err(Refused { what, write }) => return Err(ConfigError::Value { origin, what, write }),
        };
        self.describe(key, Some((&origin, show(&value))));
        Ok(Some(Set { value, origin }))
    }

    /// # Errors
    ///
    /// [`ConfigError::Value`] if it has no unit, or is not a duration.
    pub(crate) fn duration(&mut self, key: &Key) -> Result<Option<Duration>, ConfigError> {
        let read = self.read(key, true, units::duration, |value| units::duration_text(*value))?;
        Ok(read.map(|set| set.value))
    }

    /// Like [`duration`](Self::duration), but longer than zero.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`].
    pub(crate) fn some_duration(&mut self, key: &Key) -> Result<Option<Duration>, ConfigError> {
        let parse = |text: &str| match units::duration(text)? {
            Duration::ZERO => Err(Refused {
                what: "it must be longer than zero".to_owned(),
                write: "a number and a unit, such as `90s` or `60min`".to_owned(),
            }),
            duration => Ok(duration),
        };
        let read = self.read(key, true, parse, |value| units::duration_text(*value))?;
        Ok(read.map(|set| set.value))
    }

    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is neither yes nor no.
    pub(crate) fn boolean(&mut self, key: &Key) -> Result<Option<bool>, ConfigError> {
        let read = self.read(key, true, units::boolean, bool::to_string)?;
        Ok(read.map(|set| set.value))
    }

    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a whole number in the range.
    pub(crate) fn integer(&mut self, key: &Key, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        let parse = |text: &str| units::integer(text, least, most);
        let read = self.read(key, true, parse, u64::to_string)?;
        Ok(read.map(|set| set.value))
    }

    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a fraction.
    pub(crate) fn part(&mut self, key: &Key) -> Result<Option<f64>, ConfigError> {
        let read = self.read(key, true, units::part, f64::to_string)?;
        Ok(read.map(|set| set.value))
    }

    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a text.
    pub(crate) fn text(&mut self, key: &Key) -> Result<Option<Set<String>>, ConfigError> {
        self.read(key, false, |text| Ok(text.to_owned()), String::clone)
    }

    /// # Errors
    ///
    /// [`ConfigError::Value`] if it is not a text.
    pub(crate) fn url(&mut self, key: &Key) -> Result<Option<Set<SecretUrl>>, ConfigError> {
        self.read(key, false, |text| Ok(SecretUrl::new(text)), SecretUrl::to_string)
    }

    /// Reads a list: in the file a list or a single entry, in a variable entries separated by commas. `parse` reads an
    /// entry.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`], and those of `parse`.
    pub(crate) fn list<T>(
        &mut self,
        key: &Key,
        parse: impl Fn(&Origin, Raw) -> Result<T, ConfigError>,
        show: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(Set { value: raw, origin }) = self.raw(key) else {
            self.describe(key, None);
            return Ok(Vec::new());
        };
        let entries: Vec<T> = match raw {
            Raw::Node(Node {
                value: Value::List(list),
                ..
            }) => list
                .into_iter()
                .map(|node| parse(&origin, Raw::Node(node)))
                .collect::<Result<_, _>>()?,
            Raw::Node(node) => vec![parse(&origin, Raw::Node(node))?],
            Raw::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(|entry| parse(&origin, Raw::Text(entry.to_owned())))
                .collect::<Result<_, _>>()?,
        };
        let shown: Vec<_> = entries.iter().map(show).collect();
        self.describe(key, Some((&origin, shown.join(", "))));
        Ok(entries)
    }

    /// Reads one entry, which may be a table in the file.
    ///
    /// # Errors
    ///
    /// Those of `parse`.
    pub(crate) fn entry<T>(
        &mut self,
        key: &Key,
        parse: impl Fn(&Origin, Raw) -> Result<T, ConfigError>,
        show: impl Fn(&T) -> String,
    ) -> Result<Option<Set<T>>, ConfigError> {
        let Some(Set { value: raw, origin }) = self.raw(key) else {
            self.describe(key, None);
            return Ok(None);
        };
        let value = parse(&origin, raw)?;
        self.describe(key, Some((&origin, show(&value))));
        Ok(Some(Set { value, origin }))
    }
}
