//! The default fields and context of tests.

use std::time::Duration;

use encx::keys::DataKeyId;
use encx::{Ciphertext, Crypto, EncryptionContext, Error, Field, Plaintext};

use crate::waiting::{at_once, within};

/// The field that most tests encrypt.
pub const SSN: Field = Field::new("users", "ssn");

/// Another field of the same table.
pub const NAME: Field = Field::new("users", "name");

/// A second.
pub const SECOND: Duration = Duration::from_secs(1);

/// A minute.
pub const MINUTE: Duration = Duration::from_secs(60);

/// An hour.
pub const HOUR: Duration = Duration::from_secs(3600);

/// Builds the context of a tenant: `tenantId`, and the `purpose` `pii`.
pub fn context(tenant: impl std::fmt::Display) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii")
        .build()
        .unwrap()
}

/// Encrypts a value under a context.
pub async fn seal(crypto: &Crypto, context: &EncryptionContext) -> Ciphertext {
    let sealed = within(crypto.encrypt(context, "123-45-6789", SSN.row(1))).await;
    sealed.unwrap()
}

/// Decrypts what [`seal`] encrypted.
///
/// # Errors
///
/// Those of [`Crypto::decrypt`].
pub async fn open(
    crypto: &Crypto,
    context: &EncryptionContext,
    sealed: &Ciphertext,
) -> Result<Plaintext, Error> {
    within(crypto.decrypt(context, sealed, SSN.row(1))).await
}

/// Decrypts what [`seal`] encrypted, and fails if that would wait.
pub fn open_at_once(crypto: &Crypto, context: &EncryptionContext, sealed: &Ciphertext) {
    at_once(crypto.decrypt(context, sealed, SSN.row(1)))
        .expect("a key in memory")
        .unwrap();
}

/// Encrypts, and fails if that would wait.
pub fn seal_at_once(crypto: &Crypto, context: &EncryptionContext) {
    at_once(crypto.encrypt(context, "", SSN.row(1)))
        .expect("a key in memory")
        .unwrap();
}

/// Returns a ciphertext that names a key that does not exist.
pub fn with_unknown_key(sealed: &Ciphertext) -> Ciphertext {
    let mut bytes = sealed.as_bytes().to_vec();
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    bytes[2..18].copy_from_slice(&id.to_bytes());
    Ciphertext::parse(bytes).unwrap()
}
