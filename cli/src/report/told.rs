//! A part of the report that may be unknown.

use std::fmt::Display;

use encx::ops::Reported;
use serde::{Serialize, Serializer};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told<T> {
    /// The reason why it could not be determined.
    Failed(String),
    /// The value.
    Known(T),
    /// Not available: `not recorded` or `not asked for`.
    Missing(&'static str),
}

pub(super) const NOT_RECORDED: &str = "not recorded";
pub(super) const NOT_ASKED: &str = "not asked for";

impl<T> Told<T> {
    pub(super) fn of<E: Display>(result: Result<T, E>) -> Self {
        match result {
            Ok(known) => Self::Known(known),
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    pub(super) fn reported<U>(reported: &Reported<U>, map: impl FnOnce(&U) -> T) -> Self {
        match reported {
            Reported::Known(known) => Self::Known(map(known)),
            Reported::Failed { error } => Self::Failed(error.clone()),
            _ => Self::Missing(NOT_RECORDED),
        }
    }

    pub(super) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Failed(_) | Self::Missing(_) => None,
        }
    }

    /// Returns why it is unknown; `None` if it is known.
    pub(super) fn why(&self) -> Option<String> {
        match self {
            Self::Known(_) => None,
            Self::Failed(error) => Some(format!("unknown: {error}")),
            Self::Missing(what) => Some((*what).to_owned()),
        }
    }
}

/// Serializes as `Reported` does.
impl<T: Serialize> Serialize for Told<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Failed(error) => serializer.collect_map([("error", error)]),
            Self::Known(known) => known.serialize(serializer),
            Self::Missing(what) => serializer.serialize_str(what),
        }
    }
}
