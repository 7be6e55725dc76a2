//! A sentence of evidence, and its level.

use crate::report::data::Level;
use crate::report::told::Told;

/// A sentence of evidence about this system.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) says: String,
    pub(crate) level: Level,
    /// Whether it was read from this system, rather than true for every encx system.
    pub(crate) is_measured: bool,
}

impl Line {
    /// States what encx does in every system.
    pub(crate) fn built_in(says: &str) -> Self {
        Self {
            says: says.to_owned(),
            level: Level::InOrder,
            is_measured: false,
        }
    }
}

/// States what was read from this system.
pub(super) fn line(level: Level, says: impl Into<String>) -> Line {
    let mut says = says.into();
    if let Some(first) = says.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Line {
        says,
        level,
        is_measured: true,
    }
}

/// States that something is unknown, and why.
pub(super) fn unknown<T>(what: &str, told: &Told<T>) -> Line {
    line(
        Level::NotKnown,
        format!("{what}: {}", told.why().unwrap_or_default()),
    )
}
