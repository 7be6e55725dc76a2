//! How a field's value is encoded as bytes before encryption. `docs/format.md` specifies it for other languages.

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

/// Encodes a value as the bytes to encrypt, and decodes it.
///
/// `docs/format.md` specifies the bytes. They never change:
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
/// Moments are `2026-01-31T12:00:00.000000000Z`, always in UTC and with nine digits of a second. Local ones have no `Z`;
/// dates are `2026-01-31` and times `12:00:00.000000000`. Years are 0 to 9999. Each crate reads what the other wrote.
///
/// Integers, floats, booleans, UUIDs and moments have a fixed length, so their ciphertexts reveal nothing about the value.
/// A text's ciphertext reveals the text's length.
///
/// Not implemented for `Option`: an absent value is `NULL`. Implement it for your own type by
/// delegating to the wrapped value:
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
    /// Names the encoding in one word. Manifests of records contain it, so that a test notices a change.
    const FORMAT: &'static str;

    /// Encodes the value.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the value cannot be encoded, such as a date in year 10 000. A value that could not be decoded again
    /// is refused here, while it still exists.
    fn encode(&self) -> Result<Encoded<'_>, CodecError>;

    /// Decodes a value from authenticated bytes, which may be those of another type.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the bytes are not a value of this type.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

/// The encoding of a value: borrowed from the value, or owned and zeroised on drop.
pub struct Encoded<'a>(Bytes<'a>);

enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Owned(Zeroizing<Vec<u8>>),
}

impl<'a> Encoded<'a> {
    /// Borrows bytes of the value itself.
    #[must_use]
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Self(Bytes::Borrowed(bytes))
    }

    /// Takes bytes that were allocated for the encoding.
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

/// Why a value cannot be encoded, or bytes cannot be decoded. Shows no part of the value.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are not JSON of the type, or the type cannot be written as JSON.
    #[error("the value cannot be {direction} JSON at line {line}, column {column}: {what}")]
    Json {
        /// "written as" or "read from".
        direction: &'static str,
        /// The line, from 1; 0 if there is none.
        line: usize,
        /// The column, from 1; 0 if there is none.
        column: usize,
        /// The kind of fault. The rest of `serde_json`'s message may quote the value.
        what: &'static str,
    },
    /// The bytes do not have the length of the type's encoding.
    #[error("the encoding of {format} has {expected} bytes, not {found}; was the field's type changed?")]
    Length {
        /// The expected encoding.
        format: &'static str,
        /// The length found, in bytes.
        found: usize,
        /// The expected length, in bytes.
        expected: usize,
    },
    /// The bytes have the right length, but are not a value.
    #[error("the bytes are not a valid {format}; was the field's type changed?")]
    Malformed {
        /// The expected encoding.
        format: &'static str,
    },
    /// The value does not fit into the type, or into the encoding.
    #[error("the {format} is out of range: {what}")]
    OutOfRange {
        /// The encoding.
        format: &'static str,
        /// What is out of range.
        what: &'static str,
    },
    /// A caller's own codec refused.
    #[error("{0}")]
    Other(Cow<'static, str>),
    /// The value was not written as JSON, because it could not be read back.
    #[error("the value is not written as JSON, because it could not be read back: {what}")]
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
