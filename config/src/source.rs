//! The origin of a setting.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The origin of a setting's value. `Display` writes what errors name: the variable, or the key, file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// An argument of a call or command.
    Argument,
    /// The default.
    Default,
    /// An environment variable.
    Env {
        /// Its name.
        variable: String,
    },
    /// A file.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// The line, from 1.
        line: usize,
        /// The key, such as `cache.ttl`.
        key: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument => f.write_str("the argument"),
            Self::Default => f.write_str("default"),
            Self::Env { variable } => write!(f, "`{variable}`"),
            Self::File { path, line, key } => write!(f, "`{key}` in {}, line {line}", path.display()),
        }
    }
}

/// A value and what sets it.
#[derive(Clone, Debug)]
pub(crate) struct Set<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}
