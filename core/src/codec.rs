//! The bytes that a field's value becomes before it is encrypted. `docs/format.md` states them for other languages.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "json")]
pub mod json;
#[cfg(any(feature = "chrono", feature = "time"))]
mod moment;
#[cfg(feature = "time")]
mod time;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::causes::debug_as_text;

/// Turns a value into the bytes to encrypt, and back.
///
/// The bytes stand in `docs/format.md` and never change:
///
/// | type | bytes |
/// | --- | --- |
/// | `String`, `Box<str>`, `Arc<str>`, `Cow<str>` | UTF-8 |
/// | `Vec<u8>`, `Box<[u8]>`, `[u8; N]`, `Cow<[u8]>` | as they are |
/// | integers, `i8` to `i128` and `u8` to `u128` | two's complement, always 16 bytes, big-endian: `i32` may become `i64` |
/// | `f32`, `f64` | IEEE 754 double precision, 8 bytes, big-endian: `f32` may become `f64` |
/// | `bool` | one byte, 0 or 1 |
/// | `Uuid` | its 16 bytes |
/// | feature `chrono`: `DateTime<Utc>`, `NaiveDateTime`, `NaiveDate`, `NaiveTime` | text of RFC 3339, see below |
/// | feature `time`: `OffsetDateTime`, `PrimitiveDateTime`, `Date`, `Time` | the same text |
/// | `Zeroizing<T>`, `Box<T>` | those of `T` |
///
/// Moments are `2026-01-31T12:00:00.000000000Z`, always in UTC and with nine digits of a second; local ones have no `Z`,
/// dates are `2026-01-31` and times `12:00:00.000000000`. Years are 0 to 9999. The two crates read each other's.
///
/// Integers, floats, booleans, UUIDs and moments have one length whatever their value, so their ciphertexts tell nothing.
/// Those of texts tell how long the text is.
///
/// Not for `Option`: what is absent is `NULL`. For a type of your own, implement it with what the type wraps:
///
/// ```
/// use encx::record::{CodecError, Encoded, FieldCodec};
///
/// struct Iban(String);
///
/// impl FieldCodec for Iban {
///     const FORMAT: &'static str = String::FORMAT;
///
///     fn encode(&self) -> Result<Encoded<'_>, CodecError> {
///         self.0.encode()
///     }
///
///     fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
///         String::decode(bytes).map(Self)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no bytes to encrypt",
    label = "encx does not know how to encrypt this type",
    note = "if it implements `Serialize` and `DeserializeOwned`, write `#[encx(json)]`; if it is a type of your own, \
            implement `encx::record::FieldCodec`; dates need feature `chrono` or `time` of `encx`",
    note = "an optional value is written `Option<..>`, by that name and not by an alias"
)]
pub trait FieldCodec: Sized {
    /// What the bytes are, in a word. It stands in manifests of records, so that a test sees when it changes.
    const FORMAT: &'static str;

    /// Returns the value's bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if this value has none, such as a date in year 10 000. What could not be read again is refused
    /// here, where the value still exists.
    fn encode(&self) -> Result<Encoded<'_>, CodecError>;

    /// Reads a value from its bytes, which are authentic but may be those of another type.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if they are no value of this type.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

/// The bytes of a value: the value's own, or made for it and zeroised when dropped.
pub struct Encoded<'a>(Bytes<'a>);

enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Owned(Zeroizing<Vec<u8>>),
}

impl<'a> Encoded<'a> {
    /// Takes bytes that the value has already.
    #[must_use]
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Self(Bytes::Borrowed(bytes))
    }

    /// Takes bytes that were made for this.
    #[must_use]
    pub fn owned(bytes: Vec<u8>) -> Self {
        Self(Bytes::Owned(Zeroizing::new(bytes)))
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Encoded<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoded([REDACTED])")
    }
}

/// Says why a value has no bytes, or bytes are no value of a type. No part of the value is shown.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are no JSON of the type, or the type cannot be written as JSON.
    #[error("the value cannot be {direction} JSON at line {line}, column {column}: {what}")]
    Json {
        /// "written as" or "read from".
        direction: &'static str,
        /// The line, from 1; 0 if there is none.
        line: usize,
        /// The column, from 1; 0 if there is none.
        column: usize,
        /// The kind of fault. What `serde_json` says besides may quote the value.
        what: &'static str,
    },
    /// The bytes have another length than those of the type.
    #[error("the bytes of {format} are {expected}, not {found}; was the field's type changed?")]
    Length {
        /// What they should have been.
        format: &'static str,
        /// The length of those found.
        found: usize,
        /// The length that it has.
        expected: usize,
    },
    /// The bytes are of the right length and no value.
    #[error("the bytes are no {format}; was the field's type changed?")]
    Malformed {
        /// What they should have been.
        format: &'static str,
    },
    /// The value does not fit: into the type, or into the format.
    #[error("the {format} is out of range: {what}")]
    OutOfRange {
        /// What it is.
        format: &'static str,
        /// What does not fit into what.
        what: &'static str,
    },
    /// A codec of the caller's own refused.
    #[error("{0}")]
    Other(Cow<'static, str>),
    /// The value would be written as JSON and could not be read again.
    #[error("the value is not written as JSON, because it could not be read again: {what}")]
    Unreadable {
        /// Why, and what to do.
        what: &'static str,
    },
}

