//! The AAD (additional authenticated data): binds a ciphertext to its place, such as a table, a column and a row.

mod bound;
mod buffer;
mod field;
mod place;

use std::fmt;

use uuid::Uuid;

pub use self::bound::{ColumnPart, ColumnValue};
#[doc(hidden)]
pub use self::buffer::PREFIX_LEN;
use self::buffer::{Buffer, SHORT};
pub use self::field::Field;
#[doc(hidden)]
pub use self::place::Part;
use crate::causes::debug_as_text;

/// The longest framed AAD, in bytes.
pub const MAX_AAD_LEN: usize = 65_536;

/// The greatest number of parts in an AAD.
pub const MAX_AAD_PARTS: usize = 64;

/// Binds a ciphertext to its place, so that it opens only where it was sealed.
///
/// Most AADs come from [`Field::row`]. An AAD never leaves the process and costs nothing to vary, so put values that
/// vary much here rather than into the encryption context.
///
/// Parts are typed and framed: the text `1`, the integer 1 and the two texts `1` and `1` all differ, while 1 as
/// an `i32` equals 1 as a `u64`. A part that cannot be framed does not fail here: the call that uses the AAD
/// returns the [`AadError`].
///
/// ```
/// use encx::{Aad, Field};
///
/// const SSN: Field = Field::new("users", "ssn");
///
/// let of_a_column = SSN.row(7);
/// let of_a_file = Aad::free().text("exports").integer(2026);
/// # let _ = (of_a_column, of_a_file);
/// ```
#[derive(Clone)]
pub struct Aad(Result<Buffer, AadError>);

impl Aad {
    /// Binds to nothing: the ciphertext opens anywhere under its encryption context.
    ///
    /// <div class="warning">
    ///
    /// An attacker with write access to the database can then copy this value from one row to another of the same tenant.
    ///
    /// </div>
    #[must_use]
    pub fn unbound() -> Self {
        Self::begin(KIND_UNBOUND)
    }

    /// Starts an AAD of the caller's own parts, for values that are not in a column of a table.
    ///
    /// ```
    /// use encx::Aad;
    ///
    /// let aad = Aad::free().text("session").integer(7_u64);
    /// ```
    #[must_use]
    pub fn free() -> Self {
        Self::begin(KIND_FREE)
    }

    /// Adds a text part, which may be empty.
    #[must_use]
    pub fn text(self, text: impl AsRef<str>) -> Self {
        self.part(TYPE_TEXT, text.as_ref().as_bytes())
    }

