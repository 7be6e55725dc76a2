//! Until when plaintexts are trusted, and reading while some rows are encrypted already and others not yet.

use std::fmt;

use encx::{AsAad, Ciphertext, Crypto, EncryptionContext, Error, FieldCodec};

use super::RowsError;

/// Until when a plaintext column is trusted while it is adopted: a day, declared in code.
///
/// An attacker who can write the database can put values of their own into the plaintext column, and has them believed and
/// encrypted. So that is allowed for a time only, and what ends it is not in the database. After the day, in UTC,
/// [`read_either`] and the backfill refuse plaintexts.
///
/// ```
/// use encx_sqlx::Adoption;
///
/// /// `users.ssn` may hold plaintexts up to and including this day.
/// const SSN_ADOPTION: Adoption = Adoption::until("2027-03-31");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    year: u16,
    month: u16,
    day: u16,
}

impl Adoption {
    /// Names the last day, as `YYYY-MM-DD` in UTC. In a `const`, a day that does not exist does not compile.
    ///
    /// # Panics
    ///
    /// If there is no such day. For a day that is known at run time only there is [`try_until`](Self::try_until).
    #[must_use]
    pub const fn until(day: &'static str) -> Self {
        let parsed = Self::parse(day.as_bytes());
        assert!(
            parsed.is_some(),
            "the last day of an adoption is written as YYYY-MM-DD"
        );
        match parsed {
            Some(adoption) => adoption,
            None => Self {
                year: 1970,
                month: 1,
                day: 1,
            },
        }
    }

    /// Names the last day, such as one from a configuration file that only the service's operators can write.
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] if there is no such day.
    pub fn try_until(day: &str) -> Result<Self, RowsError> {
        Self::parse(day.as_bytes()).ok_or_else(|| RowsError::Description {
            what: format!("{day:?} is no day; the last day of an adoption is written as YYYY-MM-DD"),
        })
    }

    const fn parse(day: &[u8]) -> Option<Self> {
        if day.len() != 10 || day[4] != b'-' || day[7] != b'-' {
            return None;
        }
        let mut numbers = [0_u16; 3];
        let (mut at, mut part) = (0, 0);
        while at < 10 {
            if at == 4 || at == 7 {
                part += 1;
            } else if day[at].is_ascii_digit() {
                numbers[part] = numbers[part] * 10 + (day[at] - b'0') as u16;
            } else {
                return None;
            }
            at += 1;
        }
        let [year, month, day] = numbers;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        if year == 0 || day == 0 || day > days {
            return None;
        }
        Some(Self { year, month, day })
    }

    /// Returns when it is over, in milliseconds since 1970-01-01T00:00:00Z: as the next day begins.
    fn end_millis(self) -> u64 {
        // Counted from a first of March, so that a leap day is the last of its year.
        let month = u64::from(self.month + 9) % 12;
        let year = u64::from(self.year) - u64::from(month >= 10);
        let day_of_year = (153 * month + 2) / 5 + u64::from(self.day) - 1;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
        (days + 1).saturating_sub(719_468) * 86_400_000
    }

    /// Refuses if it is over, by the clock of the `Crypto`: not that of the database, which an attacker may have.
    pub(super) fn check(self, crypto: &Crypto) -> Result<(), RowsError> {
        if crypto.clock().unix_millis() < self.end_millis() {
            Ok(())
        } else {
            Err(RowsError::AdoptionEnded { until: self })
        }
    }
}

/// Writes the last day, as `YYYY-MM-DD`.
impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Reads a value that is encrypted already or not yet: the ciphertext if there is one, else the plaintext.
///
/// For the time in which a table is moved from one to the other; see [`AdoptionJobs`](super::AdoptionJobs). After the
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adoption_ends_with_its_last_day() {
        let ends = [
            ("1969-07-20", 0),
            ("1970-01-01", 86_400_000),
            ("2000-02-29", 951_868_800_000),
            ("2026-11-30", 1_796_083_200_000),
            ("2027-12-31", 1_830_297_600_000),
        ];
        for (day, end) in ends {
            let adoption = Adoption::try_until(day).unwrap();
            assert_eq!(adoption.end_millis(), end, "{day}");
            assert_eq!(adoption.to_string(), day);
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for day in [
            "",
            "2027-02-29",
            "2100-02-29",
            "2027-00-01",
            "2027-13-01",
            "2027-01-00",
            "2027-04-31",
            "0000-01-01",
            "2027-1-01",
            "2027/01/01",
            "31-03-2027",
            "2027-01-0x",
            "+027-01-01",
            "2027-01-011",
            "２027-01",
        ] {
            assert!(Adoption::try_until(day).is_err(), "{day:?}");
        }
    }
}
