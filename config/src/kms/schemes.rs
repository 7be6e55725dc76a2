//! The built-in schemes: `aws-kms:`, `local:` and `memory:`.

use std::sync::Arc;

use encx::kms::KeyManagementService;

use super::url::KmsUrl;
use crate::error::ConfigError;
use crate::units::{self, Refused};

/// All of them, compiled in or not.
pub(super) const NAMES: [&str; 3] = ["aws-kms", "local", "memory"];

/// The type of an option.
#[derive(Clone, Copy)]
enum Kind {
    Boolean,
    Duration,
    Number,
    Texts,
}

const AWS: &[(&str, Kind)] = &[
    ("attempt_timeout", Kind::Duration),
    ("connect_timeout", Kind::Duration),
    ("endpoint_url", Kind::Texts),
    ("fips", Kind::Boolean),
    ("max_attempts", Kind::Number),
    ("operation_timeout", Kind::Duration),
    ("regions", Kind::Texts),
];
const LOCAL: &[(&str, Kind)] = &[
    ("create", Kind::Boolean),
    ("key_file", Kind::Texts),
    ("passphrase_file", Kind::Texts),
];
const MEMORY: &[(&str, Kind)] = &[];

/// Refuses an invalid URL, without calling the KMS.
pub(super) fn check(url: &KmsUrl) -> Result<(), ConfigError> {
    let (feature, is_compiled, options) = match url.scheme() {
        "aws-kms" => ("aws", cfg!(feature = "aws"), AWS),
        "local" => ("local", cfg!(feature = "local"), LOCAL),
        _ => ("memory", cfg!(feature = "memory"), MEMORY),
    };
    if !is_compiled {
        return Err(ConfigError::NotCompiled {
            origin: url.origin.clone(),
            scheme: url.scheme().to_owned(),
            feature,
        });
    }
    for key in url.options.keys() {
        let Some((_, kind)) = options.iter().find(|(name, _)| name == key) else {
            let allowed = options.iter().map(|(name, _)| *name).chain(["url"]);
            return Err(ConfigError::UnknownKey {
                origin: url.origin_of_option(key),
                similar: crate::keys::similar(key, allowed.clone()),
                allowed: allowed.map(|name| format!("`{name}`")).collect(),
            });
        };
        let text = url.option(key).unwrap_or_default();
        let checked = match kind {
            Kind::Boolean => units::boolean(text).map(drop),
            Kind::Duration => units::duration(text).map(drop),
            Kind::Number => units::integer(text, 1, 100).map(drop),
            Kind::Texts => Ok(()),
        };
        if let Err(Refused { what, write }) = checked {
            let origin = url.origin_of_option(key);
            return Err(ConfigError::Value { origin, what, write });
        }
    }
    match url.scheme() {
        "local" => check_local(url),
        "memory" if !url.allow_insecure => Err(ConfigError::Insecure {
            origin: url.origin.clone(),
            what: "KEKs in memory are lost when the process ends, and all data with them".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn check_local(url: &KmsUrl) -> Result<(), ConfigError> {
    if path_of(url).is_empty() {
        return Err(url.value_error(
            "it names no file",
            "`local:` and a path, such as `local:/var/lib/app/keks.encx`",
        ));
    }
    match (url.option("passphrase_file"), url.option("key_file")) {
        (Some(_), Some(_)) => Err(url.value_error(
            "a passphrase file and a key file are set, but a KEK file has only one protection",
            "the one that the KEK file was created with",
        )),
        (None, None) if !url.allow_insecure => Err(ConfigError::Insecure {
            origin: url.origin.clone(),
            what: "only its permissions protect the KEK file; name the file of its passphrase with \
                   ENCX_KEK_PASSPHRASE_FILE, or that of its key with ENCX_KEK_KEY_FILE"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Returns the path of `local:/path`, `local:///path` or `local:path`.
fn path_of(url: &KmsUrl) -> &str {
    let rest = url.rest();
    rest.strip_prefix("//").unwrap_or(rest)
}

/// Sets up a KMS whose URL was checked.
pub(super) async fn open(url: &KmsUrl) -> Result<Arc<dyn KeyManagementService>, ConfigError> {
    match url.scheme() {
        #[cfg(feature = "aws")]
        "aws-kms" => open_aws(url).await,
        #[cfg(feature = "local")]
        "local" => open_local(url).await,
        #[cfg(feature = "memory")]
        "memory" => Ok(Arc::new(encx_testkit::MemoryKms::new())),
        scheme => Err(url.value_error(
            format!("`{scheme}:` is not compiled in"),
            "the URL of a KMS that is",
        )),
    }
}

#[cfg(feature = "aws")]
async fn open_aws(url: &KmsUrl) -> Result<Arc<dyn KeyManagementService>, ConfigError> {
    let mut builder = encx_aws::AwsKms::builder();
    let kek = match url.rest() {
        "" => url.env("AWS_KMS_KEY_ID"),
        kek => Some(kek),
    };
    if let Some(kek) = kek {
        builder = builder.default_kek(kek);
    }
    let mut regions: Vec<&str> = url.list("regions").iter().map(String::as_str).collect();
    let mut endpoint = url.option("endpoint_url");
    // The SDK reads these from the process's own environment, and names them in its errors.
    if !url.env_is_process {
        let of_env = || url.env("AWS_REGION").or_else(|| url.env("AWS_DEFAULT_REGION"));
        if regions.is_empty() {
            regions.extend(of_env());
        }
        endpoint = endpoint
            .or_else(|| url.env("AWS_ENDPOINT_URL_KMS"))
            .or_else(|| url.env("AWS_ENDPOINT_URL"));
    }
    if !regions.is_empty() {
        builder = builder.regions(regions);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    let duration = |key: &str| url.option(key).and_then(|text| units::duration(text).ok());
    if let Some(timeout) = duration("connect_timeout") {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(timeout) = duration("attempt_timeout") {
        builder = builder.attempt_timeout(timeout);
    }
    if let Some(timeout) = duration("operation_timeout") {
        builder = builder.operation_timeout(timeout);
    }
    if let Some(fips) = url.option("fips").and_then(|text| units::boolean(text).ok()) {
        builder = builder.fips(fips);
    }
    let attempts = url
        .option("max_attempts")
        .and_then(|text| units::integer(text, 1, 100).ok());
    if let Some(attempts) = attempts.and_then(|attempts| attempts.try_into().ok()) {
        builder = builder.max_attempts(attempts);
    }
    Ok(Arc::new(
        builder.build().await.map_err(|error| url.kms_error(error))?,
    ))
}

#[cfg(feature = "local")]
async fn open_local(url: &KmsUrl) -> Result<Arc<dyn KeyManagementService>, ConfigError> {
    use encx_local::{LocalKms, Protection};
    let protection = match (url.option("passphrase_file"), url.option("key_file")) {
        (Some(path), _) => Protection::passphrase_from_file(path),
        (None, Some(path)) => Protection::key_from_file(path),
        (None, None) => Protection::insecure_file_permissions_only(),
    };
    let create = url
        .option("create")
        .is_some_and(|text| units::boolean(text) == Ok(true));
    let opened = if create {
        LocalKms::open_or_create(path_of(url), protection).await
    } else {
        LocalKms::open(path_of(url), protection).await
    };
    Ok(Arc::new(opened.map_err(|error| url.kms_error(error))?))
}