    /// Adds a part of bytes, which may be empty.
    #[must_use]
    pub fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        self.part(TYPE_BYTES, bytes.as_ref())
    }

    /// Adds an integer. Its width does not matter.
    #[inline]
    #[must_use]
    pub fn integer(self, integer: impl TryInto<i128>) -> Self {
        match integer.try_into() {
            Ok(integer) => self.short_part(TYPE_INTEGER, integer.to_be_bytes()),
            Err(_) => Self(self.0.and(Err(AadError::IntegerTooLarge))),
        }
    }

    /// Adds a UUID.
    #[inline]
    #[must_use]
    pub fn uuid(self, uuid: Uuid) -> Self {
        self.short_part(TYPE_UUID, uuid.into_bytes())
    }

    /// Returns the framed bytes: `u8 kind ‖ u16 count ‖ {u8 type ‖ u32 len ‖ bytes}*`, at most 65 536.
    ///
    /// # Errors
    ///
    /// The [`AadError`] of the first part that could not be framed.
    #[inline]
    pub fn framed(&self) -> Result<&[u8], AadError> {
        match &self.0 {
            Ok(buffer) => Ok(buffer.framed()),
            Err(error) => Err(error.clone()),
        }
    }

    /// Puts a prefix before the framed bytes, and returns both. Each call replaces the prefix.
    ///
    /// # Errors
    ///
    /// As [`framed`](Self::framed).
    #[inline]
    #[doc(hidden)]
    pub fn with_prefix(&mut self, prefix: &[u8; PREFIX_LEN]) -> Result<&mut [u8], AadError> {
        match &mut self.0 {
            Ok(buffer) => {
                let whole = buffer.whole();
                whole[..PREFIX_LEN].copy_from_slice(prefix);
                Ok(whole)
            }
            Err(error) => Err(error.clone()),
        }
    }

    #[inline]
    fn begin(kind: u8) -> Self {
        let mut framed = [0; SHORT];
        framed[0] = kind;
        Self(Ok(Buffer::new(&framed, 3)))
    }

    /// Counts the parts; 0 if one was refused.
    #[inline]
    fn count(&self) -> usize {
        self.0.as_ref().map_or(0, Buffer::parts)
    }

    fn refuse(self, error: AadError) -> Self {
        Self(self.0.and(Err(error)))
    }

    /// Binds to a column. The caller adds the row.
    #[doc(hidden)]
    #[must_use]
    pub fn of_column(table: &str, column: &str) -> Self {
        Self::begin(KIND_FIELD).text(table).text(column)
    }

    /// Adds the row to a column.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn row<I: RowId + ?Sized>(self, id: &I) -> Self {
        let mut bound = id.append_to(RowIdParts(self)).0;
        // A caller's `RowId` may append nothing, which would bind to the column alone.
        if bound.0.is_ok() && bound.count() <= 2 {
            bound.0 = Err(AadError::EmptyPart);
        }
        bound
    }

    /// Adds a step of a path to a row.
    #[doc(hidden)]
    #[must_use]
    pub fn step(self, step: &str) -> Self {
        if step.is_empty() {
            self.refuse(AadError::EmptyPart)
        } else {
            self.part(TYPE_PATH, step.as_bytes())
        }
    }

    #[inline]
    fn part(mut self, kind: u8, bytes: &[u8]) -> Self {
        if let Some(buffer) = self.room_for(bytes.len()) {
            buffer.push(kind, bytes);
        }
        self
    }

    #[inline]
    fn short_part(mut self, kind: u8, bytes: [u8; 16]) -> Self {
        if let Some(buffer) = self.room_for(bytes.len()) {
            buffer.push_short(kind, bytes);
        }
        self
    }

    /// Checks that a part of this length fits. `None` if the AAD is refused.
    #[inline]
    fn room_for(&mut self, len: usize) -> Option<&mut Buffer> {
        let buffer = self.0.as_ref().ok()?;
        let (parts, found) = (buffer.parts() + 1, buffer.len_with(len));
        if parts > MAX_AAD_PARTS || found > MAX_AAD_LEN {
            self.0 = Err(why_refused(parts, found));
        }
        self.0.as_mut().ok()
    }
}

#[cold]
fn why_refused(parts: usize, found: usize) -> AadError {
    if parts > MAX_AAD_PARTS {
        AadError::TooManyParts
    } else {
        AadError::TooLong { found }
    }
}

const KIND_UNBOUND: u8 = 0;
const KIND_FREE: u8 = 1;
const KIND_FIELD: u8 = 2;
// 3 and 4 name blind indexes and their values; see `encx`'s `index`. Types 5 to 7 are those of `bound`.

#[doc(hidden)]
pub const TYPE_BYTES: u8 = 0;
#[doc(hidden)]
pub const TYPE_TEXT: u8 = 1;
#[doc(hidden)]
pub const TYPE_INTEGER: u8 = 2;
#[doc(hidden)]
pub const TYPE_UUID: u8 = 3;
const TYPE_PATH: u8 = 4;

/// Shows only the framed length: a row's id may be a person's name.
impl fmt::Debug for Aad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.framed() {
            Ok(framed) => write!(f, "Aad([{} bytes])", framed.len()),
            Err(error) => write!(f, "Aad({error})"),
        }
    }
}

