//! The URL and options of a KMS in the settings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use encx::kms::KmsName;

use crate::error::{BoxError, ConfigError};
use crate::resolve::Environment;
use crate::secret::SecretUrl;
use crate::source::Origin;

/// The URL and options of a KMS in the settings, passed to a registered scheme to set it up.
///
/// ```
/// # use encx_testkit::{MemoryKms, MemoryKeyStore};
/// use encx_config::Loader;
///
/// # encx_testkit::block_on(async {
/// let settings = Loader::new()
///     .env([("ENCX_KMS", "acme-kms:vault-7"), ("ACME_TOKEN", "s3cret")])
///     .kms_scheme("acme-kms", |url| async move {
///         let token = url.env("ACME_TOKEN").ok_or("set ACME_TOKEN, from Acme's console")?;
///         assert_eq!((url.rest(), token), ("vault-7", "s3cret"));
///         Ok(MemoryKms::new())
///     })
///     .load()?;
/// let kms = settings.kms().await?;
/// assert_eq!(kms.primary()?.provider(), "memory");
/// # Ok::<(), encx_config::ConfigError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct KmsUrl {
    pub(crate) name: KmsName,
    pub(crate) url: SecretUrl,
    pub(crate) origin: Origin,
    pub(crate) options: BTreeMap<String, Vec<String>>,
    pub(crate) allow_insecure: bool,
    pub(crate) env: Arc<Environment>,
    /// Whether `env` is the environment of the process, which client libraries also read.
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "only AWS's reads it"))]
    pub(crate) env_is_process: bool,
}

impl KmsUrl {
    /// Returns the name under which the KMS is registered.
    #[must_use]
    pub fn name(&self) -> &KmsName {
        &self.name
    }

    /// Returns the part before the first colon.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.scheme().unwrap_or_default()
    }

    /// Returns the part after the first colon. It may contain a secret.
    #[must_use]
    pub fn rest(&self) -> &str {
        self.url.expose().split_once(':').map_or("", |(_, rest)| rest)
    }

    /// Returns the value of a further key of the KMS's table in the file, such as `slot` in `[kms.hsm]`; the first one
    /// if it is a list.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.list(key).first().map(String::as_str)
    }

    /// Returns all values of such a key.
    #[must_use]
    pub fn list(&self, key: &str) -> &[String] {
        self.options.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns an environment variable, if it is set and not empty.
    #[must_use]
    pub fn env(&self, variable: &str) -> Option<&str> {
        self.env
            .get(variable)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Tells whether `ENCX_ALLOW_INSECURE` is set.
    #[must_use]
    pub fn allows_insecure(&self) -> bool {
        self.allow_insecure
    }

    /// Returns the origin of an option. Its own line is not kept, so this is the line of the URL.
    pub(super) fn origin_of_option(&self, key: &str) -> Origin {
        match &self.origin {
            Origin::File { path, line, .. } => Origin::File {
                path: Arc::clone(path),
                line: *line,
                key: format!("kms.{}.{key}", self.name),
            },
            other => other.clone(),
        }
    }

    pub(super) fn value_error(&self, what: impl Into<String>, write: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            origin: self.origin.clone(),
            what: what.into(),
            write: write.into(),
        }
    }

    pub(super) fn kms_error(&self, source: impl Into<BoxError>) -> ConfigError {
        ConfigError::Kms {
            name: self.name.to_string(),
            origin: self.origin.clone(),
            source: Arc::from(source.into()),
        }
    }
}

impl fmt::Debug for KmsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsUrl")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
