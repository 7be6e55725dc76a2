//! Values of other columns that an AAD binds, so that changing one alone makes the ciphertext fail to open.

use std::borrow::Cow;

use uuid::Uuid;

use super::{Aad, AadError, TYPE_BYTES, TYPE_TEXT, TYPE_UUID};

/// Names a bound column; its value follows.
const TYPE_COLUMN: u8 = 5;
/// NULL.
const TYPE_NULL: u8 = 6;
/// Texts, each after its length.
const TYPE_TEXTS: u8 = 7;

/// The value of another column of the row, as an AAD binds it.
///
/// Implemented for text, bytes, the integers up to 128 bits, `bool`, [`Uuid`], lists of texts, references to them,
/// `Box` and `Cow` of them, and `Option` of them, where `None` is NULL; with feature `chrono` or `time` for moments
/// and dates. A moment is bound to the microsecond, the precision of databases. Implement it for your own type by
/// delegating to the wrapped value:
///
/// ```
/// use encx::record::{ColumnPart, ColumnValue};
///
/// enum Rights {
///     Read,
///     Write,
/// }
///
/// impl ColumnValue for Rights {
///     fn bind_to(&self, part: ColumnPart) -> ColumnPart {
///         match self {
///             Self::Read => "read".bind_to(part),
///             Self::Write => "write".bind_to(part),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be bound as the value of a column",
    label = "no value of a bound column",
    note = "text, bytes, integers, `bool`, UUIDs, lists of texts, `Option`s of them, and moments of feature `chrono` or `time` can, \
            and types of your own that implement `encx::record::ColumnValue`; floats cannot, which have several forms of one number"
)]
pub trait ColumnValue {
    /// Appends the value: exactly one part.
    #[must_use]
    fn bind_to(&self, part: ColumnPart) -> ColumnPart;
}

/// Collects the value of a bound column; see [`ColumnValue`].
#[derive(Debug)]
pub struct ColumnPart(Aad);

impl Aad {
    /// Binds to the value of another column of the row: the ciphertext opens only while that column has this value.
    ///
    /// ```
    /// use encx::Field;
    ///
    /// const DIGEST: Field = Field::new("tokens", "digest");
    ///
    /// let aad = DIGEST.row(7).bind("owner", "ada").bind("expires_at", None::<i64>);
    /// ```
    ///
    /// The AAD authenticates the column's name and its value, in the order of the calls. To change the value, decrypt with
    /// the old one and encrypt with the new one.
    #[must_use]
    pub fn bind(self, column: impl AsRef<str>, value: impl ColumnValue) -> Self {
        let column = column.as_ref();
        if column.is_empty() {
            return self.refuse(AadError::EmptyPart);
        }
        let named = self.part(TYPE_COLUMN, column.as_bytes());
        let expected = named.count() + 1;
        let ColumnPart(bound) = value.bind_to(ColumnPart(named));
        if bound.0.is_ok() && bound.count() != expected {
            return bound.refuse(AadError::BoundValue);
        }
        bound
    }
}

impl<T: ColumnValue + ?Sized> ColumnValue for &T {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        (**self).bind_to(part)
    }
}

impl<T: ColumnValue + ?Sized> ColumnValue for Box<T> {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        (**self).bind_to(part)
    }
}

impl<T: ColumnValue + ToOwned + ?Sized> ColumnValue for Cow<'_, T> {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        (**self).bind_to(part)
    }
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        match self {
            Some(value) => value.bind_to(part),
            None => ColumnPart(part.0.part(TYPE_NULL, &[])),
        }
    }
}

macro_rules! integers {
    ($($integer:ty),+) => {$(
        impl ColumnValue for $integer {
            fn bind_to(&self, part: ColumnPart) -> ColumnPart {
                ColumnPart(part.0.integer(*self))
            }
        }
    )+};
}

integers!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

impl ColumnValue for bool {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        u8::from(*self).bind_to(part)
    }
}

