//! A part of a report that may be unknown.

use crate::error::Error;

/// A part of a report.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reported<T> {
    /// It could not be read.
    Failed {
        /// Why. Never a secret.
        error: String,
    },
    /// The value.
    Known(T),
    /// The key store does not record it.
    NotRecorded,
}

impl<T> Reported<T> {
    /// Returns the value, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Failed { .. } | Self::NotRecorded => None,
        }
    }

    pub(super) fn of(result: Result<T, Error>) -> Self {
        match result {
            Ok(known) => Self::Known(known),
            Err(error) => Self::Failed {
                error: error.to_string(),
            },
        }
    }

    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Reported<U> {
        match self {
            Self::Failed { error } => Reported::Failed { error },
            Self::Known(known) => Reported::Known(map(known)),
            Self::NotRecorded => Reported::NotRecorded,
        }
    }
}

#[cfg(feature = "serde")]
impl<T: serde::Serialize> serde::Serialize for Reported<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Failed { error } => serializer.collect_map([("error", error)]),
            Self::Known(known) => known.serialize(serializer),
            Self::NotRecorded => serializer.serialize_str("not recorded"),
        }
    }
}
