//! Behavior that AWS KMS does not show on request: refusals of every kind, silence, and answers that must not be
//! trusted.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "how a process of a test tells what it saw")]

#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod pages;
mod regions;
mod stampede;
mod way;

use std::error::Error as _;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{
    DataKey, KekId, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind, KmsOperation,
    WrappedKey,
};
use encx::store::Timestamp;
use encx_aws::{AwsError, AwsKms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::ResponseTemplate;

use crate::common::scripted::{ARN, MRK, OTHER_ARN, Scripted, json, refusal};
use crate::common::{AWAY, HOME, arn, builder_at, context};

const KEY: [u8; 32] = *b"a data key, of thirty-two bytes.";

fn pairs() -> KmsContext {
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    KmsContext::new(&context("t-42"), KeyUsage::Data, id)
}

fn wrap_by(kek: &str) -> WrappedKey {
    WrappedKey::new(arn(kek), b"wrapped".to_vec())
}

fn answer_with(key: &[u8], arn: &str) -> ResponseTemplate {
    json(&format!(
        r#"{{"KeyId":"{arn}","Plaintext":"{}","CiphertextBlob":"d3JhcHBlZA==","KeyMaterialId":"cafe"}}"#,
        STANDARD.encode(key)
    ))
}

fn answer_re_encrypt(from: &str, to: &str) -> ResponseTemplate {
    json(&format!(
        r#"{{"CiphertextBlob":"d3JhcHBlZA==","SourceKeyId":"{from}","KeyId":"{to}","DestinationKeyMaterialId":"beef"}}"#
    ))
}

async fn unwrap(kms: &AwsKms, kek: &str) -> Result<DataKey, KmsError> {
    kms.unwrap_key(&wrap_by(kek), &pairs()).await
}

/// Formats an error with all its sources, in every form that a log may show.
fn all_text(error: &KmsError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(" {error} {error:?}"));
        next = error.source();
    }
    text
}

fn aws(error: &KmsError) -> &AwsError {
    error.source().unwrap().downcast_ref::<AwsError>().unwrap()
}

/// Every code that AWS documents for the operations of a service, the codes common to all of AWS, and some unknown
/// ones.
const REFUSALS: &[(u16, &str, KmsErrorKind)] = &[
    (400, "AccessDeniedException", KmsErrorKind::AccessDenied),
    (400, "ExpiredTokenException", KmsErrorKind::AccessDenied),
    (400, "NotAuthorized", KmsErrorKind::AccessDenied),
    (403, "InvalidClientTokenId", KmsErrorKind::AccessDenied),
    (403, "MissingAuthenticationToken", KmsErrorKind::AccessDenied),
    (400, "UnrecognizedClientException", KmsErrorKind::AccessDenied),
    (400, "IncompleteSignature", KmsErrorKind::Configuration),
    (400, "InvalidArnException", KmsErrorKind::Configuration),
    (400, "InvalidGrantTokenException", KmsErrorKind::Configuration),
    (400, "InvalidKeyUsageException", KmsErrorKind::Configuration),
    (400, "InvalidSignatureException", KmsErrorKind::Configuration),
    (403, "OptInRequired", KmsErrorKind::Configuration),
    (400, "RequestExpired", KmsErrorKind::Configuration),
    (400, "ValidationException", KmsErrorKind::Configuration),
    (400, "IncorrectKeyException", KmsErrorKind::Integrity),
    (400, "InvalidCiphertextException", KmsErrorKind::Integrity),
    (400, "DisabledException", KmsErrorKind::KeyState),
    (400, "KMSInvalidStateException", KmsErrorKind::KeyState),
    (400, "LimitExceededException", KmsErrorKind::LimitExceeded),
    (400, "NotFoundException", KmsErrorKind::NotFound),
    (400, "ThrottlingException", KmsErrorKind::Throttled),
    (400, "RequestLimitExceeded", KmsErrorKind::Throttled),
    (503, "DependencyTimeoutException", KmsErrorKind::Unavailable),
    (500, "InternalFailure", KmsErrorKind::Unavailable),
    (500, "KMSInternalException", KmsErrorKind::Unavailable),
    (500, "KeyUnavailableException", KmsErrorKind::Unavailable),
    (503, "ServiceUnavailable", KmsErrorKind::Unavailable),
    (400, "UnsupportedOperationException", KmsErrorKind::Unsupported),
    // Future codes: the HTTP status decides.
    (400, "SomethingNewException", KmsErrorKind::Configuration),
    (403, "SomethingNewException", KmsErrorKind::AccessDenied),
    (429, "SomethingNewException", KmsErrorKind::Throttled),
    (500, "SomethingNewException", KmsErrorKind::Unavailable),
];

