//! Credentials services: their refusals are not outages of AWS KMS, and errors do not show requests to them.

use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::common::environment::{UNSET, in_environment, is_child};

const NAME: &str = "credentials::what_gives_no_credentials_is_told_from_what_does_not_answer";
const TOKEN: &str = "the-token-of-a-pod";
const ROLE: &str = "arn:aws:iam::111122223333:role/shop";

/// A refusal by STS that repeats its request.
fn sts(status: u16, code: &str) -> ResponseTemplate {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>not authorized for {ROLE}: {TOKEN} x-17</Message></Error>\
         <RequestId>11111111-2222-3333-4444-555555555555</RequestId></ErrorResponse>"
    );
    ResponseTemplate::new(status).set_body_raw(body, "text/xml")
}

async fn server(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::builder().start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

/// Prints how a call fails.
async fn fail() {
    let kms = AwsKms::builder()
        .max_attempts(1)
        .attempt_timeout(Duration::from_secs(2));
    let error = unwrap(&kms.build().await.unwrap(), ARN).await.unwrap_err();
    println!(
        "said: kind {:?}, retryable {}",
        error.kind(),
        error.is_retryable()
    );
    for line in all_text(&error).lines() {
        println!("said: {line}");
    }
}

#[test]
fn what_gives_no_credentials_is_told_from_what_does_not_answer() {
    use KmsErrorKind::{AccessDenied, Configuration, Unavailable};
    if is_child() {
        return encx_testkit::block_on(fail());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token, nowhere) = (file("token", TOKEN), folder.path().join("nowhere"));
    let nowhere = nowhere.to_str().unwrap();
    let profile = file(
        "config",
        &format!(
            "[profile shop]\nrole_arn = {ROLE}\nsource_profile = base\nexternal_id = x-17\n\
             [profile base]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = not-a-secret\n"
        ),
    );
    let late = ResponseTemplate::new(200).set_delay(Duration::from_secs(60));
    let web_identity = |token: &str| {
        vec![
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_owned()),
            ("AWS_ROLE_ARN", ROLE.to_owned()),
        ]
    };
    let assume = || {
        vec![
            ("AWS_CONFIG_FILE", profile.clone()),
            ("AWS_PROFILE", "shop".to_owned()),
        ]
    };
    // The answers of STS, of EC2's metadata service and of the container's, and the result.
    let cases = [
        (
            "another external id",
            assume(),
            sts(403, "AccessDenied"),
            AccessDenied,
            "external id",
        ),
        (
            "no trust",
            web_identity(&token),
            sts(403, "AccessDenied"),
            AccessDenied,
            "trust policy",
        ),
        (
            "a token of another issuer",
            web_identity(&token),
            sts(400, "InvalidIdentityToken"),
            AccessDenied,
            "InvalidIdentityToken",
        ),
        (
            "an expired token",
            web_identity(&token),
            sts(400, "ExpiredTokenException"),
            AccessDenied,
            "ExpiredTokenException",
        ),
        (
            "no file with a token",
            web_identity(nowhere),
            sts(403, "AccessDenied"),
            Configuration,
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        (
            "EC2 refuses",
            vec![("AWS_EC2_METADATA_DISABLED", "false".to_owned())],
            ResponseTemplate::new(403),
            AccessDenied,
            "metadata service",
        ),
        (
            "a container is refused",
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", "SERVER".to_owned())],
            ResponseTemplate::new(403),
            AccessDenied,
            "HTTP status 403",
        ),
        (
            "nothing is set",
            vec![],
            ResponseTemplate::new(200),
            Configuration,
            "AWS_ACCESS_KEY_ID",
        ),
        (
            "STS is down",
            web_identity(&token),
            sts(503, "ServiceUnavailable"),
            Unavailable,
            "STS",
        ),
        (
            "STS is throttled",
            assume(),
            sts(400, "Throttling"),
            Unavailable,
            "STS",
        ),
        (
            "the container's service is down",
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", "SERVER".to_owned())],
            ResponseTemplate::new(503),
            Unavailable,
            "metadata service",
        ),
        ("STS is silent", web_identity(&token), late, Unavailable, "STS"),
    ];
    for (what, set, answer, kind, part) in cases {
        let server = runtime.block_on(server(answer));
        let url = server.uri();
        let mut variables = vec![
            ("AWS_REGION", HOME),
            ("AWS_ACCESS_KEY_ID", UNSET),
            ("AWS_SECRET_ACCESS_KEY", UNSET),
            ("AWS_CONFIG_FILE", nowhere),
            ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
            ("AWS_ENDPOINT_URL_STS", &*url),
            ("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*url),
        ];
        variables.extend(set.iter().map(|(name, value)| match &**value {
            "SERVER" => (*name, &*url),
            value => (*name, value),
        }));
        let said = in_environment(NAME, &variables).unwrap();
        let retryable = kind == Unavailable;
        assert!(
            said.starts_with(&format!("kind {kind:?}, retryable {retryable}\n")),
            "{what}: {said}"
        );
        assert!(said.contains(part), "{what}: `{part}` is not in: {said}");
        assert!(!said.contains("can this machine reach KMS"), "{what}: {said}");
        let sends_token = set.iter().any(|(name, _)| *name == "AWS_WEB_IDENTITY_TOKEN_FILE");
        assert!(
            !sends_token || !said.contains(TOKEN),
            "{what}: a token is shown: {said}"
        );
    }
}
