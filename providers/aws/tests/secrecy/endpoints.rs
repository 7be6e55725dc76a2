//! AWS KMS: every operation, and every way in which an endpoint can make it fail.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_kms::config::http::HttpRequest;
use aws_sdk_kms::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{DataKey, KeyManagementService, KmsContext, WrappedKey};
use encx::{Crypto, Field};
use encx_aws::AwsKms;
use encx_aws::admin::{KmsAdmin, NewKek};
use encx_testkit::MemoryKeyStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;
use crate::common::scripted::{ARN, OTHER_ARN};
use crate::common::{AWAY, HOME, arn, builder_at, context};

const SSN: Field = Field::new("users", "ssn");

/// Tries every operation, all of which fail.
async fn try_all(search: &mut Search, kms: &AwsKms) {
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    let pairs = KmsContext::new(&context("a"), KeyUsage::Pepper, id);
    let key = DataKey::copy_from(&KEY).unwrap();
    let wrap = |kek: &str| WrappedKey::new(arn(kek), b"wrapped".to_vec());
    search.failed("generating", kms.generate_data_key(&arn(ARN), &pairs).await);
    search.failed("wrapping", kms.wrap_key(&arn(ARN), &key, &pairs).await);
    search.failed("unwrapping", kms.unwrap_key(&wrap(ARN), &pairs).await);
    search.failed(
        "rewrapping",
        kms.rewrap_key(&wrap(OTHER_ARN), &pairs, &arn(ARN)).await,
    );
    search.failed(
        "rewrapping between regions",
        kms.rewrap_key(&wrap(&ARN.replace(HOME, AWAY)), &pairs, &arn(ARN))
            .await,
    );
    search.failed("describing", kms.describe_kek(&arn(ARN)).await);
    let admin = KmsAdmin::new(kms);
    search.failed("creating a KEK", admin.create_kek(&NewKek::new()).await);
    search.failed("finding a KEK", admin.set_alias("alias/app", &arn(ARN)).await);

    // The calls of a service: it never gets a key.
    let built = Crypto::builder(kms.clone(), MemoryKeyStore::new())
        .kek(ARN)
        .build();
    let crypto = match built.await {
        Ok(crypto) => crypto,
        Err(error) => return search.error(&error),
    };
    let context = context("a");
    let peppers = crypto.key_manager().for_usage(KeyUsage::Pepper);
    search.failed("importing", peppers.import(&context, key).await);
    search.failed(
        "encrypting",
        crypto.encrypt(&context, PLAINTEXT, SSN.row(1)).await,
    );
    crypto.shutdown().await;
}

fn answer(status: u16, kind: &str, body: String) -> ResponseTemplate {
    ResponseTemplate::new(status)
        .insert_header("x-amzn-requestid", "11111111-2222-3333-4444-555555555555")
        .set_body_raw(body, kind)
}

const JSON: &str = "application/x-amz-json-1.1";

fn json(status: u16, body: &serde_json::Value) -> ResponseTemplate {
    answer(status, JSON, body.to_string())
}

type Answer = Box<dyn Fn(&Request) -> ResponseTemplate + Send + Sync>;

