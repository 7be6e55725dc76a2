//! Values that can be indexed, and the framing of their parts.

use std::borrow::Cow;
use std::sync::Arc;

use encx_core::aad::{TYPE_BYTES, TYPE_INTEGER, TYPE_TEXT, TYPE_UUID, for_tuples};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use super::{IndexError, MAX_INDEXED_LEN, Normalizer};

/// A value that a blind index finds: text, bytes, an integer of at least 16 bits, a UUID, or a tuple of two to eight of
/// these for a compound index.
///
/// Implemented for `str`, `String`, `[u8]`, `Vec<u8>`, `[u8; N]`, the integers of 16 to 128 bits, [`Uuid`], references to
/// them, and `Box`, `Arc`, `Cow` and `Zeroizing` of them; with feature `chrono` for `NaiveDate` and with `time` for
/// `Date`, which are indexed as the text `1815-12-10`. Not implemented for `bool` and 8-bit integers, which have too
/// few values to hide; for floats, which have several forms of one number; or for `Option`: NULL is not indexed.
/// Implement it for your own type by delegating to the wrapped value:
///
/// ```
/// use encx::search::{IndexValue, IndexValues};
///
/// struct CustomerNumber(String);
///
/// impl IndexValue for CustomerNumber {
///     fn append_to(&self, values: IndexValues) -> IndexValues {
///         self.0.append_to(values)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be indexed blindly",
    label = "no value of a blind index",
    note = "text, bytes, integers of 16 bits and more, UUIDs, dates of feature `chrono` or `time`, and tuples of them can; `bool` and 8-bit integers have too \
            few values to hide, floats have several forms of one number, and an `Option` is indexed only where it is `Some`"
)]
pub trait IndexValue {
    /// Appends the parts of the value.
    #[must_use]
    fn append_to(&self, values: IndexValues) -> IndexValues;
}

/// Collects the parts of an indexed value; see [`IndexValue`]. Wiped on drop.
pub struct IndexValues(Parts);

/// The parts of a value as appended.
#[derive(Default)]
pub(super) struct Parts {
    parts: Vec<Part>,
    too_long: bool,
}

struct Part {
    kind: u8,
    bytes: Zeroizing<Vec<u8>>,
}

impl Parts {
    pub(super) fn of(value: &(impl IndexValue + ?Sized)) -> Result<Self, IndexError> {
        let IndexValues(parts) = value.append_to(IndexValues(Self::default()));
        if parts.too_long {
            return Err(IndexError::TooLong);
        }
        Ok(parts)
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Normalises each part with its own normaliser.
    pub(super) fn normalize(
        &self,
        normalizers: impl Iterator<Item = Normalizer>,
    ) -> Result<Normalized, IndexError> {
        let mut parts = Vec::with_capacity(self.parts.len());
        let mut versions = Vec::with_capacity(self.parts.len());
        for (part, normalizer) in self.parts.iter().zip(normalizers) {
            if normalizer.is_exact() {
                versions.push(normalizer.version());
                parts.push((part.kind, part.bytes.clone()));
            } else {
                let normalized = normalizer.apply(part.text(normalizer)?)?;
                versions.push(normalizer.version_for(&normalized));
                parts.push((part.kind, bounded(&normalized)?));
            }
        }
        Ok(Normalized {
            versions,
            bytes: joined(parts),
        })
    }

    /// Returns the forms that version 1 of the normalisers may have made of values that now equal this one.
    pub(super) fn normalize_older(
        &self,
        normalizers: impl Iterator<Item = Normalizer>,
    ) -> Result<Vec<Normalized>, IndexError> {
        let mut spellings: Vec<Vec<Zeroizing<Vec<u8>>>> = Vec::with_capacity(self.parts.len());
        let mut versions = Vec::with_capacity(self.parts.len());
        for (part, normalizer) in self.parts.iter().zip(normalizers) {
            if normalizer.is_exact() {
                versions.push(normalizer.version());
                spellings.push(vec![part.bytes.clone()]);
                continue;
            }
            let text = part.text(normalizer)?;
            let older = normalizer.apply_older(text)?;
            if older.is_empty() {
                let normalized = normalizer.apply(text)?;
                versions.push(normalizer.version_for(&normalized));
                spellings.push(vec![bounded(&normalized)?]);
            } else {
                versions.push(1);
                spellings.push(older.iter().map(|text| bounded(text)).collect::<Result<_, _>>()?);
            }
        }
        // If several parts have several spellings, they are paired by position: people write a whole value in one way.
        let ways = spellings.iter().map(Vec::len).max().unwrap_or(0);
        let of = |way: usize| {
            let parts = spellings.iter().zip(&self.parts);
            let parts = parts.filter_map(|(spellings, part)| {
                let spelling = spellings.get(way).or(spellings.last())?;
                Some((part.kind, spelling.clone()))
            });
            Normalized {
                versions: versions.clone(),
                bytes: joined(parts.collect()),
            }
        };
        let mut older: Vec<Normalized> = Vec::with_capacity(ways);
        for normalized in (0..ways).map(of) {
            if older.iter().all(|known| known.bytes != normalized.bytes) {
                older.push(normalized);
            }
        }
        Ok(older)
    }
}

/// A value in the indexed form.
pub(super) struct Normalized {
    /// The version of each part's normaliser.
    pub(super) versions: Vec<u32>,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Part {
    fn text(&self, normalizer: Normalizer) -> Result<&str, IndexError> {
        let not_text = || IndexError::NotText {
            normalizer: normalizer.name(),
        };
        if self.kind != TYPE_TEXT {
            return Err(not_text());
        }
        std::str::from_utf8(&self.bytes).map_err(|_| not_text())
    }
}

fn bounded(normalized: &str) -> Result<Zeroizing<Vec<u8>>, IndexError> {
    if normalized.len() > MAX_INDEXED_LEN {
        return Err(IndexError::TooLong);
    }
    Ok(Zeroizing::new(normalized.as_bytes().to_vec()))
}

/// Joins parts: returns the bytes of a single part, and a frame of several.
fn joined(mut parts: Vec<(u8, Zeroizing<Vec<u8>>)>) -> Zeroizing<Vec<u8>> {
    if let [(_, bytes)] = parts.as_mut_slice() {
        return std::mem::take(bytes);
    }
    let parts: Vec<_> = parts.iter().map(|(kind, bytes)| (*kind, &**bytes)).collect();
    // Reserve once: a vector that grew would leave plaintext behind in the freed memory.
    let len = parts.iter().map(|(_, bytes)| 5 + bytes.len()).sum::<usize>();
    let mut framed = Zeroizing::new(Vec::with_capacity(3 + len));
    frame(KIND_VALUES, &parts, &mut framed);
    framed
}

/// The kind of the frame around the parts of a value.
const KIND_VALUES: u8 = 4;

/// Appends `u8 kind ‖ u16 count ‖ {u8 type ‖ u32 len ‖ bytes}*`. Counts and lengths are bounded far below these types.
pub(super) fn frame(kind: u8, parts: &[(u8, impl AsRef<[u8]>)], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&u16::try_from(parts.len()).unwrap_or(u16::MAX).to_be_bytes());
    for (kind, bytes) in parts {
        let bytes = bytes.as_ref();
        out.push(*kind);
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(bytes);
    }
}

impl IndexValues {
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self(Parts::default())
    }