/// A place to bind a value to: an [`Aad`], such as [`Field::row`] returns, or a reference to one.
///
/// The trait is sealed, so a call that holds a key runs no code of the caller.
///
/// ```
/// use encx::{Aad, AsAad, Field};
///
/// /// Takes what `Crypto::encrypt` takes.
/// fn describe(place: impl AsAad) {
///     # let _ = place;
/// }
///
/// const SSN: Field = Field::new("users", "ssn");
/// let kept: Aad = SSN.row(7);
/// describe(&kept);
/// describe(SSN.row(8));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say where the value belongs: write `FIELD.row(id)`",
    label = "write `FIELD.row(id)`, where `FIELD` is an `encx::Field`",
    note = "`FIELD` names a table and a column, `id` the row; an `Option` names no row: ask the database for an id before you \
            insert the row. For what is not in a column there is `encx::Aad::free()`"
)]
pub trait AsAad: Send + Sync + sealed::Sealed {
    /// Returns an AAD of the call's own, whose room for a prefix the cipher uses.
    #[doc(hidden)]
    fn into_aad(self) -> Aad;

    /// Returns the AAD.
    fn as_aad(&self) -> &Aad;
}

impl sealed::Sealed for Aad {}

impl AsAad for Aad {
    #[inline(always)]
    fn into_aad(self) -> Aad {
        self
    }

    #[inline(always)]
    fn as_aad(&self) -> &Aad {
        self
    }
}

/// Not implemented for every `&T` with `T: AsAad`: a reference to a wrong type would be reported twice.
macro_rules! as_aad {
    ($($type:ty),+) => {$(
        impl sealed::Sealed for $type {}

        impl AsAad for $type {
            #[inline]
            fn into_aad(self) -> Aad {
                Aad::clone(self)
            }

            #[inline(always)]
            fn as_aad(&self) -> &Aad {
                self
            }
        }
    )+};
}

as_aad!(&Aad, &&Aad);

mod sealed {
    pub trait Sealed {}
}

/// Identifies a row: an integer, text, bytes, a UUID, or a tuple of them.
///
/// Implemented for the integers up to 128 bits, `str`, `String`, `[u8]`, `Vec<u8>`, `[u8; N]`, [`Uuid`], references to
/// them, and tuples of two to six. Not implemented for `Option`: a row without an id cannot be bound. Implement it for
/// your own id type by delegating to the wrapped value:
///
/// ```
/// use encx::{RowId, RowIdParts};
///
/// struct UserId(i64);
///
/// impl RowId for UserId {
///     fn append_to(&self, parts: RowIdParts) -> RowIdParts {
///         self.0.append_to(parts)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not identify a row",
    label = "no id of a row",
    note = "integers, text, bytes, UUIDs and tuples of them do, and types of your own that implement `encx::RowId`; an `Option` \
            does not: ask the database for an id before you insert the row"
)]
pub trait RowId {
    /// Appends the parts of the id.
    #[must_use]
    fn append_to(&self, parts: RowIdParts) -> RowIdParts;
}

/// Collects the parts of a row's id; see [`RowId`].
///
/// ```
/// use encx::{Field, RowId, RowIdParts};
///
/// /// An order's number, and the line in it.
/// struct OrderLine(i64, i32);
///
/// impl RowId for OrderLine {
///     fn append_to(&self, parts: RowIdParts) -> RowIdParts {
///         self.1.append_to(self.0.append_to(parts))
///     }
/// }
///
/// const NOTE: Field = Field::new("order_lines", "note");
/// assert_eq!(NOTE.row(OrderLine(7, 2)).framed(), NOTE.row((7, 2)).framed());
/// ```
#[derive(Debug)]
pub struct RowIdParts(Aad);

impl<T: RowId + ?Sized> RowId for &T {
    #[inline]
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        (**self).append_to(parts)
    }
}

