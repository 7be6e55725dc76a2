//! The password of a record: a new one to hash, or a stored hash.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::password::PasswordHash;

/// A record's password, for fields with `#[encx(password)]`.
///
/// It is either new, as typed, or stored. Encrypting the record hashes a new one and keeps a stored hash unchanged. A
/// decrypted row contains a stored password: the typed text cannot be recovered. Verify with the row's `verify_password`,
/// which needs no decryption.
///
/// A new one is zeroised on drop, and so is each clone of it. Two are equal if both are new with the same text or both
/// are stored with the same hash, compared in constant time. A new password never equals a stored one, so this does not
/// verify. There is no `Serialize`, and `Debug` shows neither form. With feature `serde` it can be deserialised, as a
/// new one, for forms.
///
/// ```
/// use encx::record::Password;
///
/// let password = Password::new("correct horse");
/// assert!(password.hash().is_none());
/// assert_eq!(format!("{password:?}"), "Password([REDACTED])");
/// ```
#[derive(Clone)]
pub struct Password(Form);

#[derive(Clone)]
pub(super) enum Form {
    New(Zeroizing<String>),
    Stored(PasswordHash),
}

impl Password {
    /// Makes a new password from typed text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Form::New(Zeroizing::new(text.into())))
    }

    /// Makes a stored password from the hash of a row.
    #[must_use]
    pub fn stored(hash: PasswordHash) -> Self {
        Self(Form::Stored(hash))
    }

    /// Returns the hash of a stored password.
    #[must_use]
    pub fn hash(&self) -> Option<&PasswordHash> {
        match &self.0 {
            Form::New(_) => None,
            Form::Stored(hash) => Some(hash),
        }
    }

    pub(super) fn form(&self) -> &Form {
        &self.0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::New(one), Form::New(other)) => one.as_bytes().ct_eq(other.as_bytes()).into(),
            (Form::Stored(one), Form::Stored(other)) => one == other,
            (Form::New(_), Form::Stored(_)) | (Form::Stored(_), Form::New(_)) => false,
        }
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password([REDACTED])")
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Password {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// The type of a field with `#[encx(password)]`: [`Password`].
#[diagnostic::on_unimplemented(
    message = "a password is kept in a field of type `encx::record::Password`, and not of `{Self}`",
    label = "write `encx::record::Password` here",
    note = "or `Option<encx::record::Password>`, where some rows have none"
)]
pub trait PasswordField: sealed::Sealed {
    #[doc(hidden)]
    fn as_password(&self) -> &Password;
    #[doc(hidden)]
    fn stored(hash: PasswordHash) -> Self;
}

impl PasswordField for Password {
    fn as_password(&self) -> &Password {
        self
    }

    fn stored(hash: PasswordHash) -> Self {
        Self::stored(hash)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Password {}
}
