//! Errors of loading and using settings.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use encx::store::StoreError;

use crate::secret::SecretUrl;
use crate::source::Origin;

/// An error of a provider, of any type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Names the variable, or the key and file, that is wrong, and says what is wrong and what to write. Never shows a
/// secret.
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
    /// encx refused a setting, or its KMS or key store cannot serve.
    #[error(transparent)]
    Encx(#[from] encx::Error),
    /// A file could not be read.
    #[error("{} cannot be read ({source}), which {named_by}; is the path right, and may this process read it?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What names the file.
        named_by: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// An insecure setting was chosen without allowing it explicitly.
    #[error("{origin} is refused: {what}; for development and tests set ENCX_ALLOW_INSECURE=1")]
    Insecure {
        /// What sets it.
        origin: Origin,
        /// Why it is insecure.
        what: String,
    },
    /// A KMS could not be set up.
    #[error("the KMS `{name}`, which {origin} names, cannot be used: {source}")]
    Kms {
        /// Its name.
        name: String,
        /// What names it.
        origin: Origin,
        /// Why.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// A required setting is missing.
    #[error("{what} is not set: {write}")]
    Missing {
        /// The setting.
        what: String,
        /// What to write.
        write: String,
    },
    /// A setting names something that this program was compiled without.
    #[error(
        "{origin} names `{scheme}:`, and this program was built without it: enable feature `{feature}` of encx-config"
    )]
    NotCompiled {
        /// What names it.
        origin: Origin,
        /// The scheme of the URL.
        scheme: String,
        /// The missing feature.
        feature: &'static str,
    },
    /// Every user of the machine can read a file that contains a secret.
    #[error(
        "{} has mode {mode:04o}, so that every user of this machine can read {what}; run `chmod 600 {}`, and consider whether \
         the secret is compromised",
        path.display(), path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What it contains.
        what: String,
    },
    /// The key store could not be opened.
    #[error("the key store {url}, which {origin} names, cannot be used: {source}")]
    Store {
        /// Its URL, shown without its password.
        url: SecretUrl,
        /// What names it.
        origin: Origin,
        /// Why.
        source: StoreError,
    },
    /// The key store has a registered scheme, and could not be opened.
    #[error("the key store {url}, which {origin} names, cannot be used: {source}")]
    StoreProvider {
        /// Its URL, shown without its password.
        url: SecretUrl,
        /// What names it.
        origin: Origin,
        /// Why.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// A file is not valid TOML.
    #[error("{}, line {line}: {what}; TOML is described at https://toml.io", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        what: String,
    },
    /// A file has an unknown key.
    #[error("{origin} is not a setting{}; allowed here: {}", meant(.similar.as_deref()), allowed.join(", "))]
    UnknownKey {
        /// Where it is.
        origin: Origin,
        /// The key that was probably meant.
        similar: Option<String>,
        /// The keys allowed there.
        allowed: Vec<String>,
    },
    /// A URL has a scheme that this program does not know.
    #[error("{origin} is refused: {what}; allowed: {}", known.join(", "))]
    UnknownScheme {
        /// What names it.
        origin: Origin,
        /// What is wrong.
        what: String,
        /// The known schemes.
        known: Vec<String>,
    },
    /// An environment variable starts like a setting but is not one.
    #[error("`{variable}` is not a setting{}; unset it, or see the list in encx-config's README", meant(.similar.as_deref()))]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The variable that was probably meant.
        similar: Option<String>,
    },
    /// A value was refused.
    #[error("{origin} is refused: {what}; write {write}")]
    Value {
        /// What sets it.
        origin: Origin,
        /// What is wrong with it.
        what: String,
        /// What to write.
        write: String,
    },
    /// Users other than root and the user of this process can change a file.
    #[error(
        "{} has mode {mode:04o} and belongs to user {owner}, so that users other than root and user {user} of this process could have \
         changed where keys are sent; check it, then run `chmod go-w {}`, and `chown {user}` if another user owns it",
        path.display(), path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The uid of its owner.
        owner: u32,
        /// The uid of this process.
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
