//! What code written by `#[derive(Encrypt)]` calls.

use encx_core::column::EncryptedColumn;
use encx_core::context::EncryptionContext;

pub use super::context::{is_in_context, same_context};
pub use super::describe::Description;
use super::error::{FieldFailure, RecordError};
pub use super::open::{Opened, Opening};
#[cfg(feature = "password")]
pub use super::password::PasswordField;
pub use super::row::Row;
pub use super::seal::{Sealed, Sealing};
pub use super::search::Sought;
pub use super::token::TokenField;
use super::{EncryptedRecord, Record, decrypt_all, decrypt_all_in, encrypt_all};
use crate::crypto::Crypto;

/// Encrypts one record.
#[doc(hidden)]
pub async fn encrypt<P: Record>(crypto: &Crypto, record: &P) -> Result<P::Encrypted, RecordError> {
    only(encrypt_all(crypto, [record]).await?)
}

/// Decrypts one row.
#[doc(hidden)]
pub async fn decrypt<P, R: EncryptedRecord<P>>(crypto: &Crypto, row: R) -> Result<P, RecordError> {
    only(decrypt_all(crypto, [row]).await?)
}

/// Decrypts one row of a context.
#[doc(hidden)]
pub async fn decrypt_in<P, R: EncryptedRecord<P>>(
    crypto: &Crypto,
    context: &EncryptionContext,
    row: R,
) -> Result<P, RecordError> {
    only(decrypt_all_in(crypto, context, [row]).await?)
}

/// Describes the columns of a record.
#[doc(hidden)]
#[must_use]
pub fn columns<P: Record>() -> Vec<EncryptedColumn> {
    described::<P>().into_columns()
}

/// Writes down what a record's ciphertexts depend on.
#[doc(hidden)]
#[must_use]
pub fn manifest<P: Record>() -> String {
    described::<P>().manifest()
}

fn described<P: Record>() -> Description {
    let mut description = Description::default();
    P::describe(&mut description);
    description
}

fn only<T>(mut all: Vec<T>) -> Result<T, RecordError> {
    all.pop().ok_or_else(|| FieldFailure::misaligned().into())
}
