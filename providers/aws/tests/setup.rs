//! How an `AwsKms` is set up, and which settings it refuses.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::http::HttpRequest;
use aws_sdk_kms::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use encx::KeyManagementService;
use encx_aws::{AwsKms, AwsKmsBuilder, AwsKmsError, RetryMode};

use crate::common::scripted::{ARN, MRK, Scripted, refusal};
use crate::common::{AWAY, HOME, arn, config};

async fn refused(builder: AwsKmsBuilder) -> AwsKmsError {
    builder.build().await.unwrap_err()
}

fn builder() -> AwsKmsBuilder {
    AwsKms::builder().sdk_config(&config())
}

fn without_region() -> SdkConfig {
    let mut config = config().into_builder();
    config.set_region(None);
    config.build()
}

#[tokio::test]
async fn the_region_is_that_of_the_builder_then_the_configuration_then_the_kek() {
    let kms = builder().region(AWAY).build().await.unwrap();
    assert_eq!(kms.regions(), [AWAY]);
    assert_eq!(AwsKms::new(&config()).unwrap().regions(), [HOME]);
    let none = AwsKms::builder().sdk_config(&without_region());
    let kms = none
        .default_kek(ARN.replace(HOME, "us-east-1"))
        .build()
        .await
        .unwrap();
    assert_eq!(kms.regions(), ["us-east-1"]);
    assert!(matches!(
        AwsKms::new(&without_region()),
        Err(AwsKmsError::MissingRegion)
    ));
    let kms = builder().regions([AWAY, HOME, AWAY]).build().await.unwrap();
    assert_eq!(kms.regions(), [AWAY, HOME]);
}

#[tokio::test]
async fn the_default_kek_may_be_named_in_four_ways() {
    for kek in [
        ARN,
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "alias/app",
        "arn:aws:kms:eu-west-1:111122223333:alias/app",
    ] {
        let kms = builder().default_kek(kek).build().await.unwrap();
        assert_eq!(kms.default_kek(), Some(&arn(kek)));
    }
    assert_eq!(AwsKms::new(&config()).unwrap().default_kek(), None);
    for kek in ["arn:aws:s3:::bucket", "arn:aws:kms:eu-west-1:1:key/"] {
        let error = refused(builder().default_kek(kek)).await;
        assert!(matches!(error, AwsKmsError::InvalidKek { .. }), "{error}");
    }
    assert!(matches!(
        refused(builder().default_kek("")).await,
        AwsKmsError::Name(_)
    ));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let error = refused(builder().endpoint_url("https://kms.us-east-1.amazonaws.com")).await;
    let text = error.to_string();
    assert!(
        text.contains("us-east-1") && text.contains(HOME),
        "both regions: {text}"
    );
    let error = refused(builder().fips(true).endpoint_url("https://vpce.example")).await;
    assert!(matches!(error, AwsKmsError::FipsWithEndpoint { .. }), "{error}");
    let error = refused(builder().region("evil.example/")).await;
    assert!(matches!(error, AwsKmsError::InvalidRegion { .. }), "{error}");
    for builder in [
        builder().connect_timeout(Duration::ZERO),
        builder().attempt_timeout(Duration::ZERO),
        builder().operation_timeout(Duration::ZERO),
        builder().max_attempts(0),
    ] {
        assert!(matches!(refused(builder).await, AwsKmsError::Zero { .. }));
    }
    let unsigned = SdkConfig::builder().region(Region::from_static(HOME)).build();
    assert!(matches!(
        AwsKms::new(&unsigned),
        Err(AwsKmsError::MissingCredentials)
    ));
}

#[tokio::test]
async fn an_sdk_config_without_a_behavior_version_is_no_panic() {
    let scripted = Scripted::start().await;
    scripted
        .answer("DescribeKey", [refusal(400, "NotFoundException")])
        .await;
    let mut config = config().into_builder();
    config.set_behavior_version(None::<BehaviorVersion>);
    config.set_endpoint_url(Some(scripted.server.uri()));
    // An endpoint of the configuration is used, too.
    let kms = AwsKms::new(&config.build()).unwrap();
    kms.describe_kek(&arn(ARN)).await.unwrap_err();
    assert_eq!(scripted.asked().await.len(), 1);
}

