//! Blind indexes as stored in columns: keyed, truncated hashes that find encrypted values by equality.

use std::fmt;

use crate::causes::debug_as_text;
use crate::key::DataKeyId;

/// The greatest length of an indexed value, in bytes, before and after normalisation.
pub const MAX_INDEXED_LEN: usize = 65_536;

/// The smallest number of distinct values for which an index hides anything.
#[doc(hidden)]
pub const MIN_DISTINCT: u64 = 512;

/// The length of the tag at the start of a stored term.
const TAG_LEN: usize = 4;

/// A blind index as stored in a column: finds one value under one version of the index key.
///
/// ```text
/// last 4 bytes of the index key's id ‖ the top L bits of HMAC-SHA-256, in whole bytes; unused low bits are zero
/// ```
///
/// It has 5 to 36 bytes, the same number for all terms of one `IndexField`. A reader of the database sees which rows have
/// the same value; see `IndexField` for what else leaks. `Debug` shows only the length, so that a log does not reveal
/// which value was searched for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlindIndex {
    /// Zero from `len` on.
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl BlindIndex {
    /// The smallest length, in bytes.
    pub const MIN_LEN: usize = TAG_LEN + 1;
    /// The greatest length, in bytes.
    pub const MAX_LEN: usize = TAG_LEN + 32;

    /// Joins the tag of an index key's version and the first `bits` bits of a hash.
    #[doc(hidden)]
    #[must_use]
    pub fn of_hash(id: DataKeyId, hash: &[u8; 32], bits: u16) -> Self {
        let whole = usize::from(bits.div_ceil(8)).min(hash.len());
        let mut bytes = [0; Self::MAX_LEN];
        let (tag, kept) = bytes.split_at_mut(TAG_LEN);
        tag.copy_from_slice(&Self::tag_of(id));
        kept[..whole].copy_from_slice(&hash[..whole]);
        let unused = (8 - bits % 8) % 8;
        if let Some(last) = kept[..whole].last_mut() {
            *last &= 0xff << unused;
        }
        let len = TAG_LEN + whole;
        Self {
            bytes,
            // At most 36.
            len: u8::try_from(len).unwrap_or(u8::MAX),
        }
    }

    /// Parses the bytes from a column.
    ///
    /// # Errors
    ///
    /// [`IndexError::Length`] unless there are 5 to 36 bytes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, IndexError> {
        let bytes = bytes.as_ref();
        let found = bytes.len();
        let len = u8::try_from(found).map_err(|_| IndexError::Length { found })?;
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&found) {
            return Err(IndexError::Length { found });
        }
        let mut parsed = Self {
            bytes: [0; Self::MAX_LEN],
            len,
        };
        parsed.bytes[..found].copy_from_slice(bytes);
        Ok(parsed)
    }

    /// Returns the bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Returns the bytes to store.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    /// Returns the tag of the version of the index key that made this term: the last 4 bytes of the key's id.
    #[must_use]
    pub fn key_tag(&self) -> [u8; TAG_LEN] {
        [self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]]
    }

    /// Returns the tag of all terms under a version of the index key: the last 4 bytes of its id.
    #[must_use]
    pub fn tag_of(id: DataKeyId) -> [u8; TAG_LEN] {
        let [.., a, b, c, d] = id.to_bytes();
        [a, b, c, d]
    }
}

/// Shows only the length, so that a log does not reveal which value was searched for.
impl fmt::Debug for BlindIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlindIndex([{} bytes])", self.len)
    }
}

impl AsRef<[u8]> for BlindIndex {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<BlindIndex> for Vec<u8> {
    fn from(index: BlindIndex) -> Self {
        index.to_vec()
    }
}

impl TryFrom<&[u8]> for BlindIndex {
    type Error = IndexError;

