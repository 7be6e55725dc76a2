//! Configures an [`AwsKms`]: from the environment, from an `SdkConfig`, or setting by setting.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kms::config::BehaviorVersion;
use aws_sdk_kms::config::retry::{RetryConfig, RetryMode};
use aws_sdk_kms::config::timeout::TimeoutConfig;
use encx_core::key::KekId;

use crate::arn::{KeyName, is_region};
use crate::clients::{Clients, Endpoints};
use crate::endpoint::Endpoint;
use crate::flights::Flights;
use crate::kms::{AwsKms, Inner};
use crate::regions::Regions;
use crate::setup_error::AwsKmsError;

/// The variable that names the default KEK.
const KEK_VARIABLE: &str = "AWS_KMS_KEY_ID";

const KEK_EXPECTED: &str = "write a key's ARN, a key id, or an alias that begins with `alias/`; or leave it out, and name the KEK with `kek` \
                            of `Crypto::builder`";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Less than a third of the core's `load_timeout`, so that two more regions can be tried if one hangs.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 3;

/// Configures an [`AwsKms`].
///
/// Unset settings come from the environment, the profile and the machine, as for any program that uses AWS:
/// credentials, `AWS_REGION`, `AWS_USE_FIPS_ENDPOINT`, `AWS_ENDPOINT_URL_KMS` or `AWS_ENDPOINT_URL`. The default KEK
/// comes from `AWS_KMS_KEY_ID`.
#[derive(Debug, Default)]
#[must_use]
pub struct AwsKmsBuilder {
    config: Option<SdkConfig>,
    regions: Vec<String>,
    endpoint: Option<String>,
    endpoints: BTreeMap<String, String>,
    fips: Option<bool>,
    connect_timeout: Option<Duration>,
    attempt_timeout: Option<Duration>,
    operation_timeout: Option<Duration>,
    retry_mode: Option<RetryMode>,
    attempts: Option<u32>,
    default_kek: Option<String>,
    kek_set_by: &'static str,
}

impl AwsKms {
    /// Configures AWS KMS from the environment: credentials, `AWS_REGION`, and `AWS_KMS_KEY_ID` for the default KEK.
    ///
    /// # Errors
    ///
    /// [`AwsKmsError::MissingRegion`] if there is no region; [`AwsKmsError::InvalidKek`] if `AWS_KMS_KEY_ID` does not
    /// name a key; [`AwsKmsError::InvalidVariable`] if it, or a variable of the SDK, has an invalid value, such as an
    /// empty one.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn from_env() -> Result<Self, AwsKmsError> {
        Self::builder().build().await
    }

    /// Configures AWS KMS from an `SdkConfig` alone. It has no default KEK: name one with `kek` of `Crypto::builder`.
    ///
    /// # Errors
    ///
    /// [`AwsKmsError::MissingRegion`] if the configuration has no region.
    pub fn new(config: &SdkConfig) -> Result<Self, AwsKmsError> {
        Self::builder().finish(config)
    }

    /// Configures AWS KMS setting by setting.
    pub fn builder() -> AwsKmsBuilder {
        AwsKmsBuilder::default()
    }
}

impl AwsKmsBuilder {
    /// Takes credentials, HTTP client and all other unset settings from an `SdkConfig`, and nothing from the
    /// environment.
    pub fn sdk_config(mut self, config: &SdkConfig) -> Self {
        self.config = Some(config.clone());
        self
    }

    /// Uses this region for aliases and key ids. A KEK named by its ARN is used in the ARN's region.
    pub fn region(self, region: impl Into<String>) -> Self {
        self.regions([region])
    }

