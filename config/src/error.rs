//! Why settings are refused, or cannot be used.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use encx::store::StoreError;

use crate::secret::SecretUrl;
use crate::source::Origin;

/// What keeps an error of a provider, whatever its type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Says which variable, or which key in which file, is wrong, in what, and what to write. Never shows a secret.
///
/// ```
/// use encx_config::Loader;
///
/// let refused = Loader::new().env([("ENCX_CACHE_TTL", "60")]).load().unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "`ENCX_CACHE_TTL` is refused: `60` has no unit; write `60s`, `60min` or `60h`"
/// );
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// encx refuses what the settings say, or its KMS or key store cannot serve.
    #[error(transparent)]
    Encx(#[from] encx::Error),
    /// A file cannot be read.
    #[error("{} cannot be read ({source}), which {named_by}; is the path right, and may this process read it?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What names it.
        named_by: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A choice that protects nothing was not asked for by name.
    #[error("{origin} is refused: {what}; for development and tests set ENCX_ALLOW_INSECURE=1")]
    Insecure {
        /// What chooses it.
        origin: Origin,
        /// Why it is insecure.
        what: String,
    },
    /// A KMS cannot be set up.
    #[error("the KMS `{name}`, which {origin} names, cannot be used: {source}")]
    Kms {
        /// Its name.
        name: String,
        /// What names it.
        origin: Origin,
        /// Why.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// Something that is needed is not set.
    #[error("{what} is not set: {write}")]
    Missing {
        /// What.
        what: String,
        /// What to write.
        write: String,
    },
    /// This program was compiled without what a setting names.
    #[error(
        "{origin} names `{scheme}:`, and this program was built without it: switch on feature `{feature}` of encx-config"
    )]
    NotCompiled {
        /// What names it.
        origin: Origin,
        /// The scheme of the URL.
        scheme: String,
        /// The feature that is missing.
        feature: &'static str,
    },
    /// A file with a secret is open to every user of the machine.
    #[error(
        "{} has mode {mode:04o}, so that every user of this machine can read {what}; run `chmod 600 {}`, and consider whether \
         the secret is known to others now",
        path.display(), path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What stands in it.
        what: String,
    },
    /// The key store cannot be opened.
    #[error("the key store {url}, which {origin} names, cannot be used: {source}")]
    Store {
        /// Its URL, which is shown without its password.
        url: SecretUrl,
        /// What names it.
        origin: Origin,
        /// Why.
        source: StoreError,
    },
    /// The key store is of a provider that was registered, and cannot be opened.
    #[error("the key store {url}, which {origin} names, cannot be used: {source}")]
    StoreProvider {
        /// Its URL, which is shown without its password.
        url: SecretUrl,
        /// What names it.
        origin: Origin,
        /// Why.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// A file is no TOML.
    #[error("{}, line {line}: {what}; TOML is described at https://toml.io", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        what: String,
    },
    /// A file has a key that is no setting.
    #[error("{origin} is no setting{}; allowed here: {}", meant(.similar.as_deref()), allowed.join(", "))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// What was probably meant.
        similar: Option<String>,
        /// What may stand there.
        allowed: Vec<String>,
    },
    /// A URL has a scheme that this program does not know.
    #[error("{origin} is refused: {what}; allowed: {}", known.join(", "))]
    UnknownScheme {
        /// What names it.
        origin: Origin,
        /// What is wrong.
        what: String,
        /// The schemes that are known.
        known: Vec<String>,
    },
    /// An environment variable begins like a setting and is none.
    #[error("`{variable}` is no setting{}; unset it, or see the list in encx-config's README", meant(.similar.as_deref()))]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// What was probably meant.
        similar: Option<String>,
    },
    /// A value is refused.
    #[error("{origin} is refused: {what}; write {write}")]
    Value {
        /// What sets it.
        origin: Origin,
        /// What is wrong with it.
        what: String,
        /// What to write.
        write: String,
    },
    /// A file can be changed by others than root and the user of this process.
    #[error(
        "{} has mode {mode:04o} and belongs to user {owner}, so that others than root and user {user} of this process could have \
         changed where keys are sent to; read it, and then run `chmod go-w {}`, and `chown {user}` where it belongs to another",
        path.display(), path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The number of the user whom it belongs to.
        owner: u32,
        /// The number of the user of this process.
        user: u32,
    },
}

impl ConfigError {
    /// Tells whether the same call may succeed later, because a KMS or a key store did not answer.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Encx(error) => error.is_retryable(),
            Self::Store { source, .. } => source.is_retryable(),
            _ => false,
        }
    }
}

fn meant(similar: Option<&str>) -> String {
    similar.map_or(String::new(), |similar| format!("; did you mean `{similar}`?"))
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}