#[tokio::test]
async fn every_refusal_has_its_kind_its_source_and_names_what_was_asked() {
    let (pairs, key) = (pairs(), DataKey::copy_from(&KEY).unwrap());
    for (status, code, kind) in REFUSALS {
        let scripted = Scripted::start().await;
        for operation in [
            "Decrypt",
            "DescribeKey",
            "Encrypt",
            "GenerateDataKey",
            "ReEncrypt",
        ] {
            scripted.answer(operation, [refusal(*status, code)]).await;
        }
        // The SDK's own retries have a separate test.
        let kms = scripted.builder().max_attempts(1).build().await.unwrap();
        let kek = arn(ARN);
        let errors = [
            kms.generate_data_key(&kek, &pairs).await.map(|_| ()).unwrap_err(),
            kms.wrap_key(&kek, &key, &pairs).await.map(|_| ()).unwrap_err(),
            kms.unwrap_key(&wrap_by(ARN), &pairs)
                .await
                .map(|_| ())
                .unwrap_err(),
            kms.rewrap_key(&wrap_by(OTHER_ARN), &pairs, &kek)
                .await
                .map(|_| ())
                .unwrap_err(),
            kms.describe_kek(&kek).await.map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), *kind, "{status} {code}: {error}");
            assert_eq!(error.kek(), &kek, "{error}");
            assert!(error.to_string().contains(ARN), "{error}");
            assert_eq!(aws(&error).code(), Some(*code));
            assert_eq!(aws(&error).http_status(), Some(*status));
            assert_eq!(
                aws(&error).request_id(),
                Some("11111111-2222-3333-4444-555555555555")
            );
            // The answer to a request that carries a key is not quoted.
            let is_shown = all_text(&error).contains("said by the test");
            assert_eq!(is_shown, error.operation() != KmsOperation::WrapKey, "{error:?}");
            assert!(aws(&error).source().is_none(), "an error of the SDK is kept");
            let retryable = matches!(kind, KmsErrorKind::Throttled | KmsErrorKind::Unavailable);
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
    }
}