    /// Uses these regions, nearest first. Multi-region keys (`mrk-`) are used in the first available one, whichever
    /// region their ARN names.
    ///
    /// The key must have a replica in each. The next region is called only if one is unavailable or does not answer in
    /// time, never after a refusal. Aliases and the ids of other keys belong to the first region only.
    pub fn regions<R: Into<String>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = Vec::new();
        for region in regions {
            let region = region.into();
            if !self.regions.contains(&region) {
                self.regions.push(region);
            }
        }
        self
    }

    /// Sends requests to this endpoint, such as a VPC endpoint or a test server. Default: `AWS_ENDPOINT_URL_KMS`,
    /// `AWS_ENDPOINT_URL` or the profile's `endpoint_url`, else AWS's public endpoint.
    ///
    /// As in AWS's own tools, it serves every region without an endpoint of its own. If its host names a region, as a
    /// VPC endpoint's does, it serves only that region. With several [`regions`](Self::regions) it must name one.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sends requests for a region to this endpoint.
    pub fn endpoint_url_for(mut self, region: impl Into<String>, url: impl Into<String>) -> Self {
        self.endpoints.insert(region.into(), url.into());
        self
    }

    /// Uses AWS's FIPS endpoints. Default: the value of `AWS_USE_FIPS_ENDPOINT`, else no.
    pub fn fips(mut self, fips: bool) -> Self {
        self.fips = Some(fips);
        self
    }

    /// Sets the connect timeout. Default: 2 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets the timeout of one attempt. Default: 3 seconds.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets the timeout of an operation in one region, including all its attempts. Default: 8 seconds.
    ///
    /// Multiplied by the number of regions, it should stay below the `load_timeout` of `Crypto::builder`.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = Some(timeout);
        self
    }

    /// Sets how attempts are retried. Default: [`RetryMode::Standard`].
    pub fn retry_mode(mut self, mode: RetryMode) -> Self {
        self.retry_mode = Some(mode);
        self
    }

    /// Sets the number of attempts of an operation; 1 disables retries. Default: 3.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Sets the KEK to use if `Crypto::builder` names none: an ARN, a key id or an alias.
    pub fn default_kek(mut self, kek: impl Into<String>) -> Self {
        self.default_kek = Some(kek.into());
        self.kek_set_by = "`default_kek`";
        self
    }

    /// Builds it. Makes no request, neither to AWS KMS nor for credentials.
    ///
    /// # Errors
    ///
    /// [`AwsKmsError`] for invalid settings.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn build(mut self) -> Result<AwsKms, AwsKmsError> {
        let config = match self.config.take() {
            Some(config) => config,
            None => {
                if self.default_kek.is_none() {
                    self.default_kek = variable(KEK_VARIABLE, KEK_EXPECTED, |kek| !kek.is_empty())?;
                    self.kek_set_by = KEK_VARIABLE;
                }
                check_variables()?;
                let mut loader = aws_config::defaults(behavior_version());
                if let Some(region) = self.regions.first() {
                    // Skips the search for a region, which uses the network on some machines.
                    loader = loader.region(aws_config::Region::new(region.clone()));
                }
                loader.load().await
            }
        };
        self.finish(&config)
    }

    /// Builds it from an `SdkConfig` alone.
    pub(crate) fn finish(self, config: &SdkConfig) -> Result<AwsKms, AwsKmsError> {
        let default_kek = self.default_kek.as_deref().map(KekId::new).transpose()?;
        let named = match &default_kek {
            None => None,
            Some(kek) => match KeyName::parse(kek.as_str()) {
                Some(KeyName::Arn(arn)) => Some(arn.region.to_owned()),
                Some(KeyName::AliasArn { region }) => Some(region.to_owned()),
                Some(KeyName::Alias | KeyName::Id { .. }) => None,
                None => {
                    return Err(AwsKmsError::InvalidKek {
                        kek: kek.to_string(),
                        set_by: self.kek_set_by,
                    });
                }
            },
        };
        if config.credentials_provider().is_none() {
            return Err(AwsKmsError::MissingCredentials);
        }
        let (are_set, several) = (!self.regions.is_empty(), self.regions.len() > 1);
        let mut regions = self.regions;
        if regions.is_empty() {
            let set = config.region().map(|region| region.as_ref().to_owned());
            regions.push(set.or_else(|| named.clone()).ok_or(AwsKmsError::MissingRegion)?);
        }
        if let Some(region) = regions.iter().find(|name| !is_region(name)) {
            return Err(AwsKmsError::InvalidRegion {
                set_by: if are_set {
                    "`region` or `regions`"
                } else {
                    region_set_by(region)
                },
                region: region.clone(),
            });
        }
        let endpoints = endpoints(&self.endpoints, self.endpoint.as_deref(), config)?;
        let fips = self.fips.or(config.use_fips()).unwrap_or_default();
        check_endpoints(
            &endpoints,
            &regions,
            named.as_deref(),
            &[
                ("FIPS", fips),
                ("dual-stack", config.use_dual_stack().unwrap_or_default()),
            ],
        )?;
        let mut base = aws_sdk_kms::config::Builder::from(config);
        if config.behavior_version().is_none() {
            base.set_behavior_version(Some(behavior_version()));
        }
        base.set_use_fips(Some(fips));
        let timeouts = Timeouts {
            connect: self.connect_timeout,
            attempt: self.attempt_timeout,
            operation: self.operation_timeout,
        };
        let timeouts = timeouts.or(config.timeout_config())?;
        let order = Regions::new(
            timeouts.operation_attempt_timeout().unwrap_or(ATTEMPT_TIMEOUT),
            timeouts.operation_timeout().unwrap_or(OPERATION_TIMEOUT),
        );
        base.set_timeout_config(Some(timeouts));
        base.set_retry_config(Some(retries(
            self.retry_mode,
            self.attempts,
            config.retry_config(),
        )?));
        Ok(AwsKms(Arc::new(Inner {
            clients: Clients::new(base, endpoints, config.http_client().is_none()),
            regions,
            several,
            default_kek,
            order: Arc::new(order),
            descriptions: Flights::default(),
            rotation_is_secret: false.into(),
            rotations_are_secret: false.into(),
            last_rotations: Mutex::default(),
        })))
    }
}