#[tokio::test]
async fn attempts_and_mode_are_those_that_were_set() {
    for (mode, attempts) in [
        (RetryMode::Standard, 1),
        (RetryMode::Standard, 4),
        (RetryMode::Adaptive, 2),
    ] {
        let scripted = Scripted::start().await;
        scripted
            .answer("DescribeKey", [refusal(500, "KMSInternalException")])
            .await;
        let kms = scripted.builder().retry_mode(mode).max_attempts(attempts);
        kms.build()
            .await
            .unwrap()
            .describe_kek(&arn(ARN))
            .await
            .unwrap_err();
        assert_eq!(scripted.asked().await.len(), attempts as usize);
    }
}

/// An HTTP client that reaches nobody, and notes whom it was to reach.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl HttpConnector for Recorder {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.lock().unwrap().push(request.uri().to_owned());
        HttpConnectorFuture::ready(Err(ConnectorError::io("nobody is there".into())))
    }
}

#[tokio::test]
async fn region_fips_and_endpoints_say_who_is_asked() {
    let asked = async |configured: Option<&str>, change: fn(AwsKmsBuilder) -> AwsKmsBuilder, kek: &str| {
        let recorder = Recorder::default();
        let connector = SharedHttpConnector::new(recorder.clone());
        let mut config = config().into_builder();
        config.set_endpoint_url(configured.map(str::to_owned));
        config.set_http_client(Some(http_client_fn(move |_, _| connector.clone())));
        let kms = AwsKms::builder().sdk_config(&config.build()).max_attempts(1);
        let kms = change(kms).build().await.unwrap();
        let error = kms.describe_kek(&arn(kek)).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        let hosts = recorder.0.lock().unwrap().clone();
        hosts.join(" ")
    };
    let there = ARN.replace(HOME, "us-west-2");
    let mrk = MRK.to_owned();
    type Change = fn(AwsKmsBuilder) -> AwsKmsBuilder;
    let cases: [(Change, &str, &str); 7] = [
        (|kms| kms, "alias/app", "https://kms.eu-central-1.amazonaws.com/"),
        (
            |kms| kms.region(AWAY),
            "alias/app",
            "https://kms.eu-west-1.amazonaws.com/",
        ),
        (|kms| kms, &there, "https://kms.us-west-2.amazonaws.com/"),
        (
            |kms| kms.fips(true),
            &there,
            "https://kms-fips.us-west-2.amazonaws.com/",
        ),
        (
            |kms| kms.endpoint_url("https://vpce.example"),
            "alias/app",
            "https://vpce.example/",
        ),
        // An endpoint belongs to one region.
        (
            |kms| kms.endpoint_url("https://vpce.example"),
            &there,
            "https://kms.us-west-2.amazonaws.com/",
        ),
        (
            |kms| {
                kms.regions([AWAY, HOME])
                    .endpoint_url_for(HOME, "https://vpce.example")
            },
            &mrk,
            "https://kms.eu-west-1.amazonaws.com/ https://vpce.example/",
        ),
    ];
    for (change, kek, expected) in cases {
        assert_eq!(asked(None, change, kek).await, expected, "{kek}");
    }
    // So does one that the environment or the profile names.
    let configured = Some("https://vpce.example");
    for (kek, expected) in [
        ("alias/app", "https://vpce.example/"),
        (&*there, "https://kms.us-west-2.amazonaws.com/"),
    ] {
        assert_eq!(asked(configured, |kms| kms, kek).await, expected, "{kek}");
    }
}

/// What a service's environment says, read in a process of its own: this one's is shared by all tests.
#[test]
fn the_environment_names_region_and_default_kek() {
    const CHILD: &str = "ENCX_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        encx::testkit::block_on(async {
            let kms = AwsKms::from_env().await.unwrap();
            assert_eq!(kms.regions(), ["eu-north-1"]);
            assert_eq!(kms.default_kek(), Some(&arn("alias/from-env")));
        });
        return;
    }
    let name = "the_environment_names_region_and_default_kek";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, "1")
        .env("AWS_REGION", "eu-north-1")
        .env("AWS_KMS_KEY_ID", "alias/from-env")
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
}
