//! The proxy from the environment: the SDK uses it without reporting it.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// A proxy, and the variable that names it. Without user name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    url: Arc<str>,
    set_by: &'static str,
}

impl Proxy {
    /// Finds the proxy for requests to an address, by the rules of the SDK's HTTP client.
    pub(crate) fn before(address: &str) -> Option<Self> {
        let address: Uri = address.parse().ok()?;
        let proxy = Matcher::from_env().intercept(&address)?;
        let of_scheme = match address.scheme_str() {
            Some("https") => ["HTTPS_PROXY", "https_proxy"],
            _ => ["HTTP_PROXY", "http_proxy"],
        };
        let is_set = |variable: &&str| std::env::var(variable).is_ok_and(|set| !set.is_empty());
        let set_by = of_scheme
            .into_iter()
            .chain(["ALL_PROXY", "all_proxy"])
            .find(is_set);
        Some(Self {
            url: proxy.uri().to_string().into(),
            set_by: set_by.unwrap_or("the environment"),
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, set_by } = self;
        write!(f, "through the proxy {url}, which {set_by} sets")
    }
}