/// Answers that make an operation fail, and repeat its request or show the key.
fn answers() -> Vec<(String, Answer)> {
    let mut answers: Vec<(String, Answer)> = Vec::new();
    let echo = |request: &Request| String::from_utf8_lossy(&request.body).into_owned();
    let secret = STANDARD.encode(KEY);
    for code in [
        "AccessDeniedException",
        "DisabledException",
        "ExpiredTokenException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "InvalidKeyUsageException",
        "InvalidSignatureException",
        "KMSInternalException",
        "KMSInvalidStateException",
        "LimitExceededException",
        "NotFoundException",
        "SomethingNewException",
        "ThrottlingException",
        "ValidationException",
    ] {
        let refuse = move |request: &Request| {
            let message = format!("1 validation error detected: {} is not allowed", echo(request));
            json(400, &serde_json::json!({"__type": code, "message": message}))
        };
        answers.push((format!("{code} that repeats the request"), Box::new(refuse)));
    }
    let body =
        format!(r#"{{"__type":"AccessDeniedException","message":"not {secret}","Plaintext":"{secret}"}}"#);
    answers.push((
        "a refusal with the key".to_owned(),
        Box::new(move |_| answer(400, JSON, body.clone())),
    ));
    for status in [200, 400, 401, 403, 404, 407, 500, 502] {
        let page = move |request: &Request| {
            let html = format!("<html><title>{status}</title><pre>{}</pre></html>", echo(request));
            answer(status, "text/html", html)
        };
        answers.push((format!("a page of {status}"), Box::new(page)));
    }
    let in_pieces = move |request: &Request| {
        let pieces: Vec<_> = request.body.chunks(10).map(String::from_utf8_lossy).collect();
        json(
            400,
            &serde_json::json!({"__type": "ValidationException", "message": pieces.join(" ")}),
        )
    };
    answers.push(("the request in pieces".to_owned(), Box::new(in_pieces)));
    let as_code = move |request: &Request| {
        json(
            400,
            &serde_json::json!({"__type": echo(request), "code": echo(request)}),
        )
    };
    answers.push(("the request as a code".to_owned(), Box::new(as_code)));
    let plain = [
        (
            "JSON that is cut",
            format!(r#"{{"KeyId":"{ARN}","Plaintext":"{secret}"#),
        ),
        (
            "JSON of another shape",
            format!(r#"{{"KeyId":{{"x":1}},"Plaintext":["{secret}"]}}"#),
        ),
        ("a key of JSON", format!(r#"{{"{secret}":"{secret}" "#)),
        ("no JSON", secret.clone()),
        (
            "bad base64",
            format!(r#"{{"KeyId":"{ARN}","Plaintext":"{secret}!","CiphertextBlob":"!{secret}"}}"#),
        ),
        (
            "another key's name",
            format!(r#"{{"KeyId":"{OTHER_ARN}","Plaintext":"{secret}","CiphertextBlob":"AAAA"}}"#),
        ),
        (
            "no name",
            format!(r#"{{"Plaintext":"{secret}","CiphertextBlob":"AAAA"}}"#),
        ),
        (
            "no wrap",
            format!(r#"{{"KeyId":"{OTHER_ARN}","Plaintext":"{secret}"}}"#),
        ),
    ];
    for (what, body) in plain {
        let answer = answer(200, JSON, body);
        answers.push((what.to_owned(), Box::new(move |_| answer.clone())));
    }
    for len in [0, 16, 31] {
        let part = STANDARD.encode(&KEY[..len]);
        let body = format!(r#"{{"KeyId":"{ARN}","Plaintext":"{part}"}}"#);
        answers.push((
            format!("a key of {len} bytes"),
            Box::new(move |_| answer(200, JSON, body.clone())),
        ));
    }
    let long = STANDARD.encode([KEY, KEY].concat());
    let body = format!(r#"{{"KeyId":"{ARN}","Plaintext":"{long}"}}"#);
    answers.push((
        "a long key".to_owned(),
        Box::new(move |_| answer(200, JSON, body.clone())),
    ));
    answers
}

#[tokio::test]
async fn whatever_is_answered() {
    for (what, answer) in answers() {
        let mut search = Search::begin();
        let server = MockServer::builder().start().await;
        Mock::given(wiremock::matchers::any())
            .respond_with(answer)
            .mount(&server)
            .await;
        let kms = builder_at(&server.uri()).max_attempts(1).build().await.unwrap();
        try_all(&mut search, &kms).await;
        search.end(&what);
    }
    assert!(
        WAS_SDK_SEEN.load(Ordering::Relaxed),
        "no event of the SDK was searched"
    );
}

/// Accepts connections, reads a request, sends something and disconnects.
async fn speaker(said: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let said = said.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 16 * 1024];
                let _ = client.read(&mut buffer).await;
                let _ = client.write_all(&said).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn whatever_is_said_instead_of_an_answer() {
    let secret = STANDARD.encode(KEY);
    let cut = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-length: 4000\r\n\r\n{{\"Plaintext\":\"{secret}\""
    );
    let header = format!("HTTP/1.1 200 OK\r\n{secret}: {secret}\r\n{secret}\r\n\r\n");
    let (nothing, garbage) = (
        speaker(Vec::new()).await,
        speaker(format!("{secret}\r\n\r\n").into_bytes()).await,
    );
    for (what, url) in [
        ("refused", "http://127.0.0.1:1".to_owned()),
        ("reset", format!("http://{nothing}")),
        ("cut", format!("http://{}", speaker(cut.into_bytes()).await)),
        ("no HTTP", format!("http://{garbage}")),
        (
            "no header",
            format!("http://{}", speaker(header.into_bytes()).await),
        ),
        ("TLS that is reset", format!("https://{nothing}")),
        ("no TLS", format!("https://{garbage}")),
    ] {
        let mut search = Search::begin();
        let kms = builder_at(&url).max_attempts(1).build().await.unwrap();
        try_all(&mut search, &kms).await;
        search.end(what);
    }
}

#[tokio::test]
async fn silence() {
    let mut search = Search::begin();
    let server = MockServer::builder().start().await;
    let late = ResponseTemplate::new(200).set_delay(Duration::from_secs(600));
    Mock::given(wiremock::matchers::any())
        .respond_with(late)
        .mount(&server)
        .await;
    let kms = builder_at(&server.uri()).operation_timeout(Duration::from_millis(200));
    try_all(&mut search, &kms.build().await.unwrap()).await;
    search.end("silence");
}

/// A caller's own HTTP client, whose errors show the request.
#[derive(Clone, Copy, Debug)]
struct Indiscreet(fn(String) -> ConnectorError);

impl HttpConnector for Indiscreet {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = request.body().bytes().unwrap_or_default();
        let pieces: Vec<_> = body.chunks(10).map(String::from_utf8_lossy).collect();
        let Self(error) = self;
        HttpConnectorFuture::ready(Err(error(format!("{} {request:?}", pieces.join(" ")))))
    }
}

#[tokio::test]
async fn whatever_an_http_client_says() {
    let errors: [fn(String) -> ConnectorError; 5] = [
        |text| ConnectorError::io(text.into()),
        |text| ConnectorError::io(std::io::Error::other(text).into()),
        |text| ConnectorError::timeout(text.into()),
        |text| ConnectorError::user(text.into()),
        |text| ConnectorError::other(text.into(), None),
    ];
    for error in errors {
        let mut search = Search::begin();
        let connector = SharedHttpConnector::new(Indiscreet(error));
        let client = http_client_fn(move |_, _| connector.clone());
        let config = common::config().into_builder().http_client(client).build();
        let kms = AwsKms::builder().sdk_config(&config).max_attempts(1);
        try_all(&mut search, &kms.build().await.unwrap()).await;
        search.end("an HTTP client");
    }
}

/// An invalid endpoint is refused before any request is built for it.
#[tokio::test]
async fn an_endpoint_that_is_none() {
    for url in [
        "localhost:4566",
        "localhost",
        "http://",
        "http://local host",
        "ftp://localhost",
    ] {
        let mut search = Search::begin();
        search.failed(url, builder_at(url).build().await);
        let builder = AwsKms::builder().sdk_config(&common::config()).endpoint_url(url);
        search.failed(url, builder.build().await);
        search.end(url);
    }
}