    /// Appends a text.
    #[must_use]
    pub fn text(self, text: impl AsRef<str>) -> Self {
        self.part(TYPE_TEXT, text.as_ref().as_bytes())
    }

    /// Appends bytes.
    #[must_use]
    pub fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        self.part(TYPE_BYTES, bytes.as_ref())
    }

    /// Appends an integer. Its width does not matter.
    #[must_use]
    pub fn integer(self, integer: i128) -> Self {
        self.part(TYPE_INTEGER, &integer.to_be_bytes())
    }

    /// Appends a UUID.
    #[must_use]
    pub fn uuid(self, uuid: Uuid) -> Self {
        self.part(TYPE_UUID, uuid.as_bytes())
    }

    fn part(mut self, kind: u8, bytes: &[u8]) -> Self {
        let Parts { parts, too_long } = &mut self.0;
        // Parts beyond any index's number are still counted, so that the error can say how many there are.
        if bytes.len() > MAX_INDEXED_LEN || parts.len() > usize::from(u8::MAX) {
            *too_long = true;
        } else {
            let bytes = Zeroizing::new(bytes.to_vec());
            parts.push(Part { kind, bytes });
        }
        self
    }
}

impl std::fmt::Debug for IndexValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexValues([{} parts])", self.0.len())
    }
}

impl<T: IndexValue + ?Sized> IndexValue for &T {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        (**self).append_to(values)
    }
}

macro_rules! forwarded_values {
    ($($wrapped:ty),+) => {$(
        impl<T: IndexValue + ?Sized> IndexValue for $wrapped {
            fn append_to(&self, values: IndexValues) -> IndexValues {
                (**self).append_to(values)
            }
        }
    )+};
}

forwarded_values!(Box<T>, Arc<T>);

impl<T: IndexValue + ToOwned + ?Sized> IndexValue for Cow<'_, T> {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        (**self).append_to(values)
    }
}

impl<T: IndexValue + Zeroize> IndexValue for Zeroizing<T> {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        (**self).append_to(values)
    }
}

#[cfg(feature = "chrono")]
impl IndexValue for chrono::NaiveDate {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        append_date(self, values)
    }
}

#[cfg(feature = "time")]
impl IndexValue for time::Date {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        append_date(self, values)
    }
}

/// Appends a date as both crates print it: `1815-12-10`.
#[cfg(any(feature = "chrono", feature = "time"))]
fn append_date(date: &impl std::fmt::Display, values: IndexValues) -> IndexValues {
    // Capacity for the longest date, so that growing leaves nothing behind.
    let mut text = Zeroizing::new(String::with_capacity(16));
    // Writing to a `String` cannot fail.
    let _ = std::fmt::Write::write_fmt(&mut *text, format_args!("{date}"));
    values.text(text.as_str())
}

macro_rules! integer_values {
    ($($integer:ty),+) => {$(
        impl IndexValue for $integer {
            fn append_to(&self, values: IndexValues) -> IndexValues {
                values.integer(i128::from(*self))
            }
        }
    )+};
}

integer_values!(i16, i32, i64, i128, u16, u32, u64);

impl IndexValue for Uuid {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        values.uuid(*self)
    }
}

impl IndexValue for str {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        values.text(self)
    }
}

impl IndexValue for String {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        values.text(self)
    }
}

impl IndexValue for [u8] {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        values.bytes(self)
    }
}

impl IndexValue for Vec<u8> {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        values.bytes(self)
    }
}

impl<const N: usize> IndexValue for [u8; N] {
    fn append_to(&self, values: IndexValues) -> IndexValues {
        values.bytes(self)
    }
}

for_tuples! {
    IndexValues, IndexValue:
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
}
