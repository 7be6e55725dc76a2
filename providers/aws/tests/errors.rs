//! Public errors print themselves as text where a program shows their `Debug`.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use encx::kms::{KekId, KmsErrorKind};
use encx_aws::admin::{KmsAdmin, NewKek};
use encx_aws::policy::PolicyError;
use encx_aws::{AwsError, AwsKmsError};
use encx_test_support::error_types;

use crate::common::arn;
use crate::common::scripted::{ARN, Scripted, refusal};

#[tokio::test]
async fn every_error_reads_as_text_with_its_causes() {
    let scripted = Scripted::start().await;
    let answers = [
        ("RotateKeyOnDemand", "AccessDeniedException"),
        ("CreateKey", "LimitExceededException"),
    ];
    for (operation, code) in answers {
        scripted.answer(operation, [refusal(400, code)]).await;
    }
    let kms = scripted.builder().max_attempts(1).build().await.unwrap();
    let admin = KmsAdmin::new(&kms);
    // Its text omits AWS's message; the text of the other contains it.
    let denied = admin.rotate_now(&arn(ARN)).await.unwrap_err();
    let limited = admin.create_kek(&NewKek::new()).await.unwrap_err();
    assert_eq!(denied.kind(), KmsErrorKind::AccessDenied);
    assert!(format!("{denied:?}").contains("\ncaused by: AWS KMS refused: AccessDeniedException"));
    assert!(!format!("{limited:?}").contains("caused by"));
    error_types::check(
        &[concat!(env!("CARGO_MANIFEST_DIR"), "/src")],
        &[
            ("AdminError", Box::new(denied)),
            ("AdminError", Box::new(limited)),
            ("AwsKmsError", Box::new(AwsKmsError::MissingRegion)),
            (
                "AwsKmsError",
                Box::new(AwsKmsError::from(KekId::new("").unwrap_err())),
            ),
            ("PolicyError", Box::new(PolicyError::NoKeks)),
        ],
        // Only this crate can create one.
        &["AwsError"],
    );
}

#[tokio::test]
async fn what_aws_said_reads_as_text() {
    let scripted = Scripted::start().await;
    scripted
        .answer("CreateKey", [refusal(400, "LimitExceededException")])
        .await;
    let kms = scripted.builder().max_attempts(1).build().await.unwrap();
    let error = KmsAdmin::new(&kms).create_kek(&NewKek::new()).await.unwrap_err();
    let said = std::error::Error::source(&error).unwrap();
    let said: &AwsError = said.downcast_ref().unwrap();
    assert_eq!(format!("{said:?}"), said.to_string());
}
