//! Why an [`AwsKms`](crate::AwsKms) could not be made.

use std::fmt;

use encx_core::key::NameError;

/// Says why an [`AwsKms`](crate::AwsKms) could not be made.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AwsKmsError {
    /// The host of an endpoint names another region than it is to serve.
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
        /// The region that it was given for.
        region: String,
    },
    /// FIPS or dual-stack endpoints were asked for, and an endpoint was named besides.
    #[error(
        "{asked} endpoints are AWS's own: leave out either that setting or the endpoint {url}, which {set_by} sets and \
         which may be such a one"
    )]
    EndpointTwice {
        /// What was asked for: FIPS or dual-stack.
        asked: &'static str,
        /// The endpoint.
        url: String,
        /// The variable or method that sets it.
        set_by: &'static str,
    },
    /// An endpoint is no URI that a request could be sent to.
    #[error(
        "the endpoint `{url}`, which {set_by} sets, {why}; write it as `https://HOST` or `http://HOST:PORT`"
    )]
    InvalidEndpoint {
        /// What was given, without a user's name and password.
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
    /// A variable of the environment has a value that it cannot have. The SDK would ignore it, or panic.
    #[error("the variable {variable} is `{value}`; {expected}")]
    InvalidVariable {
        /// The variable.
        variable: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The `SdkConfig` has no provider of credentials.
    #[error("the `SdkConfig` has no provider of credentials, so no request could be signed")]
    MissingCredentials,
    /// No region is known.
    #[error("no AWS region is set: set AWS_REGION, call `region`, or name the default KEK by its ARN")]
    MissingRegion,
    /// The default KEK cannot be a name.
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
    /// A setting that has to be more than nothing is not.
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
