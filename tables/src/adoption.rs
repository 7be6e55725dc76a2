//! Until when plaintexts are trusted.

use std::fmt;

/// The last day on which a plaintext column under adoption is trusted, declared in code.
///
/// An attacker who can write the database can put values into the plaintext column, and they are trusted and
/// encrypted. The limit is therefore not in the database. After the day, in UTC,
/// [`read_either`](crate::read_either) and the backfill refuse plaintexts.
///
/// ```
/// use encx_tables::Adoption;
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
    /// Sets the last day, as `YYYY-MM-DD` in UTC. In a `const`, an invalid day does not compile.
    ///
    /// ```
    /// use encx_tables::Adoption;
    ///
    /// const SSN_ADOPTION: Adoption = Adoption::until("2027-03-31");
    /// assert_eq!(SSN_ADOPTION.to_string(), "2027-03-31");
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no such day. For a day known only at run time, use [`try_until`](Self::try_until).
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

    pub(crate) const fn parse(day: &[u8]) -> Option<Self> {
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

    /// Returns the end, in milliseconds since 1970-01-01T00:00:00Z: the start of the next day.
    pub(crate) fn end_millis(self) -> u64 {
        // Counts years from 1 March, so that a leap day is the last day of its year.
        let month = u64::from(self.month + 9) % 12;
        let year = u64::from(self.year) - u64::from(month >= 10);
        let day_of_year = (153 * month + 2) / 5 + u64::from(self.day) - 1;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
        (days + 1).saturating_sub(719_468) * 86_400_000
    }
}

/// Writes the last day, as `YYYY-MM-DD`.
impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
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