#[tokio::test]
async fn an_error_says_what_to_do() {
    let scripted = Scripted::start().await;
    let (pairs, key) = (pairs(), DataKey::copy_from(&KEY).unwrap());
    for operation in [
        "Decrypt",
        "DescribeKey",
        "Encrypt",
        "GenerateDataKey",
        "ReEncrypt",
    ] {
        scripted
            .answer(operation, [refusal(400, "AccessDeniedException")])
            .await;
    }
    let kms = scripted.builder().build().await.unwrap();
    let kek = arn(ARN);
    let on = |action: &str| format!("{action} on `{ARN}`");
    for (error, action) in [
        (
            kms.generate_data_key(&kek, &pairs).await.map(|_| ()),
            on("kms:GenerateDataKey"),
        ),
        (
            kms.wrap_key(&kek, &key, &pairs).await.map(|_| ()),
            on("kms:Encrypt"),
        ),
        (
            kms.unwrap_key(&wrap_by(ARN), &pairs).await.map(|_| ()),
            on("kms:Decrypt"),
        ),
        (kms.describe_kek(&kek).await.map(|_| ()), on("kms:DescribeKey")),
        (
            kms.rewrap_key(&wrap_by(OTHER_ARN), &pairs, &kek)
                .await
                .map(|_| ()),
            format!("kms:ReEncryptFrom on `{OTHER_ARN}` and {}", on("kms:ReEncryptTo")),
        ),
    ] {
        let error = error.unwrap_err().to_string();
        for part in [
            &*action,
            "identity policy",
            "key policy",
            "encryption context",
            "EncryptionContextSubset",
        ] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_disabled_or_waits_for_deletion_is_brought_back_step_by_step() {
    for (code, steps) in [
        ("DisabledException", vec!["`aws kms enable-key`"]),
        (
            "KMSInvalidStateException",
            vec!["`aws kms cancel-key-deletion` and then `aws kms enable-key`"],
        ),
    ] {
        let scripted = Scripted::start().await;
        scripted.answer("Decrypt", [refusal(400, code)]).await;
        let kms = scripted.builder().build().await.unwrap();
        let error = unwrap(&kms, ARN).await.unwrap_err().to_string();
        assert!(steps.iter().all(|step| error.contains(step)), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_found_is_looked_for_with_prefix_and_region() {
    let scripted = Scripted::start().await;
    scripted
        .answer("GenerateDataKey", [refusal(400, "NotFoundException")])
        .await;
    let kms = scripted.builder().build().await.unwrap();
    let error = async |kek: &str| {
        let result = kms.generate_data_key(&arn(kek), &pairs()).await;
        result.map(|_| ()).unwrap_err().to_string()
    };
    assert!(error("app").await.contains("an alias begins with `alias/`"));
    let alias = error("alias/app").await;
    assert!(
        alias.contains("no such alias in region `eu-central-1`"),
        "{alias}"
    );
    let replicas = scripted.builder().regions([AWAY, HOME]).build().await.unwrap();
    let error = replicas.generate_data_key(&arn(MRK), &pairs()).await.map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`eu-central-1`") && error.contains("`eu-west-1`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_request_signed_for_another_region_names_both_regions() {
    let scripted = Scripted::start().await;
    scripted
        .answer("Decrypt", [refusal(400, "InvalidSignatureException")])
        .await;
    let kms = scripted.builder().regions([AWAY, HOME]).build().await.unwrap();
    let error = unwrap(&kms, MRK).await.unwrap_err();
    assert_eq!(error.kind(), KmsErrorKind::Configuration);
    let text = error.to_string();
    assert!(
        text.contains("`eu-west-1`") && text.contains("`eu-central-1`"),
        "{text}"
    );
    assert!(text.contains(&scripted.server.uri()), "{text}");
}

#[tokio::test]
async fn throttled_twice_it_succeeds_by_the_sdk_s_own_repetition() {
    for (status, code) in [
        (400, "ThrottlingException"),
        (500, "KMSInternalException"),
        (503, "DependencyTimeoutException"),
    ] {
        let scripted = Scripted::start().await;
        let answers = [
            refusal(status, code),
            refusal(status, code),
            answer_with(&KEY, ARN),
        ];
        scripted.answer("Decrypt", answers).await;
        let kms = scripted.builder().build().await.unwrap();
        assert_eq!(unwrap(&kms, ARN).await.unwrap().expose(), &KEY);
        assert_eq!(scripted.asked().await.len(), 3, "{code}");
    }
}

#[tokio::test]
async fn nothing_repeats_besides_the_sdk() {
    for (code, attempts) in [
        ("ThrottlingException", 2),
        ("AccessDeniedException", 1),
        ("DisabledException", 1),
    ] {
        let scripted = Scripted::start().await;
        scripted.answer("Decrypt", [refusal(400, code)]).await;
        let kms = scripted.builder().max_attempts(2).build().await.unwrap();
        unwrap(&kms, ARN).await.unwrap_err();
        assert_eq!(scripted.asked().await.len(), attempts, "{code}");
    }
}

#[tokio::test]
async fn silence_is_unavailability_after_the_time_out() {
    let scripted = Scripted::start().await;
    let late = answer_with(&KEY, ARN).set_delay(Duration::from_secs(60));
    scripted.answer("Decrypt", [late]).await;
    let quick = Duration::from_millis(400);
    for builder in [
        scripted.builder().attempt_timeout(quick).max_attempts(2),
        scripted.builder().operation_timeout(quick),
    ] {
        let kms = builder.build().await.unwrap();
        let error = unwrap(&kms, ARN).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable, "{error}");
        assert!(error.is_retryable());
        assert!(error.to_string().contains("region `eu-central-1`"), "{error}");
    }
    assert_eq!(scripted.asked().await.len(), 3);
}

#[tokio::test]
async fn a_connection_that_is_refused_or_cut_is_unavailability() {
    // Sends the beginning of an answer, or nothing, and disconnects.
    let sealed = STANDARD.encode(KEY);
    let begin = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: 4000\r\n\r\n{{\"KeyId\":\"{ARN}\",\"Plaintext\":\"{sealed}\","
    );
    for said in [begin, String::new()] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let _ = client.read(&mut buffer).await;
                let _ = client.write_all(said.as_bytes()).await;
                // Closing with unread bytes, or at once, resets the connection.
                drop(client);
            }
        });
        let kms = builder_at(&url).max_attempts(2).build().await.unwrap();
        let error = unwrap(&kms, ARN).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable, "{error}");
        assert!(
            !all_text(&error).contains(&STANDARD.encode(KEY)[..20]),
            "a key is in the error"
        );
        answering.abort();
    }
    let unreachable = builder_at("http://127.0.0.1:1")
        .max_attempts(1)
        .build()
        .await
        .unwrap();
    let error = unwrap(&unreachable, ARN).await.unwrap_err();
    assert_eq!(error.kind(), KmsErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_unavailability_and_shows_no_key() {
    let secret = STANDARD.encode(KEY);
    for body in [
        format!(r#"{{"Plaintext":"{secret}","KeyId":"arn:aws:k"#),
        format!(r#"{{"Plaintext":["{secret}"]}}"#),
        format!("<html>{secret}</html>"),
    ] {
        let scripted = Scripted::start().await;
        scripted.answer("Decrypt", [json(&body)]).await;
        let kms = scripted.builder().max_attempts(1).build().await.unwrap();
        let error = unwrap(&kms, ARN).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable, "{error}");
        assert!(!all_text(&error).contains(&secret[..20]), "a key is in the error");
    }
}

#[tokio::test]
async fn a_refusal_shows_the_words_of_aws_and_nothing_else_of_its_answer() {
    let secret = STANDARD.encode(KEY);
    let body = format!(
        r#"{{"__type":"AccessDeniedException","message":"no policy allows {secret} this","Plaintext":"{secret}"}}"#
    );
    let scripted = Scripted::start().await;
    let answer = refusal(400, "").set_body_raw(body, "application/x-amz-json-1.1");
    scripted.answer("Decrypt", [answer]).await;
    let kms = scripted.builder().max_attempts(1).build().await.unwrap();
    let error = unwrap(&kms, ARN).await.unwrap_err();
    let text = aws(&error).to_string();
    assert!(text.ends_with(": no policy allows … this"), "{text}");
    assert_eq!(aws(&error).message(), Some("no policy allows … this"));
}

#[tokio::test]
async fn an_answer_of_another_key_is_not_believed() {
    let elsewhere = ARN.replace("eu-central-1", "eu-west-1");
    let account = ARN.replace("1111", "2222");
    for other in [
        OTHER_ARN,
        &elsewhere,
        &account,
        "alias/app",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "",
    ] {
        let scripted = Scripted::start().await;
        scripted.answer("Decrypt", [answer_with(&KEY, other)]).await;
        scripted.answer("Encrypt", [answer_with(&KEY, other)]).await;
        scripted
            .answer("GenerateDataKey", [answer_with(&KEY, other)])
            .await;
        let kms = scripted.builder().build().await.unwrap();
        let kind = unwrap(&kms, ARN).await.unwrap_err().kind();
        assert_eq!(kind, KmsErrorKind::Integrity, "{other}");
        let error = kms.generate_data_key(&arn(ARN), &pairs()).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Configuration, "{other}");
        let key = DataKey::copy_from(&KEY).unwrap();
        let error = kms.wrap_key(&arn(ARN), &key, &pairs()).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Configuration, "{other}");
    }
}

#[tokio::test]
async fn a_rewrap_checks_where_from_and_where_to() {
    let rewrap = async |from: &str, to: &str| {
        let scripted = Scripted::start().await;
        scripted.answer("ReEncrypt", [answer_re_encrypt(from, to)]).await;
        let kms = scripted.builder().build().await.unwrap();
        let context = pairs();
        let moved = kms.rewrap_key(&wrap_by(ARN), &context, &arn(OTHER_ARN)).await;
        let [(_, asked)] = &scripted.asked().await[..] else {
            panic!("not one call");
        };
        // The same context twice, and both keys by name.
        let expected: serde_json::Map<_, _> = context
            .pairs()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        assert_eq!(asked["SourceEncryptionContext"].as_object(), Some(&expected));
        assert_eq!(asked["DestinationEncryptionContext"].as_object(), Some(&expected));
        assert_eq!(asked["SourceKeyId"], ARN);
        assert_eq!(asked["DestinationKeyId"], OTHER_ARN);
        moved
    };
    let moved = rewrap(ARN, OTHER_ARN).await.unwrap();
    assert_eq!(
        (moved.kek.as_str(), moved.kek_material.as_deref()),
        (OTHER_ARN, Some("beef"))
    );
    let error = rewrap(OTHER_ARN, OTHER_ARN).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.kek().as_str()),
        (KmsErrorKind::Integrity, ARN)
    );
    let error = rewrap(ARN, ARN).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.kek().as_str()),
        (KmsErrorKind::Configuration, OTHER_ARN)
    );
}

