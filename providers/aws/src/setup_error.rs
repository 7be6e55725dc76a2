//! Why an [`AwsKms`](crate::AwsKms) could not be made.

use encx::NameError;

/// Says why an [`AwsKms`](crate::AwsKms) could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AwsKmsError {
    /// The host of an endpoint names another region than it is to serve.
    #[error("endpoint {url} belongs to region `{found}`, and was given for region `{region}`")]
    EndpointRegion {
        /// The endpoint.
        url: String,
        /// The region that its host names.
        found: String,
        /// The region that it was given for.
        region: String,
    },
    /// FIPS endpoints were asked for, and an endpoint was named besides.
    #[error(
        "FIPS endpoints are AWS's own: leave out either `fips` or the endpoint {url}, which may be a FIPS one"
    )]
    FipsWithEndpoint {
        /// The endpoint.
        url: String,
    },
    /// The default KEK cannot be a KEK of AWS KMS.
    #[error(
        "`{kek}` is no key of AWS KMS: give a key's ARN, a key id, or an alias that begins with `alias/`"
    )]
    InvalidKek {
        /// What was given.
        kek: String,
    },
    /// A region's name has characters that no region has.
    #[error("`{region}` is no region of AWS")]
    InvalidRegion {
        /// What was given.
        region: String,
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
    /// A setting that has to be more than nothing is not.
    #[error("`{setting}` must be more than nothing")]
    Zero {
        /// The setting.
        setting: &'static str,
    },
}
