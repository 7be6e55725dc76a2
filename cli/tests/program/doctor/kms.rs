//! KEKs of AWS KMS: disabled, pending deletion, not rotating, unreachable; its clock; and a KMS that denies or ignores.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

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

/// How the KMS behind a [`Between`] misbehaves.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It denies an operation, as a policy without that permission does.
    Denies(&'static str),
    /// It binds no data key to its encryption context.
    IgnoresContexts,
    None,
}

/// An endpoint in front of the tests' KMS server that changes what passes.
struct Between {
    url: String,
    fault: Arc<Mutex<Fault>>,
}

impl Between {
    /// Starts it; its threads end with the process.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fault = Arc::new(Mutex::new(Fault::None));
        let of_thread = Arc::clone(&fault);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, fault) = (client.unwrap(), *of_thread.lock().unwrap());
                // A client that goes away early is none of the test's concern.
                std::thread::spawn(move || drop(pass_on(client, fault)));
            }
        });
        Self { url, fault }
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

/// Passes one request on, and its answer back.
fn pass_on(mut client: TcpStream, fault: Fault) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut len, mut operation) = (String::new(), 0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => len = value.trim().parse().unwrap(),
            "connection" => {}
            name => {
                if name == "x-amz-target" {
                    value
                        .trim()
                        .trim_start_matches("TrentService.")
                        .clone_into(&mut operation);
                }
                if line.trim().is_empty() {
                    break;
                }
                head.push_str(&line);
            }
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    match fault {
        Fault::Denies(denied) if denied == operation => {
            let body = json!({
                "__type": "AccessDeniedException",
                "message": format!("not authorized to perform: kms:{denied}"),
            })
            .to_string();
            return write!(
                client,
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        Fault::IgnoresContexts => {
            let mut request: Value = serde_json::from_slice(&body)?;
            for context in [
                "EncryptionContext",
                "SourceEncryptionContext",
                "DestinationEncryptionContext",
            ] {
                request.as_object_mut().unwrap().remove(context);
            }
            body = request.to_string().into_bytes();
        }
        Fault::Denies(_) | Fault::None => {}
    }
    let url = std::env::var("ENCX_TEST_KMS_URL").unwrap();
    let mut server = TcpStream::connect(url.strip_prefix("http://").unwrap().trim_end_matches('/'))?;
    write!(
        server,
        "{head}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)
}

#[test]
fn credentials_that_may_not_describe_or_unwrap() {
    on_both(|mut ward| {
        let (between, arn) = (Between::start(), make_kek());
        use_kek(&mut ward, &arn);
        ward.set("AWS_ENDPOINT_URL_KMS", between.url.clone());
        let id = ward.place.create("tenantId=t-1");
        ward.finds(&[]).checked_all();

        between.set(Fault::Denies("DescribeKey"));
        let report = ward.finds(&[("kek-access-denied", "error")]);
        report.says(&arn).says("allow these credentials to describe it");

        between.set(Fault::Denies("Decrypt"));
        let report = ward.finds(&[("unwrap-denied", "warning")]);
        report
            .says(&id)
            .says("the KMS denies these credentials to unwrap it");
        // It found no context that it could test under.
        let not_checked = report.not_checked();
        assert!(
            matches!(not_checked.as_slice(), [one] if one.contains("no active data key")),
            "{not_checked:?}"
        );
        between.set(Fault::None);
        ward.finds(&[]).checked_all();
    });
}

#[test]
fn a_kms_that_opens_a_data_key_under_any_context() {
    on_both(|mut ward| {
        let between = Between::start();
        use_kek(&mut ward, &make_kek());
        ward.set("AWS_ENDPOINT_URL_KMS", between.url.clone());
        between.set(Fault::IgnoresContexts);
        ward.place.create("tenantId=t-1");
        ward.finds(&[("wrong-context-accepted", "error")])
            .says("do not encrypt with this KMS")
            .checked_all();
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
