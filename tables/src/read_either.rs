//! Reading while some rows are encrypted already and others not yet.

use encx::record::FieldCodec;
use encx::{AsAad, Ciphertext, Crypto, EncryptionContext, Error};

use crate::adoption::Adoption;
use crate::error::RowsError;

/// What refuses. It stands apart from the type, which [`RowsError`] names.
impl Adoption {
    /// Names the last day, such as one from a configuration file that only the service's operators can write.
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

    /// Refuses if it is over, by the clock of the `Crypto`: not that of the database, which an attacker may have.
    pub(crate) fn check(self, crypto: &Crypto) -> Result<(), RowsError> {
        if crypto.clock().unix_millis() < self.end_millis() {
            Ok(())
        } else {
            Err(RowsError::AdoptionEnded { until: self })
        }
    }
}

/// Reads a value that is encrypted already or not yet: the ciphertext if there is one, else the plaintext.
///
/// For the time in which a table is moved from one to the other; see [`AdoptionJobs`](crate::AdoptionJobs). After the
/// adoption's last day a plaintext is refused; a ciphertext opens as ever, so the rows that are encrypted stay readable.
///
/// <div class="warning">
///
/// Until then an attacker who can write the database can put a plaintext of their own in the place of a ciphertext. Go back
/// to `decrypt` once all rows are encrypted.
///
/// </div>
///
/// # Errors
///
/// [`RowsError::AdoptionEnded`] for a plaintext after the adoption's last day. [`RowsError::Encx`]: as [`Crypto::decrypt`],
/// and [`Error::Codec`] if the bytes are no value of this type.
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
