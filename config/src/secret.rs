//! URLs that may hold a password, and what may be shown of them.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// Parameters of a URL whose values are secrets.
const SECRET_PARAMETERS: [&str; 8] = [
    "access_token",
    "pass",
    "passphrase",
    "password",
    "pwd",
    "secret",
    "sslpassword",
    "token",
];

/// Holds a URL that may have a password. `Debug` and `Display` show it without.
///
/// ```
/// use encx_config::SecretUrl;
///
/// let url = SecretUrl::new("postgres://app:hunter2@db.internal/app");
/// assert_eq!(url.to_string(), "postgres://app:[REDACTED]@db.internal/app");
/// assert!(url.expose().contains("hunter2"));
/// ```
#[derive(Clone)]
pub struct SecretUrl(Arc<Zeroizing<String>>);

impl SecretUrl {
    /// Takes a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(url.into())))
    }

    /// Returns the URL with its password, for the driver that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns what precedes the first colon, such as `postgres`; nothing if that is no scheme, for then it may be part
    /// of a password.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        scheme_of(&self.0)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// Returns the scheme of a URL as RFC 3986 has it.
pub(crate) fn scheme_of(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    let mut chars = scheme.chars();
    let is_scheme = chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.'));
    is_scheme.then_some(scheme)
}

/// Tells whether a text is a URL with a password.
pub(crate) fn has_password(text: &str) -> bool {
    text.contains("://") && scheme_of(text).is_some() && redact(text).contains(REDACTED)
}

/// Leaves out passwords. What has not the form of a URL is left out whole, for it may be one.
pub(crate) fn redact(url: &str) -> String {
    let Some(scheme) = scheme_of(url) else {
        return REDACTED.to_owned();
    };
    let rest = &url[scheme.len() + 1..];
    // Up to the last `@`, because passwords are not always encoded: rather too much than a part of one.
    let rest = match rest.rsplit_once('@') {
        Some((before, after)) => {
            let user = before.trim_start_matches('/');
            let slashes = &before[..before.len() - user.len()];
            match user.split_once(':') {
                Some((user, _)) => format!("{slashes}{user}:{REDACTED}@{after}"),
                None => format!("{slashes}{user}@{after}"),
            }
        }
        None => rest.to_owned(),
    };
    let Some((path, parameters)) = rest.split_once('?') else {
        return format!("{scheme}:{rest}");
    };
    let parameters: Vec<_> = parameters.split('&').map(shown_parameter).collect();
    format!("{scheme}:{path}?{}", parameters.join("&"))
}

fn shown_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) => {
            format!("{name}={REDACTED}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_left_out_wherever_they_stand() {
        for (url, shown) in [
            (
                "postgres://app:hunter2@db/app",
                "postgres://app:[REDACTED]@db/app",
            ),
            (
                "postgres://app:hun@t/er?2@db/app",
                "postgres://app:[REDACTED]@db/app",
            ),
            ("postgres://app@db/app", "postgres://app@db/app"),
            (
                "postgres://db:5432/app?user=a&password=hunter2",
                "postgres://db:5432/app?user=a&password=[REDACTED]",
            ),
            ("postgres:app:hunter2@db/app", "postgres:app:[REDACTED]@db/app"),
            ("sqlite:keys.db?mode=ro", "sqlite:keys.db?mode=ro"),
            ("hunter2", "[REDACTED]"),
            ("hunter 2:x", "[REDACTED]"),
            (
                "aws-kms:arn:aws:kms:eu-central-1:1:key/2",
                "aws-kms:arn:aws:kms:eu-central-1:1:key/2",
            ),
        ] {
            assert_eq!(redact(url), shown);
            let secret = SecretUrl::new(url);
            assert_eq!(secret.to_string(), shown);
            assert_eq!(secret.expose(), url);
            assert!(!format!("{secret:?}").contains("hun"));
        }
    }
}
