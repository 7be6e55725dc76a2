//! Reading while only some rows are encrypted.

use encx::record::FieldCodec;
use encx::{AsAad, Ciphertext, Crypto, EncryptionContext, Error};

use crate::adoption::Adoption;
use crate::error::RowsError;

/// The fallible part is here because [`RowsError`] uses the type.
impl Adoption {
    /// Sets the last day at run time, such as from a configuration file that only operators can write.
    ///
    /// ```
    /// # use encx_tables::{Adoption, RowsError};
    /// # fn example(from_settings: &str) -> Result<Adoption, RowsError> {
    /// let adoption = Adoption::try_until(from_settings)?;
    /// # Ok(adoption)
    /// # }
    /// # assert!(example("2099-03-31").is_ok());
    /// # assert!(example("soon").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] if there is no such day.
    pub fn try_until(day: &str) -> Result<Self, RowsError> {
        Self::parse(day.as_bytes()).ok_or_else(|| RowsError::Description {
            what: format!("{day:?} is no day; the last day of an adoption is written as YYYY-MM-DD"),
        })
    }

    /// Refuses after the end. Uses the clock of the `Crypto`, because an attacker may control the database's.
    pub(crate) fn check(self, crypto: &Crypto) -> Result<(), RowsError> {
        if crypto.clock().unix_millis() < self.end_millis() {
            Ok(())
        } else {
            Err(RowsError::AdoptionEnded { until: self })
        }
    }
}

/// Reads the ciphertext if there is one, otherwise the plaintext.
///
/// For use while a table is being encrypted; see [`AdoptionJobs`](crate::AdoptionJobs). After the adoption's
/// last day, plaintexts are refused and ciphertexts still open.
///
/// <div class="warning">
///
/// Until that day, an attacker who can write the database can replace a ciphertext with a plaintext of their
/// own. Return to `decrypt` when all rows are encrypted.
///
/// </div>
///
/// # Errors
///
/// [`RowsError::AdoptionEnded`] for a plaintext after the adoption's last day. [`RowsError::Encx`] as for
/// [`Crypto::decrypt`], and with [`Error::Codec`] if the bytes are not a value of this type.
///
/// # Cancellation
///
/// As [`Crypto::decrypt`].
pub async fn read_either<T: FieldCodec>(
    crypto: &Crypto,
    context: &EncryptionContext,
    ciphertext: Option<&Ciphertext>,
    plaintext: Option<T>,
    aad: impl AsAad,
    adoption: Adoption,
) -> Result<Option<T>, RowsError> {
    match (ciphertext, plaintext) {
        (Some(ciphertext), _) => {
            let value = crypto.decrypt(context, ciphertext, aad).await?;
            Ok(Some(T::decode(value.as_bytes()).map_err(Error::from)?))
        }
        (None, Some(plaintext)) => {
            adoption.check(crypto)?;
            Ok(Some(plaintext))
        }
        (None, None) => Ok(None),
    }
}
