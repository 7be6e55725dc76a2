//! Answers not written by AWS KMS: pages of proxies, other servers' JSON. None of them is a refusal.

use encx::{Crypto, Field};
use encx_testkit::{ManualClock, MemoryKeyStore};

use super::*;

const SSN: Field = Field::new("users", "ssn");
const OPERATIONS: [&str; 5] = [
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GenerateDataKey",
    "ReEncrypt",
];
const STATUSES: [u16; 11] = [200, 302, 400, 401, 403, 404, 407, 429, 500, 502, 503];

pub(super) fn page(status: u16) -> ResponseTemplate {
    let html = format!("<html><head><title>{status}</title></head><body>Please sign in.</body></html>");
    ResponseTemplate::new(status).set_body_raw(html, "text/html")
}

/// Answers of other servers with this status.
fn foreign(status: u16) -> Vec<ResponseTemplate> {
    let json = |body: &str| ResponseTemplate::new(status).set_body_raw(body.to_owned(), "application/json");
    vec![
        page(status),
        ResponseTemplate::new(status),
        json("{}"),
        json(r#"{"status":"ok"}"#),
        json(r#"{"message":"Forbidden"}"#),
        json(r#"{"code":404,"message":"no such route"}"#),
        // Codes of another server: AWS KMS sends a request id with its own.
        json(r#"{"code":"NOT_FOUND","message":"no such route"}"#),
        json(r#"{"__type":"ForbiddenException"}"#),
        // With a request id, but a code that AWS cannot have.
        json(r#"{"code":"not allowed: ask your administrator"}"#).insert_header("x-amzn-requestid", "1"),
    ]
}

async fn every_failure(kms: &AwsKms) -> [KmsError; 5] {
    let (pairs, key, kek) = (pairs(), DataKey::copy_from(&KEY).unwrap(), arn(ARN));
    [
        kms.unwrap_key(&wrap_by(ARN), &pairs).await.map(drop).unwrap_err(),
        kms.describe_kek(&kek).await.map(drop).unwrap_err(),
        kms.wrap_key(&kek, &key, &pairs).await.map(drop).unwrap_err(),
        kms.generate_data_key(&kek, &pairs).await.map(drop).unwrap_err(),
        kms.rewrap_key(&wrap_by(OTHER_ARN), &pairs, &kek)
            .await
            .map(drop)
            .unwrap_err(),
    ]
}

#[tokio::test]
async fn an_answer_without_a_code_of_aws_is_unavailability_whatever_its_status() {
    for status in STATUSES {
        for answer in foreign(status) {
            let scripted = Scripted::start().await;
            for operation in OPERATIONS {
                scripted.answer(operation, [answer.clone()]).await;
            }
            let kms = scripted.builder().max_attempts(1).build().await.unwrap();
            for error in every_failure(&kms).await {
                assert_eq!(
                    error.kind(),
                    KmsErrorKind::Unavailable,
                    "{status} {answer:?}: {error}"
                );
                assert!(error.is_retryable());
                let text = error.to_string();
                assert!(
                    text.contains("proxy") && text.contains(&scripted.server.uri()),
                    "{text}"
                );
            }
        }
    }
}

/// The field of a code or a request id may contain anything.
#[tokio::test]
async fn what_is_no_code_and_no_request_id_is_not_shown() {
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let encoded = STANDARD.encode(KEY);
    for secret in [&*hex, &encoded, encoded.trim_end_matches('=')] {
        let scripted = Scripted::start().await;
        let answer = ResponseTemplate::new(400)
            .insert_header("x-amzn-errortype", secret)
            .insert_header("x-amzn-requestid", secret);
        for operation in OPERATIONS {
            scripted.answer(operation, [answer.clone()]).await;
        }
        let kms = scripted.builder().max_attempts(1).build().await.unwrap();
        for error in every_failure(&kms).await {
            assert_eq!(error.kind(), KmsErrorKind::Unavailable, "{error}");
            assert_eq!((aws(&error).code(), aws(&error).request_id()), (None, None));
            assert!(!all_text(&error).contains(&secret[..20]), "a key is in the error");
        }
    }
}

#[tokio::test]
async fn a_code_of_aws_counts_also_without_a_request_id() {
    let scripted = Scripted::start().await;
    let refused = ResponseTemplate::new(400).set_body_raw(
        r#"{"__type":"AccessDeniedException"}"#,
        "application/x-amz-json-1.1",
    );
    for operation in OPERATIONS {
        scripted.answer(operation, [refused.clone()]).await;
    }
    let kms = scripted.builder().max_attempts(1).build().await.unwrap();
    for error in every_failure(&kms).await {
        assert_eq!(error.kind(), KmsErrorKind::AccessDenied, "{error}");
    }
}

/// A process that holds a key, and whose KMS gives this answer from then on: reads for eight seconds, at a `ttl` of
/// three.
async fn failed_reads(answer: ResponseTemplate) -> usize {
    let scripted = Scripted::start().await;
    scripted.answer("GenerateDataKey", [answer_with(&KEY, ARN)]).await;
    let describes = json(&format!(
        r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeyState":"Enabled"}}}}"#
    ));
    scripted.answer("DescribeKey", [describes]).await;
    scripted
        .answer("GetKeyRotationStatus", [refusal(400, "AccessDeniedException")])
        .await;
    let kms = scripted.builder().default_kek(ARN).max_attempts(1);
    let clock = ManualClock::new();
    let crypto = Crypto::builder(kms.build().await.unwrap(), MemoryKeyStore::new())
        .clock(clock.clone())
        .ttl(Duration::from_secs(3))
        .stale_if_unavailable(Duration::from_secs(3600))
        .build()
        .await
        .unwrap();
    let sealed = crypto.encrypt(&context("a"), "secret", SSN.row(1)).await.unwrap();
    scripted.server.reset().await;
    for operation in OPERATIONS {
        scripted.answer(operation, [answer.clone()]).await;
    }
    let mut failed = 0;
    for _ in 0..32 {
        clock.advance(Duration::from_millis(250));
        let read = crypto.decrypt(&context("a"), &sealed, SSN.row(1)).await;
        failed += usize::from(read.is_err());
    }
    assert!(
        !scripted.asked().await.is_empty(),
        "the key was never asked for again"
    );
    failed
}

#[tokio::test]
async fn with_stale_if_unavailable_no_read_fails_while_a_page_answers() {
    for status in STATUSES {
        assert_eq!(failed_reads(page(status)).await, 0, "{status}");
    }
    // A refusal by AWS KMS itself still drops the key.
    for code in ["AccessDeniedException", "DisabledException", "NotFoundException"] {
        assert!(failed_reads(refusal(400, code)).await > 16, "{code}");
    }
}

/// A proxy may also answer in place of the credentials service. Its variables are read in a child process.
#[test]
fn a_page_in_place_of_credentials_is_unavailability_and_shows_no_token() {
    const CHILD: &str = "ENCX_TEST_CHILD";
    const TOKEN: &str = "the-token-of-a-pod";
    if std::env::var_os(CHILD).is_some() {
        encx_testkit::block_on(async {
            let kms = AwsKms::builder().max_attempts(1).build().await.unwrap();
            let error = unwrap(&kms, ARN).await.unwrap_err();
            assert_eq!(error.kind(), KmsErrorKind::Unavailable, "{error:?}");
            assert!(!all_text(&error).contains(TOKEN), "a token is in the error");
        });
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let scripted = runtime.block_on(async {
        let scripted = Scripted::start().await;
        let any = wiremock::Mock::given(wiremock::matchers::any());
        any.respond_with(page(403)).mount(&scripted.server).await;
        scripted
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let name = "pages::a_page_in_place_of_credentials_is_unavailability_and_shows_no_token";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, "1")
        .env("AWS_REGION", HOME)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .env("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pod")
        .env("AWS_ENDPOINT_URL", scripted.server.uri())
        .env_remove("AWS_ACCESS_KEY_ID")
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    let asked = runtime.block_on(scripted.server.received_requests()).unwrap();
    let of_sts = asked
        .iter()
        .filter(|request| request.body.starts_with(b"Action=AssumeRole"));
    assert!(of_sts.count() > 0, "no credentials were asked for");
}
