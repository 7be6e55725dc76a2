//! KEKs of AWS KMS: disabled, pending deletion, not rotating, unreachable; and its clock.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{Ward, on_both};

/// Sends a request to the tests' KMS server, which checks no signature.
fn ask(operation: &str, body: &Value) -> Value {
    let url = std::env::var("ENCX_TEST_KMS_URL")
        .expect("ENCX_TEST_KMS_URL is not set: run the tests with ./scripts/test, which starts a server");
    let host = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let body = body.to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: TrentService.{operation}\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=AKIDEXAMPLE/20260101/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=00\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
    serde_json::from_str(if body.is_empty() { "null" } else { body }).unwrap()
}

/// Creates a KEK that rotates, and returns its ARN.
fn make_kek() -> String {
    let made = ask("CreateKey", &json!({}));
    let arn = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    ask("EnableKeyRotation", &json!({ "KeyId": arn }));
    arn
}

fn use_kek(ward: &mut Ward, arn: &str) {
    for (variable, value) in [
        ("ENCX_KMS", format!("aws-kms:{arn}")),
        (
            "AWS_ENDPOINT_URL_KMS",
            std::env::var("ENCX_TEST_KMS_URL").unwrap(),
        ),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret".to_owned()),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ] {
        ward.set(variable, value);
    }
    ward.place.env.remove("ENCX_KEK_KEY_FILE");
}

#[test]
fn a_kek_that_is_not_as_it_should_be() {
    on_both(|mut ward| {
        let arn = make_kek();
        let id = json!({ "KeyId": arn });
        use_kek(&mut ward, &arn);
        ward.place.create("tenantId=t-1");
        ward.finds(&[]).checked_all();

        ask("DisableKeyRotation", &id);
        ward.finds(&[("kek-rotation-off", "warning")])
            .says(&arn)
            .checked_all();
        ask("EnableKeyRotation", &id);

        ask("DisableKey", &id);
        let report = ward.finds(&[("kek-disabled", "error")]);
        report.says("1 version that it wraps cannot be read");
        assert_eq!(report.not_checked().len(), 2, "{:?}", report.not_checked());
        ask("EnableKey", &id);

        ask("ScheduleKeyDeletion", &id);
        ward.finds(&[("kek-pending-deletion", "error")]);
        ask("CancelKeyDeletion", &id);
        ask("EnableKey", &id);
        ward.finds(&[]).checked_all();

        ward.set(
            "ENCX_ALSO_UNWRAP",
            arn.replace(
                arn.rsplit('/').next().unwrap(),
                "1234abcd-12ab-34cd-56ef-1234567890ab",
            ),
        );
        ward.finds(&[("kek-not-found", "error")]).checked_all();
        ward.place.env.remove("ENCX_ALSO_UNWRAP");

        ward.set("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1");
        ward.finds(&[("kms-unreachable", "error")]).says("127.0.0.1:1");
    });
}

#[test]
fn a_clock_that_is_ten_minutes_off_that_of_the_kms() {
    on_both(|mut ward| {
        use_kek(&mut ward, &make_kek());
        ward.place.create("tenantId=t-1");
        let kms = ("clock-skew-kms", "error");
        let database = ("clock-skew-database", "error");
        let expected = match ward.is_postgres() {
            true => &[kms, database][..],
            false => &[kms],
        };
        let report = ward.finds_at("+10m", expected);
        report.says("10m").checked_all();
        ward.finds_at("+5s", &[]).checked_all();
    });
}