/// Reads an environment variable, if it is set.
fn variable(
    variable: &'static str,
    expected: &'static str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<Option<String>, AwsKmsError> {
    let Some(value) = std::env::var_os(variable) else {
        return Ok(None);
    };
    match value.to_str().filter(|value| is_valid(value)) {
        Some(value) => Ok(Some(value.to_owned())),
        None => Err(AwsKmsError::InvalidVariable {
            variable,
            value: value.to_string_lossy().into_owned(),
            expected,
        }),
    }
}

/// Checks the variables that the SDK ignores if it cannot read them, which would send requests elsewhere, or for which
/// it panics.
fn check_variables() -> Result<(), AwsKmsError> {
    let is_bool = |value: &str| {
        let known = ["", "false", "true"];
        known.iter().any(|known| value.eq_ignore_ascii_case(known))
    };
    for name in [
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    ] {
        variable(name, "write `true` or `false`, or leave it out", is_bool)?;
    }
    let is_count = |value: &str| value.parse::<u32>().is_ok_and(|attempts| attempts > 0);
    variable(
        "AWS_MAX_ATTEMPTS",
        "write a number from 1 on, or leave it out",
        is_count,
    )?;
    let is_mode = |value: &str| RetryMode::from_str(value).is_ok();
    variable(
        "AWS_RETRY_MODE",
        "write `standard` or `adaptive`, or leave it out",
        is_mode,
    )?;
    Ok(())
}

/// Names the source of a region from the environment, the profile or the caller's `SdkConfig`.
fn region_set_by(region: &str) -> &'static str {
    ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find(|variable| std::env::var(variable).is_ok_and(|set| set == region))
        .unwrap_or("the profile or the `SdkConfig`")
}

/// Parses all endpoints: those set here, and the one of the environment or the profile.
fn endpoints(
    of_region: &BTreeMap<String, String>,
    shared: Option<&str>,
    config: &SdkConfig,
) -> Result<Endpoints, AwsKmsError> {
    let mut endpoints = Endpoints {
        shared: match shared {
            Some(url) => Some(Endpoint::parse(url, "`endpoint_url`")?),
            None => Endpoint::inherited(config)?,
        },
        ..Endpoints::default()
    };
    let set_by = "`endpoint_url_for`";
    for (region, url) in of_region {
        if !is_region(region) {
            let region = region.clone();
            return Err(AwsKmsError::InvalidRegion { region, set_by });
        }
        let endpoint = Endpoint::parse(url, set_by)?;
        endpoints.of_region.insert(region.clone(), endpoint);
    }
    Ok(endpoints)
}