debug_as_text!(CodecError);

impl FieldCodec for String {
    const FORMAT: &'static str = "text";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(self.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        text(bytes).map(str::to_owned)
    }
}

fn text(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes).map_err(|_| CodecError::Malformed { format: "text" })
}

impl FieldCodec for Vec<u8> {
    const FORMAT: &'static str = "bytes";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

macro_rules! as_text_or_bytes {
    ($($wrapped:ty, $inner:ty, $format:literal, $borrow:ident, $read:path;)+) => {$(
        impl FieldCodec for $wrapped {
            const FORMAT: &'static str = $format;

            fn encode(&self) -> Result<Encoded<'_>, CodecError> {
                let inner: &$inner = self;
                Ok(Encoded::borrowed(inner.$borrow()))
            }

            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                Ok(Self::from($read(bytes)?))
            }
        }
    )+};
}

as_text_or_bytes! {
    Box<str>, str, "text", as_bytes, text;
    Arc<str>, str, "text", as_bytes, text;
    Box<[u8]>, [u8], "bytes", as_ref, Vec::<u8>::decode;
}

impl FieldCodec for Cow<'_, str> {
    const FORMAT: &'static str = "text";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(self.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        String::decode(bytes).map(Cow::Owned)
    }
}

impl FieldCodec for Cow<'_, [u8]> {
    const FORMAT: &'static str = "bytes";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Vec::decode(bytes).map(Cow::Owned)
    }
}

impl<const N: usize> FieldCodec for [u8; N] {
    const FORMAT: &'static str = "bytes";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        exactly(bytes, "an array of bytes")
    }
}

fn exactly<const N: usize>(bytes: &[u8], format: &'static str) -> Result<[u8; N], CodecError> {
    bytes.try_into().map_err(|_| CodecError::Length {
        format,
        found: bytes.len(),
        expected: N,
    })
}

macro_rules! integers {
    ($($integer:ty),+) => {$(
        impl FieldCodec for $integer {
            const FORMAT: &'static str = "integer";

            fn encode(&self) -> Result<Encoded<'_>, CodecError> {
                let wide = i128::try_from(*self).map_err(|_| CodecError::OutOfRange {
                    format: "integer",
                    what: "it is greater than 2^127 - 1",
                })?;
                Ok(Encoded::owned(wide.to_be_bytes().to_vec()))
            }

            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                let wide = i128::from_be_bytes(exactly(bytes, "an integer")?);
                wide.try_into().map_err(|_| CodecError::OutOfRange {
                    format: "integer",
                    what: concat!("it does not fit into `", stringify!($integer), "`"),
                })
            }
        }
    )+};
}

integers!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

impl FieldCodec for f64 {
    const FORMAT: &'static str = "float";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::owned(self.to_be_bytes().to_vec()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        exactly(bytes, "a float").map(Self::from_be_bytes)
    }
}

impl FieldCodec for f32 {
    const FORMAT: &'static str = "float";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::owned(f64::from(*self).to_be_bytes().to_vec()))
    }

    #[allow(clippy::cast_possible_truncation, reason = "what it loses is checked")]
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let wide = f64::decode(bytes)?;
        let narrow = wide as Self;
        if f64::from(narrow).to_bits() == wide.to_bits() || wide.is_nan() {
            Ok(narrow)
        } else {
            Err(CodecError::OutOfRange {
                format: "float",
                what: "it does not fit into `f32`",
            })
        }
    }
}

impl FieldCodec for bool {
    const FORMAT: &'static str = "boolean";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(if *self { &[1] } else { &[0] }))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match exactly(bytes, "a boolean")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(CodecError::Malformed { format: "boolean" }),
        }
    }
}

impl FieldCodec for Uuid {
    const FORMAT: &'static str = "uuid";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(self.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        exactly(bytes, "a UUID").map(Self::from_bytes)
    }
}

impl<T: FieldCodec + Zeroize> FieldCodec for Zeroizing<T> {
    const FORMAT: &'static str = T::FORMAT;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        (**self).encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        T::decode(bytes).map(Self::new)
    }
}

impl<T: FieldCodec> FieldCodec for Box<T> {
    const FORMAT: &'static str = T::FORMAT;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        (**self).encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        T::decode(bytes).map(Self::new)
    }
}

#[cfg(test)]
mod tests;
