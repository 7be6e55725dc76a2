//! Why an [`AwsKms`](crate::AwsKms) could not be created.

use std::fmt;

use encx_core::key::NameError;

/// Says why an [`AwsKms`](crate::AwsKms) could not be created.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AwsKmsError {
    /// The host of an endpoint names a region other than the one it is configured for.
    #[error(
        "the endpoint {url}, which {set_by} sets, belongs to region `{found}`, and was given for region `{region}`; give the \
         endpoint of that region, or change the region"
    )]
    EndpointRegion {
        /// The endpoint.
        url: String,
        /// The variable or method that sets it.
        set_by: &'static str,
        /// The region that its host names.
        found: String,
        /// The region that it was configured for.
        region: String,
    },
    /// FIPS or dual-stack endpoints were requested together with an explicit endpoint.
    #[error(
        "{asked} endpoints are AWS's own: leave out either that setting or the endpoint {url}, which {set_by} sets and \
         which may be such a one"
    )]
    EndpointTwice {
        /// What was requested: FIPS or dual-stack.
        asked: &'static str,
        /// The endpoint.
        url: String,
        /// The variable or method that sets it.
        set_by: &'static str,
    },
    /// An endpoint is not a URI to which requests can be sent.
    #[error(
        "the endpoint `{url}`, which {set_by} sets, {why}; write it as `https://HOST` or `http://HOST:PORT`"
    )]
    InvalidEndpoint {
        /// What was given, without user name and password.
        url: String,
        /// The variable or method that sets it.
        set_by: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The default KEK cannot be a KEK of AWS KMS.
    #[error(
        "`{kek}`, which {set_by} sets, is no key of AWS KMS: give a key's ARN, a key id, or an alias that begins with `alias/`"
    )]
    InvalidKek {
        /// What was given.
        kek: String,
        /// The variable or method that sets it.
        set_by: &'static str,
    },
    /// A region's name does not have the form of one.
    #[error(
        "`{region}`, which {set_by} sets, is no region of AWS; set the region's code, such as `eu-central-1`: not a \
         city's name, no availability zone's letter at the end, no capitals, spaces or quotes"
    )]
    InvalidRegion {
        /// What was given.
        region: String,
        /// The variable or method that sets it.
        set_by: &'static str,
    },
    /// An environment variable has an invalid value. The SDK would ignore it, or panic.
    #[error("the variable {variable} is `{value}`; {expected}")]
    InvalidVariable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Its valid values.
        expected: &'static str,
    },
    /// The `SdkConfig` has no credentials provider.
    #[error("the `SdkConfig` has no provider of credentials, so no request could be signed")]
    MissingCredentials,
    /// No region is known.
    #[error("no AWS region is set: set AWS_REGION, call `region`, or name the default KEK by its ARN")]
    MissingRegion,
    /// The default KEK is not a valid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// One endpoint was named for several regions.
    #[error(
        "the endpoint {url}, which {set_by} sets, cannot serve several regions ({}): if it fails, so do all; give each region \
         its own with `endpoint_url_for`",
        regions.join(", ")
    )]
    SharedEndpoint {
        /// The endpoint.
        url: String,
        /// The variable or method that sets it.
        set_by: &'static str,
        /// The regions that have no endpoint of their own.
        regions: Vec<String>,
    },
    /// A setting that must be greater than zero is zero.
    #[error("`{setting}` must be more than nothing")]
    Zero {
        /// The setting.
        setting: &'static str,
    },
}

impl fmt::Debug for AwsKmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}
