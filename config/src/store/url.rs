//! The URL and options of a key store in the settings.

use std::fmt;
use std::sync::Arc;

use crate::resolve::Environment;
use crate::secret::SecretUrl;
use crate::source::Origin;

/// The URL and options of a key store in the settings, passed to a registered scheme to open it.
#[derive(Clone)]
pub struct StoreUrl {
    pub(crate) url: SecretUrl,
    pub(crate) origin: Origin,
    pub(crate) listen_url: Option<SecretUrl>,
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "only PostgreSQL has it")
    )]
    pub(crate) ca_file: Option<String>,
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "only PostgreSQL has it")
    )]
    pub(crate) transaction_pooler: bool,
    pub(crate) env: Arc<Environment>,
}

impl StoreUrl {
    /// Returns the URL.
    #[must_use]
    pub fn url(&self) -> &SecretUrl {
        &self.url
    }

    /// Returns what sets it.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the URL on which to listen for changes, if one is set.
    #[must_use]
    pub fn listen_url(&self) -> Option<&SecretUrl> {
        self.listen_url.as_ref()
    }

    /// Returns an environment variable, if it is set and not empty.
    #[must_use]
    pub fn env(&self, variable: &str) -> Option<&str> {
        self.env
            .get(variable)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(super) fn scheme(&self) -> &str {
        self.url.scheme().unwrap_or_default()
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreUrl")
            .field("url", &self.url)
            .field("origin", &self.origin)
            .field("listen_url", &self.listen_url)
            .finish_non_exhaustive()
    }
}
