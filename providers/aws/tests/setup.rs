//! The configuration of an `AwsKms`, and the settings that it refuses.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "how a process of a test tells what it saw")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::http::HttpRequest;
use aws_sdk_kms::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use encx::kms::KeyManagementService;
use encx_aws::{AwsKms, AwsKmsBuilder, AwsKmsError, RetryMode};

use crate::common::environment::{UNSET, in_environment};
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
    let dual_stack = config().into_builder().use_dual_stack(true).build();
    for builder in [builder().fips(true), AwsKms::builder().sdk_config(&dual_stack)] {
        let error = refused(builder.endpoint_url("https://vpce.example")).await;
        assert!(matches!(error, AwsKmsError::EndpointTwice { .. }), "{error}");
    }
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
async fn an_endpoint_is_an_http_uri_with_a_host_wherever_it_comes_from() {
    let configured = |url: &str| config().into_builder().endpoint_url(url).build();
    for url in [
        "localhost:4566",
        "localhost",
        "",
        "http://",
        "ftp://localhost",
        "http://local host",
    ] {
        for (builder, set_by) in [
            (builder().endpoint_url(url), "`endpoint_url`"),
            (builder().endpoint_url_for(HOME, url), "`endpoint_url_for`"),
            (builder().endpoint_url_for("us-west-2", url), "`endpoint_url_for`"),
            (AwsKms::builder().sdk_config(&configured(url)), "`SdkConfig`"),
        ] {
            let error = refused(builder).await;
            assert!(matches!(error, AwsKmsError::InvalidEndpoint { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("`{url}`")) && text.contains(set_by) && text.contains("https://HOST"),
                "{text}"
            );
        }
        let error = AwsKms::new(&configured(url)).unwrap_err();
        assert!(matches!(error, AwsKmsError::InvalidEndpoint { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_region_is_a_code_and_no_city() {
    for region in [
        "frankfurt",
        "eu-central-1a",
        "EU-CENTRAL-1",
        "eu_central_1",
        "",
        " eu-central-1",
        "evil.example/",
    ] {
        let set = Region::new(region.to_owned());
        let configured = config().into_builder().region(set).build();
        for (builder, set_by) in [
            (builder().region(region), "`region`"),
            (builder().regions([HOME, region]), "`regions`"),
            (
                builder().endpoint_url_for(region, "http://localhost"),
                "`endpoint_url_for`",
            ),
            (AwsKms::builder().sdk_config(&configured), "`SdkConfig`"),
        ] {
            let error = refused(builder).await;
            assert!(matches!(error, AwsKmsError::InvalidRegion { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("`{region}`"))
                    && text.contains(set_by)
                    && text.contains("`eu-central-1`"),
                "{text}"
            );
        }
    }
    let kek = ARN.replace(HOME, "frankfurt");
    let error = refused(builder().default_kek(kek)).await;
    assert!(matches!(error, AwsKmsError::InvalidKek { .. }), "{error}");
}

#[tokio::test]
async fn one_endpoint_for_several_regions_is_refused_by_name() {
    let error = refused(
        builder()
            .regions([AWAY, HOME])
            .endpoint_url("https://vpce.example"),
    )
    .await;
    let text = error.to_string();
    for part in [
        "https://vpce.example",
        "`endpoint_url`",
        AWAY,
        HOME,
        "endpoint_url_for",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Not if one of them has its own, or if its host names a region.
    for builder in [
        builder()
            .endpoint_url("https://vpce.example")
            .endpoint_url_for(HOME, "https://other.example"),
        builder().endpoint_url("https://vpce-1.kms.eu-west-1.vpce.amazonaws.com"),
    ] {
        builder.regions([AWAY, HOME]).build().await.unwrap();
    }
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

/// An HTTP client that connects nowhere, and records the hosts.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl HttpConnector for Recorder {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.lock().unwrap().push(request.uri().to_owned());
        HttpConnectorFuture::ready(Err(ConnectorError::io("connection refused".into())))
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
    let cases: [(Change, &str, &str); 9] = [
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
        // An endpoint serves every region without its own, unless its host names one.
        (
            |kms| kms.endpoint_url("https://vpce.example"),
            &there,
            "https://vpce.example/",
        ),
        (
            |kms| kms.endpoint_url("https://vpce-1.kms.eu-central-1.vpce.amazonaws.com"),
            &there,
            "https://kms.us-west-2.amazonaws.com/",
        ),
        (
            |kms| {
                kms.endpoint_url("https://vpce.example")
                    .endpoint_url_for("us-west-2", "https://other.example")
            },
            &there,
            "https://other.example/",
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
    // So does one that an `SdkConfig` names.
    for kek in ["alias/app", &*there] {
        let asked = asked(Some("https://vpce.example"), |kms| kms, kek).await;
        assert_eq!(asked, "https://vpce.example/", "{kek}");
    }
}

/// A service's environment, read in a child process because all tests share this one's.
#[test]
fn the_environment_names_region_and_default_kek() {
    let name = "the_environment_names_region_and_default_kek";
    let variables = [("AWS_REGION", "eu-north-1"), ("AWS_KMS_KEY_ID", "alias/from-env")];
    match in_environment(name, &variables) {
        Some(said) => assert_eq!(said, "[\"eu-north-1\"] alias/from-env\n"),
        None => encx_testkit::block_on(async {
            let kms = AwsKms::from_env().await.unwrap();
            println!("said: {:?} {}", kms.regions(), kms.default_kek().unwrap());
        }),
    }
}

#[test]
fn a_wrong_value_in_the_environment_is_refused_with_the_variable_s_name() {
    let name = "a_wrong_value_in_the_environment_is_refused_with_the_variable_s_name";
    let folder = tempfile::tempdir().unwrap();
    let profile = |text: &str| {
        let path = folder.path().join(format!("config-{}", text.len()));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let everywhere = profile("[default]\nendpoint_url = localhost:4566\n");
    let for_kms =
        profile("[default]\nservices = here\n[services here]\nkms =\n  endpoint_url = localhost:4566\n");
    let city = profile("[default]\nregion = frankfurt\n");
    let elsewhere = profile("[default]\nendpoint_url = https://kms.us-east-1.amazonaws.com\n");
    let fips = profile("[default]\nuse_fips_endpoint = true\nendpoint_url = https://vpce.example\n");
    for (variables, parts) in [
        (
            vec![("AWS_ENDPOINT_URL_KMS", "localhost:4566")],
            ["the endpoint", "`localhost:4566`", "AWS_ENDPOINT_URL_KMS"],
        ),
        (
            vec![("AWS_ENDPOINT_URL", "localhost:4566")],
            ["the endpoint", "`localhost:4566`", "AWS_ENDPOINT_URL"],
        ),
        // The SDK ignores this one, and would call AWS.
        (
            vec![("AWS_ENDPOINT_URL", "localhost")],
            ["the endpoint", "`localhost`", "AWS_ENDPOINT_URL"],
        ),
        (
            vec![("AWS_CONFIG_FILE", &*everywhere)],
            ["the endpoint", "`localhost:4566`", "profile"],
        ),
        (
            vec![("AWS_CONFIG_FILE", &*for_kms)],
            ["the endpoint", "`localhost:4566`", "profile"],
        ),
        (
            vec![("AWS_ENDPOINT_URL_KMS", "https://kms.us-east-1.amazonaws.com")],
            ["belongs to region", "`us-east-1`", "AWS_ENDPOINT_URL_KMS"],
        ),
        (
            vec![
                ("AWS_ENDPOINT_URL_KMS", "https://vpce.example"),
                ("AWS_USE_FIPS_ENDPOINT", "true"),
            ],
            ["endpoints are AWS", "FIPS", "AWS_ENDPOINT_URL_KMS"],
        ),
        (
            vec![("AWS_ENDPOINT_URL", "https://kms.us-east-1.amazonaws.com")],
            ["belongs to region", "`us-east-1`", "AWS_ENDPOINT_URL"],
        ),
        (
            vec![("AWS_CONFIG_FILE", &*elsewhere)],
            ["belongs to region", "`us-east-1`", "profile"],
        ),
        (
            vec![("AWS_CONFIG_FILE", &*fips)],
            ["endpoints are AWS", "FIPS", "profile"],
        ),
        (
            vec![
                ("AWS_ENDPOINT_URL", "https://vpce.example"),
                ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
            ],
            ["endpoints are AWS", "dual-stack", "AWS_ENDPOINT_URL"],
        ),
        // Values that the SDK would ignore and call a non-FIPS endpoint, or for which it panics.
        (
            vec![("AWS_USE_FIPS_ENDPOINT", "yes")],
            ["AWS_USE_FIPS_ENDPOINT", "`yes`", "`true` or `false`"],
        ),
        (
            vec![("AWS_MAX_ATTEMPTS", "many")],
            ["AWS_MAX_ATTEMPTS", "`many`", "a number"],
        ),
        (
            vec![("AWS_RETRY_MODE", "fast")],
            ["AWS_RETRY_MODE", "`fast`", "`standard`"],
        ),
        (
            vec![("AWS_KMS_KEY_ID", "")],
            ["AWS_KMS_KEY_ID", "is ``", "key's ARN"],
        ),
        (
            vec![("AWS_KMS_KEY_ID", "arn:aws:s3:::bucket")],
            ["AWS_KMS_KEY_ID", "`arn:aws:s3:::bucket`", "no key of AWS KMS"],
        ),
        (
            vec![("AWS_REGION", "frankfurt")],
            ["no region of AWS", "`frankfurt`", "AWS_REGION"],
        ),
        (
            vec![("AWS_REGION", "eu-central-1a")],
            ["no region of AWS", "`eu-central-1a`", "AWS_REGION"],
        ),
        (
            vec![("AWS_REGION", ""), ("AWS_DEFAULT_REGION", HOME)],
            ["no region of AWS", "``", "AWS_REGION"],
        ),
        (
            vec![("AWS_CONFIG_FILE", &*city), ("AWS_REGION", "eu-central-1 ")],
            ["no region of AWS", "`eu-central-1 `", "AWS_REGION"],
        ),
    ] {
        let mut all = vec![("AWS_REGION", HOME)];
        all.extend(&variables);
        let Some(said) = in_environment(name, &all) else {
            encx_testkit::block_on(async {
                let error = AwsKms::from_env().await.unwrap_err();
                println!("said: {error:?} {error}");
            });
            return;
        };
        for part in parts {
            assert!(said.contains(part), "{variables:?}: `{part}` is not in: {said}");
        }
    }
}

/// It can be built without a KEK, because the caller may name one; otherwise the first call names the variable to set.
#[test]
fn without_a_kek_the_first_call_names_the_variable() {
    let name = "without_a_kek_the_first_call_names_the_variable";
    match in_environment(name, &[("AWS_REGION", HOME), ("AWS_KMS_KEY_ID", UNSET)]) {
        Some(said) => assert!(
            said.contains("AWS_KMS_KEY_ID") && said.contains("`kek`"),
            "{said}"
        ),
        None => encx_testkit::block_on(async {
            let kms = AwsKms::from_env().await.unwrap();
            let crypto = encx::Crypto::builder(kms, encx_testkit::MemoryKeyStore::new());
            let error = match crypto.build().await {
                Ok(crypto) => {
                    let row = encx::Field::new("users", "ssn").row(1);
                    crypto.encrypt(&common::context("a"), "x", row).await.unwrap_err()
                }
                Err(error) => error,
            };
            println!("said: {error}");
        }),
    }
}

/// The endpoint of the environment is used for every region, or a warning names it.
#[test]
fn the_environment_s_endpoint_serves_the_region_of_each_arn() {
    let name = "the_environment_s_endpoint_serves_the_region_of_each_arn";
    let vpce = "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com";
    for (variable, url, expected) in [
        (
            "AWS_ENDPOINT_URL_KMS",
            "http://localhost:4566",
            "http://localhost:4566/ http://localhost:4566/",
        ),
        (
            "AWS_ENDPOINT_URL",
            "http://localhost:4566",
            "http://localhost:4566/ http://localhost:4566/",
        ),
        (
            "AWS_ENDPOINT_URL_KMS",
            vpce,
            &*format!("{vpce}/ https://kms.us-west-2.amazonaws.com/"),
        ),
    ] {
        let Some(said) = in_environment(name, &[("AWS_REGION", HOME), (variable, url)]) else {
            encx_testkit::block_on(ask_home_and_there());
            return;
        };
        assert!(said.starts_with(&format!("asked {expected}\n")), "{said}");
        // A warning names an endpoint that is skipped in favour of AWS's own.
        let is_named =
            said.contains("us-west-2") && said.contains(variable) && said.contains("another region's");
        assert_eq!(is_named, url == vpce, "{said}");
    }
}

/// Prints the endpoints called for a KEK of the home region and for one of another, and the warnings about them.
async fn ask_home_and_there() {
    let events = common::capture::Capture::install();
    let recorder = Recorder::default();
    let connector = SharedHttpConnector::new(recorder.clone());
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .load()
        .await;
    let kms = AwsKms::builder().sdk_config(&config).max_attempts(1);
    let kms = kms.build().await.unwrap();
    for kek in [ARN.to_owned(), ARN.replace(HOME, "us-west-2")] {
        kms.describe_kek(&arn(kek)).await.unwrap_err();
    }
    println!("said: asked {}", recorder.0.lock().unwrap().join(" "));
    let events = events.take();
    for warning in events.lines().filter(|event| event.starts_with("WARN encx::aws")) {
        println!("said: {warning}");
    }
}