#[tokio::test]
async fn a_key_of_another_length_is_no_key() {
    for len in [0, 1, 16, 31, 33, 64] {
        let scripted = Scripted::start().await;
        scripted
            .answer("Decrypt", [answer_with(&vec![7; len], ARN)])
            .await;
        scripted
            .answer("GenerateDataKey", [answer_with(&vec![7; len], ARN)])
            .await;
        let kms = scripted.builder().build().await.unwrap();
        let error = unwrap(&kms, ARN).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Integrity, "{len}");
        let error = kms.generate_data_key(&arn(ARN), &pairs()).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Configuration, "{len}");
    }
}

#[tokio::test]
async fn every_decrypt_names_its_key_and_the_whole_context() {
    let scripted = Scripted::start().await;
    scripted.answer("Decrypt", [answer_with(&KEY, ARN)]).await;
    scripted.answer("GenerateDataKey", [answer_with(&KEY, ARN)]).await;
    let kms = scripted.builder().build().await.unwrap();
    let context = pairs();
    let made = kms.generate_data_key(&arn("alias/app"), &context).await.unwrap();
    assert_eq!(
        made.wrapped.kek.as_str(),
        ARN,
        "an alias is stored as the ARN that answered"
    );
    assert_eq!(made.wrapped.kek_material.as_deref(), Some("cafe"));
    kms.unwrap_key(&made.wrapped, &context).await.unwrap();
    let asked = scripted.asked().await;
    assert_eq!(asked[0].1["KeyId"], "alias/app");
    assert_eq!(asked[0].1["KeySpec"], "AES_256");
    assert_eq!(asked[1].1["KeyId"], ARN);
    for (_, asked) in asked {
        let sent = asked["EncryptionContext"].as_object().unwrap();
        assert_eq!(sent.len(), context.pairs().len());
        assert!(context.pairs().all(|(key, value)| sent[key] == value));
    }
}