impl ColumnValue for Uuid {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        ColumnPart(part.0.part(TYPE_UUID, self.as_bytes()))
    }
}

impl ColumnValue for str {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        ColumnPart(part.0.part(TYPE_TEXT, self.as_bytes()))
    }
}

impl ColumnValue for String {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        self.as_str().bind_to(part)
    }
}

impl ColumnValue for [u8] {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        ColumnPart(part.0.part(TYPE_BYTES, self))
    }
}

impl ColumnValue for Vec<u8> {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        self.as_slice().bind_to(part)
    }
}

impl<const N: usize> ColumnValue for [u8; N] {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        self.as_slice().bind_to(part)
    }
}

/// The order of a list matters: a reordered list is another value.
impl ColumnValue for [String] {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        let mut framed = Vec::new();
        for text in self {
            // The length saturates: a text this long exceeds the AAD's limit anyway.
            let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
            framed.extend_from_slice(&len.to_be_bytes());
            framed.extend_from_slice(text.as_bytes());
        }
        ColumnPart(part.0.part(TYPE_TEXTS, &framed))
    }
}

impl ColumnValue for Vec<String> {
    fn bind_to(&self, part: ColumnPart) -> ColumnPart {
        self.as_slice().bind_to(part)
    }
}

#[cfg(feature = "chrono")]
mod of_chrono {
    use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone};

    use super::{ColumnPart, ColumnValue};

    impl<Tz: TimeZone> ColumnValue for DateTime<Tz> {
        fn bind_to(&self, part: ColumnPart) -> ColumnPart {
            self.timestamp_micros().bind_to(part)
        }
    }

    impl ColumnValue for NaiveDateTime {
        fn bind_to(&self, part: ColumnPart) -> ColumnPart {
            self.and_utc().bind_to(part)
        }
    }

    impl ColumnValue for NaiveDate {
        fn bind_to(&self, part: ColumnPart) -> ColumnPart {
            self.to_string().bind_to(part)
        }
    }
}

#[cfg(feature = "time")]
mod of_time {
    use time::{Date, OffsetDateTime, PrimitiveDateTime};

    use super::{ColumnPart, ColumnValue};

    impl ColumnValue for OffsetDateTime {
        fn bind_to(&self, part: ColumnPart) -> ColumnPart {
            self.unix_timestamp_nanos().div_euclid(1000).bind_to(part)
        }
    }

    impl ColumnValue for PrimitiveDateTime {
        fn bind_to(&self, part: ColumnPart) -> ColumnPart {
            self.assume_utc().bind_to(part)
        }
    }

