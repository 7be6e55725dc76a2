//! The `Debug` of public errors is their text: for programs that return them from `main`, unwrap or assert.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::error::Error as StdError;
use std::io;

use encx::jobs::JobError;
use encx::keys::{DataKeyId, DataKeyIdError, NewIdError};
use encx::kms::{DataKey, KekId, KmsError, KmsErrorKind, KmsOperation, NameError};
use encx::password::{PasswordError, PasswordHash};
use encx::record::{CodecError, FieldCodec, RecordError};
use encx::search::{BlindIndex, IndexError};
use encx::store::StoreError;
use encx::suite::{OpenError, SealError};
use encx::{AadError, Ciphertext, ContextError, EncryptionContext, Error};
use encx_test_support::{SSN, error_types};

/// A sample with the name of its type.
fn sample<E: StdError + 'static>(error: E) -> (&'static str, Box<dyn StdError>) {
    (std::any::type_name::<E>(), Box::new(error))
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused")
}

fn kms_error() -> KmsError {
    let kek = KekId::new("alias/app").unwrap();
    KmsError::new(KmsErrorKind::Unavailable, "local", KmsOperation::UnwrapKey, &kek).with_source(refused())
}

#[test]
fn every_error_reads_as_text_with_its_causes() {
    let context: ContextError = EncryptionContext::from_pairs([("", "x")]).unwrap_err();
    let ContextError::Key { fault, .. } = context.clone() else {
        panic!("{context}");
    };
    let exhausted = NewIdError::Exhausted {
        after: DataKeyId::generate(1, None).unwrap(),
    };
    let aad: AadError = SSN.row("").framed().unwrap_err();
    let codec: CodecError = i64::decode(b"x").unwrap_err();
    let index: IndexError = BlindIndex::parse([]).unwrap_err();
    let name: NameError = KekId::new("").unwrap_err();
    let id: DataKeyIdError = "x".parse::<DataKeyId>().unwrap_err();
    let password: PasswordError = PasswordHash::parse("x").unwrap_err();
    error_types::check(
        &[
            concat!(env!("CARGO_MANIFEST_DIR"), "/core/src"),
            concat!(env!("CARGO_MANIFEST_DIR"), "/suite/src"),
            concat!(env!("CARGO_MANIFEST_DIR"), "/src"),
        ],
        &[
            sample(aad),
            sample(Ciphertext::parse([7]).unwrap_err()),
            sample(codec),
            sample(context),
            sample(fault),
            sample(id),
            sample(DataKey::copy_from(&[0; 3]).unwrap_err()),
            sample(Error::from(kms_error())),
            sample(exhausted),
            sample(index),
            sample(JobError::from(Error::from(StoreError::unavailable(refused())))),
            sample(kms_error()),
            sample(name),
            sample(OpenError::Tag),
            sample(password),
            sample(record_error()),
            sample(SealError::TooLong { found: 1 << 30 }),
            sample(StoreError::unavailable(refused())),
            sample(encx::token::TokenError::Prefix),
        ],
        // Only encx can create one; see its unit test.
        &["RandomError"],
    );
}

fn record_error() -> RecordError {
    let rows = [Err(EncryptionContext::from_pairs([("", "x")]).unwrap_err())];
    let context = EncryptionContext::from_pairs([("tenantId", "t-42")]);
    encx::__private::same_context(context, rows).unwrap_err()
}

#[test]
fn a_cause_stands_once_and_below() {
    let shown = format!("{:?}", Error::from(kms_error()));
    assert_eq!(
        shown,
        "local could not unwrap a data key with KEK `alias/app`: the KMS is unavailable\ncaused by: connection refused"
    );
    // The text already contains the cause.
    let store = format!("{:?}", Error::from(StoreError::unavailable(refused())));
    assert_eq!(store, "the key store is unavailable: connection refused");
}

/// What `main() -> Result<(), Box<dyn Error>>` prints after `Error: `, and what an assertion shows.
#[test]
fn programs_and_assertions_show_the_text() {
    let returned: Box<dyn StdError> = Error::NoRuntime.into();
    assert_eq!(format!("{returned:?}"), Error::NoRuntime.to_string());
    let failed: Result<(), AadError> = Err(AadError::EmptyPart);
    assert_eq!(format!("{failed:?}"), format!("Err({})", AadError::EmptyPart));
}