#[tokio::test]
async fn a_wrap_that_names_its_kek_otherwise_makes_no_call() {
    let scripted = Scripted::start().await;
    let kms = scripted.builder().build().await.unwrap();
    for name in [
        "alias/app",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:s3:::x",
        "local/1",
    ] {
        assert_eq!(
            unwrap(&kms, name).await.unwrap_err().kind(),
            KmsErrorKind::Integrity
        );
        let error = kms
            .rewrap_key(&wrap_by(name), &pairs(), &arn(ARN))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Integrity);
    }
    assert!(scripted.asked().await.is_empty());
}

#[tokio::test]
async fn a_description_tells_the_state_and_asks_a_refused_question_once() {
    for (state, expected) in [
        ("Enabled", KekState::Enabled),
        ("Disabled", KekState::Disabled),
        ("PendingDeletion", KekState::PendingDeletion),
        ("PendingReplicaDeletion", KekState::PendingDeletion),
        ("PendingImport", KekState::Unavailable),
        ("Creating", KekState::Unavailable),
        ("Unavailable", KekState::Unavailable),
        ("SomethingNew", KekState::Unavailable),
    ] {
        let scripted = Scripted::start().await;
        let body = format!(
            r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeyState":"{state}","Enabled":true,"MultiRegion":false,"CurrentKeyMaterialId":"cafe","DeletionDate":1800000000.5}}}}"#
        );
        scripted.answer("DescribeKey", [json(&body)]).await;
        scripted
            .answer("GetKeyRotationStatus", [refusal(400, "AccessDeniedException")])
            .await;
        let kms = scripted.builder().build().await.unwrap();
        for _ in 0..2 {
            let described = kms.describe_kek(&arn(ARN)).await.unwrap();
            assert_eq!(
                (described.kek.as_str(), described.state),
                (ARN, expected),
                "{state}"
            );
            assert_eq!(described.multi_region, Some(false));
            assert_eq!(described.current_material.as_deref(), Some("cafe"));
            assert_eq!((described.rotation, described.rotation_days), (None, None));
            assert_eq!((described.last_rotation, described.next_rotation), (None, None));
            assert_eq!(described.deletion, Some(moment(1_800_000_000_500)));
        }
        assert_eq!(
            count(&scripted, "GetKeyRotationStatus").await,
            1,
            "a service that may not know is not asked again"
        );
        assert_eq!(count(&scripted, "ListKeyRotations").await, 0);
    }
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_micros(millis * 1000)
}

