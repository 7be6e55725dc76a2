//! Shared test code: the address of the KMS server, clients for it, and a proxy that counts and fails.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

pub(crate) mod capture;
pub(crate) mod environment;
pub(crate) mod postgres;
pub(crate) mod provision;
pub(crate) mod proxy;
pub(crate) mod scripted;

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::Client;
use encx::EncryptionContext;
use encx::kms::KekId;
use encx_aws::{AwsKms, AwsKmsBuilder};

pub(crate) const HOME: &str = "eu-central-1";
pub(crate) const AWAY: &str = "eu-west-1";

/// Returns the address of the KMS server that `./scripts/test` starts. Without one the test fails; it is never skipped.
pub(crate) fn server_url() -> String {
    std::env::var("ENCX_TEST_KMS_URL")
        .expect("ENCX_TEST_KMS_URL is not set: run the tests with ./scripts/test, which starts a KMS server")
}

/// Returns a service's configuration, with invalid credentials.
pub(crate) fn config() -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "not-a-secret", None, None, "tests");
    SdkConfig::builder()
        .region(Region::from_static(HOME))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
        .build()
}

/// Builds an `AwsKms` whose regions all have one address.
pub(crate) fn builder_at(url: &str) -> AwsKmsBuilder {
    AwsKms::builder()
        .sdk_config(&config())
        .endpoint_url_for(HOME, url)
        .endpoint_url_for(AWAY, url)
}

/// Returns the SDK's own client, for operations that no service uses: creating and disabling keys.
pub(crate) fn client(region: &'static str) -> Client {
    let config = aws_sdk_kms::config::Builder::from(&config())
        .region(Region::from_static(region))
        .endpoint_url(server_url());
    Client::from_conf(config.build())
}

pub(crate) async fn create_key(region: &'static str) -> KekId {
    let made = client(region).create_key().send().await.unwrap();
    arn(made.key_metadata.unwrap().arn.unwrap())
}

/// Creates a multi-region key in `HOME`, with a replica in `AWAY`, and returns the ARN of the former.
pub(crate) async fn create_multi_region_key() -> KekId {
    let made = client(HOME).create_key().multi_region(true).send().await.unwrap();
    let made = made.key_metadata.unwrap();
    let replica = client(HOME).replicate_key().key_id(made.key_id());
    replica.replica_region(AWAY).send().await.unwrap();
    arn(made.arn.unwrap())
}

pub(crate) fn arn(arn: impl AsRef<str>) -> KekId {
    KekId::new(arn).unwrap()
}

pub(crate) fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("purpose", "pii")
        .pair("tenantId", tenant)
        .build()
        .unwrap()
}

/// Returns the path of an example of this package, which Cargo builds before its tests.
pub(crate) fn example(name: &str) -> std::path::PathBuf {
    // target/debug/deps/this-test -> target/debug/examples/name
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap().join("examples");
    let path = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.exists(),
        "{} is not built: `cargo test -p encx-aws` builds it",
        path.display()
    );
    path
}
