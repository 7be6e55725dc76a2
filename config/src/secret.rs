//! URLs that may contain a password, and their redaction.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Replaces a secret.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// URL parameters with secret values.
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

/// URL parameters that may be shown: those of PostgreSQL, SQLite and AWS KMS that contain no secret.
const HARMLESS_PARAMETERS: [&str; 24] = [
    "application_name",
    "cache",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "endpoint_url",
    "gssencmode",
    "host",
    "hostaddr",
    "immutable",
    "mode",
    "port",
    "profile",
    "region",
    "ssl-ca",
    "ssl-mode",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "target_session_attrs",
    "user",
    "vfs",
];

/// A URL that may contain a password. `Debug` and `Display` redact it.
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
    /// Wraps a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(url.into())))
    }

    /// Returns the URL with its password, for the database driver.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the part before the first colon, such as `postgres`. `None` if that is not a scheme: it may be part of a
    /// password.
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

/// Returns the scheme of a URL, as in RFC 3986.
pub(crate) fn scheme_of(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    let mut chars = scheme.chars();
    let is_scheme = chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.'));
    is_scheme.then_some(scheme)
}

/// Tells whether a text is a URL with a password.
pub(crate) fn has_password(text: &str) -> bool {
    text.contains("://") && scheme_of(text).is_some_and(|scheme| Shown::of(scheme, text).has_password)
}

/// Redacts passwords, and parameters not known to be harmless. A text that is not a URL may be a password and is
/// redacted entirely.
pub(crate) fn redact(url: &str) -> String {
    match scheme_of(url) {
        Some(scheme) => Shown::of(scheme, url).text,
        None => REDACTED.to_owned(),
    }
}

/// The parts of a URL that may be shown.
struct Shown {
    text: String,
    has_password: bool,
}

impl Shown {
    /// Splits a URL after its scheme. Passwords are not always percent-encoded: redact too much rather than show part
    /// of one.
    fn of(scheme: &str, url: &str) -> Self {
        let rest = &url[scheme.len() + 1..];
        let (before_query, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let unslashed = before_query.trim_start_matches('/');
        let slashes = &before_query[..before_query.len() - unslashed.len()];
        let user = unslashed.split_once(':').map(|(user, _)| user);
        // An `@` after the `?` either ends a password that contains a `?`, or is part of a parameter. So it is unknown
        // where the host starts.
        if let (Some(user), true) = (user, query.is_some_and(|query| query.contains('@'))) {
            return Self {
                text: format!("{scheme}:{slashes}{user}:{REDACTED}"),
                has_password: true,
            };
        }
        let password = unslashed.rsplit_once('@').and_then(|(credentials, host)| {
            let (user, _) = credentials.split_once(':')?;
            Some((user, host))
        });
        let mut text = match password {
            Some((user, host)) => format!("{scheme}:{slashes}{user}:{REDACTED}@{host}"),
            None => format!("{scheme}:{before_query}"),
        };
        let mut has_password = password.is_some();
        for (at, parameter) in query.iter().flat_map(|query| query.split('&')).enumerate() {
            let name = parameter.split_once('=').map(|(name, _)| name);
            let is =
                |names: &[&str]| name.is_some_and(|name| names.contains(&name.to_ascii_lowercase().as_str()));
            has_password |= is(&SECRET_PARAMETERS);
            text.push(if at == 0 { '?' } else { '&' });
            match name {
                _ if is(&HARMLESS_PARAMETERS) => text.push_str(parameter),
                Some(name) if is(&SECRET_PARAMETERS) => text.extend([name, "=", REDACTED]),
                // The name may also be part of a password.
                _ => text.push_str(REDACTED),
            }
        }
        Self { text, has_password }
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
                "postgres://app:hun@t/er2@db/app",
                "postgres://app:[REDACTED]@db/app",
            ),
            // It is unknown where the password ends.
            ("postgres://app:hun@t/er?2@db/app", "postgres://app:[REDACTED]"),
            (
                "postgres://db:5432/app?user=a&password=hun@ter2",
                "postgres://db:[REDACTED]",
            ),
            (
                "postgres://db/app?password=hun@ter2",
                "postgres://db/app?password=[REDACTED]",
            ),
            (
                "postgres://db/app?password=x:hun@ter2",
                "postgres://db/app?password=[REDACTED]",
            ),
            (
                "postgres://db/app?sslmode=require&password=x&hunter2&hun=ter&SSLMODE=y",
                "postgres://db/app?sslmode=require&password=[REDACTED]&[REDACTED]&[REDACTED]&SSLMODE=y",
            ),
            ("postgres://us?hunter2@db/app", "postgres://us?[REDACTED]"),
            ("postgres://app@db:5432/app", "postgres://app@db:5432/app"),
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
            let debug = format!("{secret:?}");
            assert!(!debug.contains("hun") && !debug.contains("ter2"), "{debug}");
        }
    }
}