async fn count(scripted: &Scripted, operation: &str) -> usize {
    let asked = scripted.asked().await;
    asked.iter().filter(|(asked, _)| asked == operation).count()
}

#[tokio::test]
async fn a_description_tells_of_past_and_next_rotations() {
    let scripted = Scripted::start().await;
    let describe = |material: &str| {
        json(&format!(
            r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeyState":"Enabled","CurrentKeyMaterialId":"{material}"}}}}"#
        ))
    };
    let describes = ["cafe", "cafe", "beef"].map(describe);
    scripted.answer("DescribeKey", describes).await;
    let status = json(
        r#"{"KeyRotationEnabled":true,"RotationPeriodInDays":90,"NextRotationDate":1790000000.25,"OnDemandRotationStartDate":1.0}"#,
    );
    scripted.answer("GetKeyRotationStatus", [status]).await;
    let rotations = |last: &str| {
        json(&format!(
            r#"{{"Truncated":false,"Rotations":[{{"KeyId":"1","RotationDate":1700000000.0,"RotationType":"AUTOMATIC"}},{{"KeyId":"1","RotationDate":{last},"RotationType":"ON_DEMAND"}},{{"KeyId":"1","RotationDate":1690000000.0}}]}}"#
        ))
    };
    let lists = [rotations("1710000000.5"), rotations("1720000000.0")];
    scripted.answer("ListKeyRotations", lists).await;
    let kms = scripted.builder().build().await.unwrap();
    // The material stays the same, then changes.
    for (last, lists) in [
        (1_710_000_000_500, 1),
        (1_710_000_000_500, 1),
        (1_720_000_000_000, 2),
    ] {
        let described = kms.describe_kek(&arn(ARN)).await.unwrap();
        assert_eq!(
            (described.rotation, described.rotation_days),
            (Some(true), Some(90))
        );
        assert_eq!(described.next_rotation, Some(moment(1_790_000_000_250)));
        assert_eq!(described.last_rotation, Some(moment(last)));
        assert_eq!(described.deletion, None);
        assert_eq!(count(&scripted, "ListKeyRotations").await, lists);
    }
    assert_eq!(count(&scripted, "GetKeyRotationStatus").await, 3);
}

#[tokio::test]
async fn without_leave_to_list_rotations_the_rest_is_known() {
    let scripted = Scripted::start().await;
    let describes = json(&format!(
        r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeyState":"Enabled","CurrentKeyMaterialId":"cafe"}}}}"#
    ));
    scripted.answer("DescribeKey", [describes]).await;
    // A date that remains after rotation was disabled is not a next rotation.
    let status = json(r#"{"KeyRotationEnabled":false,"NextRotationDate":1790000000.0}"#);
    scripted.answer("GetKeyRotationStatus", [status]).await;
    scripted
        .answer("ListKeyRotations", [refusal(400, "AccessDeniedException")])
        .await;
    let kms = scripted.builder().build().await.unwrap();
    for _ in 0..2 {
        let described = kms.describe_kek(&arn(ARN)).await.unwrap();
        assert_eq!(described.rotation, Some(false));
        assert_eq!((described.last_rotation, described.next_rotation), (None, None));
    }
    assert_eq!(
        count(&scripted, "ListKeyRotations").await,
        1,
        "what was refused is not asked again"
    );
}

#[tokio::test]
async fn without_credentials_it_says_so() {
    #[derive(Debug)]
    struct NoCredentials;
    impl ProvideCredentials for NoCredentials {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("there are none")))
        }
    }
    let scripted = Scripted::start().await;
    let config = common::config().into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(NoCredentials));
    let kms = scripted
        .builder()
        .sdk_config(&config.build())
        .build()
        .await
        .unwrap();
    let error = unwrap(&kms, ARN).await.unwrap_err();
    assert_eq!(error.kind(), KmsErrorKind::Configuration, "{error:?}");
    assert!(error.to_string().contains("credential chain"), "{error}");
    assert!(scripted.asked().await.is_empty());
}