    impl ColumnValue for Date {
        fn bind_to(&self, part: ColumnPart) -> ColumnPart {
            self.to_string().bind_to(part)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aad::{Field, MAX_AAD_LEN};

    const DIGEST: Field = Field::new("t", "d");

    fn of(value: impl ColumnValue) -> Vec<u8> {
        DIGEST.row(7).bind("c", value).framed().unwrap().to_vec()
    }

    #[test]
    fn bound_bytes_are_pinned_and_those_of_a_field_stay() {
        let field =
            b"\x02\0\x03\x01\0\0\0\x01t\x01\0\0\0\x01d\x02\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07";
        assert_eq!(DIGEST.row(7).framed().unwrap(), field);
        let bound = |value: &[u8]| {
            let mut bound = field.to_vec();
            bound[2] = 5;
            [bound, b"\x05\0\0\0\x01c".to_vec(), value.to_vec()].concat()
        };
        assert_eq!(of("ada"), bound(b"\x01\0\0\0\x03ada"));
        assert_eq!(of([1_u8, 2]), bound(b"\0\0\0\0\x02\x01\x02"));
        assert_eq!(
            of(Uuid::from_bytes([9; 16])),
            bound(b"\x03\0\0\0\x10\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09")
        );
        assert_eq!(of(None::<i64>), bound(b"\x06\0\0\0\0"));
        assert_eq!(
            of(vec!["a".to_owned(), String::new(), "bc".to_owned()]),
            bound(b"\x07\0\0\0\x0f\0\0\0\x01a\0\0\0\0\0\0\0\x02bc")
        );
        let one = bound(b"\x02\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
        assert_eq!(of(true), one);
        assert_eq!(of(Some(&1_u64)), one);
        assert_eq!(of(Box::new(1_i8)), one);
    }

    #[test]
    fn no_two_places_have_one_frame() {
        let text = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let mut distinct: Vec<_> = [
            DIGEST.row("a"),
            DIGEST.row(("a", "b")),
            DIGEST.row(("a", "b", "c")),
            DIGEST.row_path("a", ["b", "c"]),
            DIGEST.row("a").bind("b", "c"),
            DIGEST.row("a").bind("bc", ""),
            DIGEST.row("a").bind("b", ["c"].map(str::to_owned).as_slice()),
            DIGEST.row("a").bind("b", b"c"),
            DIGEST.row("a").bind("b", None::<&str>),
            DIGEST.row("a").bind("b", text(&[])),
            DIGEST.row("a").bind("b", text(&["", ""])),
            DIGEST.row("a").bind("b", text(&[""])),
            DIGEST.row("a").bind("b", "c").bind("d", "e"),
            DIGEST.row("a").bind("d", "e").bind("b", "c"),
            DIGEST.row("a").bind("b", 0),
            DIGEST.row("a").bind("b", 0_u128.to_be_bytes()),
            DIGEST.row("a").bind("b", Uuid::nil()),
            Aad::free().text("t").text("d").text("a").bind("b", "c"),
        ]
        .iter()
        .map(|aad| aad.framed().unwrap().to_vec())
        .collect();
        let count = distinct.len();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), count);
    }

    #[test]
    fn moments_are_bound_to_the_microsecond() {
        #[cfg(feature = "chrono")]
        {
            let moment = |nanos| chrono::DateTime::from_timestamp(-1, nanos).unwrap();
            assert_eq!(of(moment(5_999)), of(-999_995));
            assert_eq!(of(moment(5_000)), of(moment(5_999).naive_utc()));
            assert_eq!(of(moment(5_000).date_naive()), of("1969-12-31"));
        }
        #[cfg(feature = "time")]
        {
            let moment = |nanos| ::time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
            assert_eq!(of(moment(-999_994_001)), of(-999_995));
            assert_eq!(of(moment(-1).date()), of("1969-12-31"));
            let local = ::time::PrimitiveDateTime::new(moment(0).date(), moment(0).time());
            assert_eq!(of(local), of(0));
        }
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        struct Appends(usize);
        impl ColumnValue for Appends {
            fn bind_to(&self, part: ColumnPart) -> ColumnPart {
                (0..self.0).fold(part, |part, _| "x".bind_to(part))
            }
        }
        let refused = |aad: Aad| aad.framed().unwrap_err();
        assert_eq!(refused(DIGEST.row(7).bind("", 1)), AadError::EmptyPart);
        for parts in [0, 2] {
            assert_eq!(
                refused(DIGEST.row(7).bind("c", Appends(parts))),
                AadError::BoundValue
            );
        }
        assert_eq!(
            refused(DIGEST.row("").bind("c", Appends(0))),
            AadError::EmptyPart,
            "the first fault"
        );
        assert_eq!(
            refused(DIGEST.row(7).bind("c", u128::MAX)),
            AadError::IntegerTooLarge
        );
        let long = vec!["x".repeat(MAX_AAD_LEN)];
        assert!(matches!(
            refused(DIGEST.row(7).bind("c", long)),
            AadError::TooLong { .. }
        ));
        let many = (0..40).fold(DIGEST.row(7), |aad, n| aad.bind("c", n));
        assert_eq!(refused(many), AadError::TooManyParts);
    }
}