    fn try_from(bytes: &[u8]) -> Result<Self, IndexError> {
        Self::parse(bytes)
    }
}

impl TryFrom<Vec<u8>> for BlindIndex {
    type Error = IndexError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, IndexError> {
        Self::parse(bytes)
    }
}

/// The terms that find one value: its blind index under every usable version of the index key. Empty if there is no key.
///
/// If an older version of the normaliser made a different term for the value, that term is included, so
/// that its rows are found.
///
/// On PostgreSQL use `WHERE email_index = ANY($1)` and bind [`as_slice`](Self::as_slice); elsewhere use `push_in`, of
/// feature `sqlx-0_9`. Matches are candidates: see `IndexField`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexTerms(Vec<BlindIndex>);

impl IndexTerms {
    /// Collects terms, oldest version first.
    #[doc(hidden)]
    #[must_use]
    pub fn new(terms: Vec<BlindIndex>) -> Self {
        Self(terms)
    }

    /// Returns the terms, oldest version first.
    #[must_use]
    pub fn as_slice(&self) -> &[BlindIndex] {
        &self.0
    }

    /// Returns the terms, oldest version first.
    #[must_use]
    pub fn into_vec(self) -> Vec<BlindIndex> {
        self.0
    }

    /// Tells whether a column's value is one of the terms.
    #[must_use]
    pub fn contains(&self, index: &BlindIndex) -> bool {
        self.0.contains(index)
    }

    /// Tells whether there are no terms because there is no index key. A search then finds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of terms: one for each version of the index key, plus those of older normalisers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Iterates over the terms.
    pub fn iter(&self) -> std::slice::Iter<'_, BlindIndex> {
        self.0.iter()
    }
}

impl AsRef<[BlindIndex]> for IndexTerms {
    fn as_ref(&self) -> &[BlindIndex] {
        &self.0
    }
}

impl IntoIterator for IndexTerms {
    type Item = BlindIndex;
    type IntoIter = std::vec::IntoIter<BlindIndex>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a IndexTerms {
    type Item = &'a BlindIndex;
    type IntoIter = std::slice::Iter<'a, BlindIndex>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Why a value was not indexed, or an index was refused. Shows no value.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There are too few distinct values for an index to hide anything.
    #[error(
        "a blind index hides none of {distinct} distinct values: an attacker with the database counts how often each \
         occurs; index no column with fewer than {}, or call `insecure_small_domain()`",
        MIN_DISTINCT
    )]
    DomainTooSmall {
        /// The expected number of distinct values.
        distinct: u64,
    },
    /// The bytes are not a blind index.
    #[error(
        "a blind index has {} to {} bytes, not {found}; is this the right column?",
        BlindIndex::MIN_LEN,
        BlindIndex::MAX_LEN
    )]
    Length {
        /// Their length.
        found: usize,
    },
    /// The value does not have the form that the normaliser expects.
    #[error("the value cannot be normalised as `{normalizer}`: {what}")]
    NotNormalized {
        /// The normaliser's name.
        normalizer: &'static str,
        /// What is wrong, without the value.
        what: &'static str,
    },
    /// The normaliser takes only text, and the value is not text.
    #[error("normaliser `{normalizer}` takes only text, and this value is not text; use `Normalizer::Exact`")]
    NotText {
        /// The normaliser's name.
        normalizer: &'static str,
    },
    /// The value and the index differ in their number of parts.
    #[error("the index has {expected} columns, but the value has {found} parts")]
    Parts {
        /// How many columns the index has.
        expected: usize,
        /// How many parts the value has.
        found: usize,
    },
    /// The value is too long.
    #[error("an indexed value has at most {MAX_INDEXED_LEN} bytes, before and after it is normalised")]
    TooLong,
    /// The index has so many bits that every value gets its own term.
    #[error(
        "with {bits} bits each of {distinct} distinct values has its own term; use at most {most}, as `bits_for` \
         says, or omit `expecting` if equal rows may be visible"
    )]
    TooManyBits {
        /// The index's bits.
        bits: u16,
        /// The expected number of distinct values.
        distinct: u64,
        /// The most bits at which two values still share a term, on average.
        most: u16,
    },
}

debug_as_text!(IndexError);