macro_rules! integer_row_ids {
    ($($integer:ty),+) => {$(
        impl RowId for $integer {
            #[inline]
            fn append_to(&self, parts: RowIdParts) -> RowIdParts {
                RowIdParts(parts.0.integer(*self))
            }
        }
    )+};
}

integer_row_ids!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

impl RowId for Uuid {
    #[inline]
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        RowIdParts(parts.0.uuid(*self))
    }
}

impl RowId for str {
    #[inline]
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        RowIdParts(if self.is_empty() {
            parts.0.refuse(AadError::EmptyPart)
        } else {
            parts.0.text(self)
        })
    }
}

impl RowId for String {
    #[inline]
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        self.as_str().append_to(parts)
    }
}

impl RowId for [u8] {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        RowIdParts(if self.is_empty() {
            parts.0.refuse(AadError::EmptyPart)
        } else {
            parts.0.bytes(self)
        })
    }
}

impl RowId for Vec<u8> {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        self.as_slice().append_to(parts)
    }
}

impl<const N: usize> RowId for [u8; N] {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        self.as_slice().append_to(parts)
    }
}

/// Implements a trait for tuples whose members append their parts in order.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_tuples {
    ($parts:ty, $trait:ident: $($($part:ident $index:tt)+;)+) => {$(
        impl<$($part: $trait),+> $trait for ($($part,)+) {
            fn append_to(&self, parts: $parts) -> $parts {
                $(let parts = self.$index.append_to(parts);)+
                parts
            }
        }
    )+};
}

#[doc(hidden)]
pub use __for_tuples as for_tuples;

for_tuples! {
    RowIdParts, RowId:
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5;
}

/// Why an AAD was refused. Shows no part's content.
///
/// ```
/// use encx::{AadError, Field};
///
/// const NAME: Field = Field::new("users", "name");
///
/// // Calls return this error before they ask for a key.
/// assert_eq!(NAME.row("").framed().unwrap_err(), AadError::EmptyPart);
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AadError {
    /// The value of a bound column is not exactly one part.
    #[error("the value of a bound column must be one part; append the wrapped value once")]
    BoundValue,
    /// A name, a part of a row's id or a step of a path is empty.
    #[error(
        "a table's or column's name, a row's id or a step of a path is empty; bind to what identifies the \
         row, and insert the row first if the database assigns its id"
    )]
    EmptyPart,
    /// An integer does not fit into a signed 128-bit integer.
    #[error("an integer of an AAD is greater than 2^127 - 1; bind its bytes instead")]
    IntegerTooLarge,
    /// The framed AAD is too long.
    #[error("an AAD has at most {MAX_AAD_LEN} bytes when framed, not {found}; bind a hash of the long part")]
    TooLong {
        /// The framed length, in bytes.
        found: usize,
    },
    /// There are too many parts.
    #[error("an AAD has at most {MAX_AAD_PARTS} parts; join some of them into one")]
    TooManyParts,
}

debug_as_text!(AadError);

#[cfg(test)]
mod tests {
    use super::*;

    const SSN: Field = Field::new("users", "ssn");

    pub(super) fn framed(aad: &Aad) -> Vec<u8> {
        aad.framed().unwrap().to_vec()
    }

    #[test]
    fn framed_bytes_are_pinned() {
        assert_eq!(framed(&Aad::unbound()), [0, 0, 0]);
        assert_eq!(
            framed(&SSN.row(-2)),
            [
                b"\x02\0\x03\x01\0\0\0\x05users\x01\0\0\0\x03ssn\x02\0\0\0\x10".as_slice(),
                &[0xff; 15],
                &[0xfe]
            ]
            .concat()
        );
        assert_eq!(
            framed(&Aad::free().bytes([7]).text("é").uuid(Uuid::from_bytes([9; 16]))),
            [
                b"\x01\0\x03\0\0\0\0\x01\x07\x01\0\0\0\x02\xc3\xa9\x03\0\0\0\x10".as_slice(),
                &[9; 16]
            ]
            .concat()
        );
        assert_eq!(
            framed(&SSN.row_path("r", ["a", "b"])),
            b"\x02\0\x05\x01\0\0\0\x05users\x01\0\0\0\x03ssn\x01\0\0\0\x01r\x04\0\0\0\x01a\x04\0\0\0\x01b"
        );
    }

