//! A listing of settings: their values, and what sets them, for people and programs.

use std::fmt;

use serde::Serialize;

/// One setting in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DescribedSetting {
    /// Its key in the file, such as `cache.ttl`.
    pub key: String,
    /// Its value, without secrets.
    pub value: String,
    /// What sets it: `default`, the variable in backticks, or the key, file and line.
    pub origin: String,
    /// The variable that can set it, if there is one.
    pub variable: Option<String>,
    /// Whether the default applies.
    pub is_default: bool,
}

/// A list of all settings. `Display` writes a table; it is serialised as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[must_use]
pub struct Description(pub(crate) Vec<DescribedSetting>);

impl Description {
    /// Returns the settings, in the order of the documentation.
    #[must_use]
    pub fn settings(&self) -> &[DescribedSetting] {
        &self.0
    }

    /// Finds a setting by its key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&DescribedSetting> {
        self.0.iter().find(|setting| setting.key == key)
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&DescribedSetting) -> &str| {
            self.0
                .iter()
                .map(|setting| of(setting).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (keys, values) = (width(|setting| &setting.key), width(|setting| &setting.value));
        for DescribedSetting {
            key, value, origin, ..
        } in &self.0
        {
            writeln!(f, "{key:keys$}  {value:values$}  {origin}")?;
        }
        Ok(())
    }
}
