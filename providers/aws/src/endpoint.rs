//! Endpoints: their syntax, the region they serve, and what set them.

use std::fmt;

use aws_config::SdkConfig;
use aws_sdk_kms::config::http::HttpRequest;
use aws_types::service_config::ServiceConfigKey;

use crate::arn::region_of_endpoint;
use crate::setup_error::AwsKmsError;

/// An `http` or `https` URI with a host, to which requests can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    url: String,
    set_by: &'static str,
}

impl Endpoint {
    /// Parses a URL.
    ///
    /// Checked here because the SDK checks an endpoint only when it sends a request, and then fails with an error that
    /// shows the whole request, data key included.
    pub(crate) fn parse(url: &str, set_by: &'static str) -> Result<Self, AwsKmsError> {
        let refused = |shown: &str, why| AwsKmsError::InvalidEndpoint {
            // User name and password may precede the last `@`, wherever that is in a malformed URL.
            url: match shown.rsplit_once('@') {
                Some((_, host)) => format!("…@{host}"),
                None => shown.to_owned(),
            },
            set_by,
            why,
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(refused(url, "has no scheme"));
        };
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return Err(refused(url, "has another scheme than http and https"));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Some((_, host)) = authority.rsplit_once('@') {
            // It may contain a password.
            return Err(refused(
                &format!("{scheme}://…@{host}"),
                "names a user, and AWS's requests are signed instead",
            ));
        }
        // An IPv6 address is in brackets and contains colons.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() {
            return Err(refused(url, "has no host"));
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(refused(url, "has a port that is no number from 1 to 65535"));
        }
        if rest.contains(['?', '#']) {
            return Err(refused(
                url,
                "has a query or a fragment, which AWS's requests do not carry",
            ));
        }
        // Does what the SDK will do with it, on an empty request.
        let is_applied = HttpRequest::empty().uri_mut().set_endpoint(url).is_ok();
        if !is_applied {
            return Err(refused(url, "has characters that no URI has"));
        }
        let url = url.to_owned();
        Ok(Self { url, set_by })
    }

    /// Reads the KMS endpoint of the environment, the profile or the caller's `SdkConfig`, as the SDK would.
    pub(crate) fn inherited(config: &SdkConfig) -> Result<Option<Self>, AwsKmsError> {
        let Some(url) = inherited_url(config) else {
            return Ok(None);
        };
        let set_by = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"]
            .into_iter()
            .find(|variable| std::env::var(variable).is_ok_and(|set| set == url))
            .unwrap_or("`endpoint_url` of the profile or the `SdkConfig`");
        Self::parse(&url, set_by).map(Some)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Names the variable or the method that set it.
    pub(crate) fn set_by(&self) -> &'static str {
        self.set_by
    }

    /// Returns the region that the host names, if it is an AWS host.
    pub(crate) fn region(&self) -> Option<&str> {
        region_of_endpoint(&self.url)
    }

    /// Tells whether requests for a region can be sent there, judging by the host.
    pub(crate) fn can_serve(&self, region: &str) -> bool {
        self.region().is_none_or(|own| own == region)
    }
}

fn inherited_url(config: &SdkConfig) -> Option<String> {
    let set = config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return set;
    }
    let key = ServiceConfigKey::builder()
        .service_id("KMS")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let of_kms = key.ok().and_then(|key| config.service_config()?.load_config(key));
    of_kms.or(set)
}

/// Shows its URL and what sets it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which {} sets", self.url, self.set_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_uri_with_scheme_and_host() {
        for url in [
            "http://localhost:4566",
            "https://kms.eu-west-1.amazonaws.com",
            "HTTPS://vpce.example/",
            "http://127.0.0.1:1/path",
            "http://[::1]:8080",
            "http://[::1]",
        ] {
            assert_eq!(Endpoint::parse(url, "`endpoint_url`").unwrap().url(), url);
        }
        for (url, why) in [
            ("localhost:4566", "no scheme"),
            ("localhost", "no scheme"),
            ("//localhost", "no scheme"),
            ("", "no scheme"),
            ("kms.eu-west-1.amazonaws.com", "no scheme"),
            ("localhost://4566", "another scheme"),
            ("ftp://localhost", "another scheme"),
            ("https://", "no host"),
            ("http://:4566", "no host"),
            ("http:///path", "no host"),
            ("http://localhost:port", "a port"),
            ("http://localhost:", "a port"),
            ("http://localhost:0", "a port"),
            ("http://localhost:65536", "a port"),
            ("http://local host", "characters"),
            ("http://localhost/ä b", "characters"),
            ("http://localhost\n", "characters"),
            (" http://localhost", "another scheme"),
            ("http://localhost?region=x", "a query"),
            ("http://localhost/#x", "a query"),
        ] {
            let error = Endpoint::parse(url, "AWS_ENDPOINT_URL_KMS")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(why) && error.contains("AWS_ENDPOINT_URL_KMS"),
                "{url:?}: {error}"
            );
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_repeated() {
        for malformed in [
            "me:hunter2@localhost",
            "ftp://me:hunter2@localhost",
            "http://me:hunter2/x@localhost",
        ] {
            let error = Endpoint::parse(malformed, "`endpoint_url`").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let error = Endpoint::parse("http://me:hunter2@localhost", "`endpoint_url`").unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("localhost") && !text.contains("hunter2"), "{text}");
    }
}