/// Refuses endpoints that conflict with the regions, or with `asked`, the requested variant of AWS's own endpoints.
fn check_endpoints(
    endpoints: &Endpoints,
    regions: &[String],
    of_kek: Option<&str>,
    asked: &[(&'static str, bool)],
) -> Result<(), AwsKmsError> {
    let all = || endpoints.of_region.values().chain(&endpoints.shared);
    if let (Some(endpoint), Some((asked, _))) = (all().next(), asked.iter().find(|(_, is_asked)| *is_asked)) {
        return Err(AwsKmsError::EndpointTwice {
            asked,
            url: endpoint.url().to_owned(),
            set_by: endpoint.set_by(),
        });
    }
    let elsewhere = |endpoint: &Endpoint, region: &str| AwsKmsError::EndpointRegion {
        url: endpoint.url().to_owned(),
        set_by: endpoint.set_by(),
        found: endpoint.region().unwrap_or_default().to_owned(),
        region: region.to_owned(),
    };
    for (region, endpoint) in &endpoints.of_region {
        if !endpoint.can_serve(region) {
            return Err(elsewhere(endpoint, region));
        }
    }
    let Some(shared) = &endpoints.shared else {
        return Ok(());
    };
    let mut used = regions.iter().map(String::as_str).chain(of_kek);
    if !used.any(|region| shared.can_serve(region)) {
        return Err(elsewhere(shared, regions.first().map_or("", String::as_str)));
    }
    let served: Vec<_> = regions
        .iter()
        .filter(|region| !endpoints.of_region.contains_key(*region) && shared.can_serve(region))
        .cloned()
        .collect();
    if served.len() > 1 {
        return Err(AwsKmsError::SharedEndpoint {
            url: shared.url().to_owned(),
            set_by: shared.set_by(),
            regions: served,
        });
    }
    Ok(())
}

/// The tested version of the SDK's defaults. Change it deliberately.
fn behavior_version() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

struct Timeouts {
    connect: Option<Duration>,
    attempt: Option<Duration>,
    operation: Option<Duration>,
}

impl Timeouts {
    /// Fills unset values from the caller's configuration, and then from our defaults.
    fn or(self, config: Option<&TimeoutConfig>) -> Result<TimeoutConfig, AwsKmsError> {
        // The connect timeout there may be a default of the SDK, so ours applies unless it is shorter.
        let connect = self.connect.unwrap_or_else(|| {
            let set = config.and_then(TimeoutConfig::connect_timeout);
            set.map_or(CONNECT_TIMEOUT, |set| set.min(CONNECT_TIMEOUT))
        });
        let attempt = self
            .attempt
            .or_else(|| config.and_then(TimeoutConfig::operation_attempt_timeout))
            .unwrap_or(ATTEMPT_TIMEOUT);
        let operation = self
            .operation
            .or_else(|| config.and_then(TimeoutConfig::operation_timeout))
            .unwrap_or(OPERATION_TIMEOUT);
        for (setting, timeout) in [
            ("connect_timeout", connect),
            ("attempt_timeout", attempt),
            ("operation_timeout", operation),
        ] {
            if timeout.is_zero() {
                return Err(AwsKmsError::Zero { setting });
            }
        }
        Ok(TimeoutConfig::builder()
            .connect_timeout(connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout(operation)
            .build())
    }
}

fn retries(
    mode: Option<RetryMode>,
    attempts: Option<u32>,
    config: Option<&RetryConfig>,
) -> Result<RetryConfig, AwsKmsError> {
    if attempts == Some(0) {
        return Err(AwsKmsError::Zero {
            setting: "max_attempts",
        });
    }
    let retries = config.cloned().unwrap_or_else(RetryConfig::standard);
    let retries = mode.into_iter().fold(retries, RetryConfig::with_retry_mode);
    let default = if config.is_none() { Some(ATTEMPTS) } else { None };
    Ok(attempts
        .or(default)
        .into_iter()
        .fold(retries, RetryConfig::with_max_attempts))
}
