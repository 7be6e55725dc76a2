//! The names of KEKs and of the KMSs that hold them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::causes::debug_as_text;

/// Names a KEK in its KMS: an ARN, a key id or an alias. 1 to 2048 bytes, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekId(Arc<str>);

impl KekId {
    /// Parses the name of a KEK. Only its KMS knows whether it exists.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the name is empty, longer than 2048 bytes, or has a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
        NameError::check("KEK id", name.as_ref(), 2048).map(|name| Self(name.into()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a KMS that a process has registered, such as `eu`. 1 to 64 bytes, no control characters.
///
/// Every wrap's row contains the name of its KMS, so do not change the name while such rows exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KmsName(Arc<str>);

impl KmsName {
    /// The stored name of the KMS given to `Crypto::builder`.
    pub const DEFAULT: &'static str = "default";

    /// Parses the name of a KMS.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the name is empty, longer than 64 bytes, or has a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
        NameError::check("KMS name", name.as_ref(), 64).map(|name| Self(name.into()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// [`KmsName::DEFAULT`].
impl Default for KmsName {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

macro_rules! name_impls {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    )+};
}

name_impls!(KekId, KmsName);

/// Why the name of a KEK or a KMS was refused.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has a control character.
    #[error("a {what} has no control characters; remove the one at byte {at}")]
    ControlCharacter {
        /// What was named: "KEK id" or "KMS name".
        what: &'static str,
        /// The character's position, in bytes.
        at: usize,
    },
    /// The name is empty.
    #[error("a {what} is not empty; is the setting that it comes from missing?")]
    Empty {
        /// What was named: "KEK id" or "KMS name".
        what: &'static str,
    },
    /// The name is too long.
    #[error("a {what} has at most {max} bytes, not {found}")]
    TooLong {
        /// What was named: "KEK id" or "KMS name".
        what: &'static str,
        /// The name's length, in bytes.
        found: usize,
        /// The greatest length, in bytes.
        max: usize,
    },
}

debug_as_text!(NameError);

/// Converting an already parsed name never fails.
impl From<std::convert::Infallible> for NameError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl NameError {
    fn check<'a>(what: &'static str, name: &'a str, max: usize) -> Result<&'a str, Self> {
        if name.is_empty() {
            return Err(Self::Empty { what });
        }
        if name.len() > max {
            return Err(Self::TooLong {
                what,
                found: name.len(),
                max,
            });
        }
        match name.find(char::is_control) {
            Some(at) => Err(Self::ControlCharacter { what, at }),
            None => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(KekId::new(""), Err(NameError::Empty { what: "KEK id" }));
        assert_eq!(
            KekId::new("a\nb"),
            Err(NameError::ControlCharacter {
                what: "KEK id",
                at: 1
            })
        );
        assert!(KekId::new("k".repeat(2048)).is_ok());
        assert!(matches!(
            KekId::new("k".repeat(2049)),
            Err(NameError::TooLong { found: 2049, .. })
        ));
        assert!(matches!(
            KmsName::new("k".repeat(65)),
            Err(NameError::TooLong { .. })
        ));
    }
}
