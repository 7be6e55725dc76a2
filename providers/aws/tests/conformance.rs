//! `AwsKms` keeps the contract of a KMS.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;
mod fixture;

encx_testkit::kms_conformance!(fixture::AwsFixture::start().await);
