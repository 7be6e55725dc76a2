//! A sentence about this system, and whether it is in order.

use crate::report::data::Level;
use crate::report::told::Told;

/// A sentence about this system.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) says: String,
    pub(crate) level: Level,
    /// Whether it was read from this system, and does not hold for every one.
    pub(crate) is_measured: bool,
}

impl Line {
    /// States what encx does by construction, whatever is in this system.
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

/// Says that something is not known, and why.
pub(super) fn unknown<T>(what: &str, told: &Told<T>) -> Line {
    line(
        Level::NotKnown,
        format!("{what}: {}", told.why().unwrap_or_default()),
    )
}
