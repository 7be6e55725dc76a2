//! An endpoint with scripted answers, for behavior that no KMS server shows on request.

use std::sync::atomic::{AtomicUsize, Ordering};

use encx_aws::AwsKmsBuilder;
use wiremock::matchers::{header, method};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

pub(crate) const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub(crate) const OTHER_ARN: &str =
    "arn:aws:kms:eu-central-1:111122223333:key/ffffffff-12ab-34cd-56ef-1234567890ab";
pub(crate) const MRK: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

/// An AWS KMS with scripted answers.
pub(crate) struct Scripted {
    pub(crate) server: MockServer,
}

/// The body of an answer: JSON, or text that looks like it.
pub(crate) fn json(body: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body.to_owned(), "application/x-amz-json-1.1")
}

/// A refusal by AWS KMS.
pub(crate) fn refusal(status: u16, code: &str) -> ResponseTemplate {
    let body = format!(r#"{{"__type":"{code}","message":"said by the test"}}"#);
    ResponseTemplate::new(status)
        .insert_header("x-amzn-requestid", "11111111-2222-3333-4444-555555555555")
        .set_body_raw(body, "application/x-amz-json-1.1")
}

/// Answers in sequence, repeating the last.
struct Sequence {
    answers: Vec<ResponseTemplate>,
    next: AtomicUsize,
}

impl Respond for Sequence {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let at = self.next.fetch_add(1, Ordering::SeqCst);
        self.answers[at.min(self.answers.len() - 1)].clone()
    }
}

impl Scripted {
    pub(crate) async fn start() -> Self {
        Self {
            // A dedicated server: pooled ones may still be answering for the previous test.
            server: MockServer::builder().start().await,
        }
    }

    /// Sets the answers to an operation.
    pub(crate) async fn answer(&self, operation: &str, answers: impl Into<Vec<ResponseTemplate>>) {
        let answers = Sequence {
            answers: answers.into(),
            next: AtomicUsize::new(0),
        };
        Mock::given(method("POST"))
            .and(header(
                "x-amz-target",
                format!("TrentService.{operation}").as_str(),
            ))
            .respond_with(answers)
            .mount(&self.server)
            .await;
    }

    /// Returns the bodies of the requests, in order.
    pub(crate) async fn asked(&self) -> Vec<(String, serde_json::Value)> {
        let requests = self.server.received_requests().await.unwrap();
        let asked = requests.iter().map(|request| {
            let target = request.headers["x-amz-target"].to_str().unwrap();
            let operation = target.trim_start_matches("TrentService.").to_owned();
            (operation, serde_json::from_slice(&request.body).unwrap())
        });
        asked.collect()
    }

    /// Builds an `AwsKms` for this endpoint, with short timeouts.
    pub(crate) fn builder(&self) -> AwsKmsBuilder {
        super::builder_at(&self.server.uri())
    }
}