    #[test]
    fn width_does_not_matter_and_type_does() {
        let seven_elsewhere: &i32 = &7;
        let seven = framed(&SSN.row(7_i8));
        assert!(
            [
                SSN.row(7_i16),
                SSN.row(7_i32),
                SSN.row(7_i64),
                SSN.row(7_i128),
                SSN.row(7_isize),
                SSN.row(7_u8),
                SSN.row(7_u16),
                SSN.row(7_u32),
                SSN.row(7_u64),
                SSN.row(7_u128),
                SSN.row(7_usize),
                SSN.row(seven_elsewhere),
            ]
            .iter()
            .all(|aad| framed(aad) == seven)
        );
        let eight = 0x3132_3334_3536_3738_u64;
        let uuid = Uuid::from_bytes([b'7'; 16]);
        let mut distinct = vec![
            SSN.row("7"),
            SSN.row(7),
            SSN.row(-7),
            SSN.row(*b"7"),
            SSN.row("12345678"),
            SSN.row(eight),
            SSN.row(uuid),
            SSN.row(uuid.to_string()),
            SSN.row(uuid.into_bytes()),
            SSN.row(uuid.as_u128()),
            SSN.row(("7", "7")),
            SSN.row("77"),
            SSN.row((7, 7)),
            SSN.row_path("7", ["7"]),
            Field::new("users", "ss").row("n7"),
            Field::new("user", "sssn").row("7"),
            Aad::free().text("users").text("ssn").text("7"),
            Aad::free(),
            Aad::unbound(),
        ]
        .iter()
        .map(framed)
        .collect::<Vec<_>>();
        let count = distinct.len();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), count);
    }

    #[test]
    fn each_refusal_says_what_to_change() {
        let refused = |aad: Aad| aad.framed().unwrap_err();
        struct Nothing;
        impl RowId for Nothing {
            fn append_to(&self, parts: RowIdParts) -> RowIdParts {
                parts
            }
        }
        for empty in [
            SSN.row(Nothing),
            SSN.row_path(Nothing, ["x"]),
            SSN.row(""),
            SSN.row([]),
            SSN.row((1, "")),
            SSN.row_path(1, [""]),
        ] {
            assert_eq!(refused(empty), AadError::EmptyPart);
        }
        assert_eq!(Field::try_new("", "c").unwrap_err(), AadError::EmptyPart);
        assert_eq!(Field::try_new("t", "").unwrap_err(), AadError::EmptyPart);
        assert_eq!(refused(SSN.row(u128::MAX)), AadError::IntegerTooLarge);
        assert!(SSN.row(i128::MAX).framed().is_ok());
        let parts = |count| (0..count).fold(Aad::free(), Aad::integer);
        assert!(parts(64).framed().is_ok());
        assert_eq!(refused(parts(65)), AadError::TooManyParts);
        assert!(Aad::free().bytes(vec![0; MAX_AAD_LEN - 8]).framed().is_ok());
        let too_long = Aad::free().bytes(vec![0; MAX_AAD_LEN - 7]);
        assert_eq!(
            refused(too_long.clone()),
            AadError::TooLong {
                found: MAX_AAD_LEN + 1
            }
        );
        assert_eq!(
            refused(too_long.text("later parts change nothing").integer(1)),
            AadError::TooLong {
                found: MAX_AAD_LEN + 1
            }
        );
        assert!(AadError::EmptyPart.to_string().contains("insert the row first"));
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(format!("{:?}", SSN.row("alice")), "Aad([31 bytes])");
    }
}
