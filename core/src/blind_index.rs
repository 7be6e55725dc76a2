//! Blind indexes as columns keep them: keyed, truncated hashes that find encrypted values by equality.

use std::fmt;

use crate::causes::debug_as_text;
use crate::key::DataKeyId;

/// The longest value that is indexed, in bytes, before and after it is normalised.
pub const MAX_INDEXED_LEN: usize = 65_536;

/// The fewest different values that an index hides.
#[doc(hidden)]
pub const MIN_DISTINCT: u64 = 512;

/// The length of the tag that a stored term begins with.
const TAG_LEN: usize = 4;

/// A blind index as a column keeps it: what finds one value under one version of the index key.
///
/// ```text
/// last 4 bytes of the index key's id ‖ the top L bits of HMAC-SHA-256, in whole bytes; unused low bits are zero
/// ```
///
/// So it has 5 to 36 bytes, all of one `IndexField` equally many. It is no secret to whoever reads the database, and
/// tells them which rows have the same value; see `IndexField` for what else. In a log it would tell who was looked
/// for, so `Debug` shows the length alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlindIndex {
    /// Zero from `len` on.
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl BlindIndex {
    /// The length of the shortest, in bytes.
    pub const MIN_LEN: usize = TAG_LEN + 1;
    /// The length of the longest, in bytes.
    pub const MAX_LEN: usize = TAG_LEN + 32;

    /// Puts the tag of a version of the index key before so many bits of a hash.
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

    /// Parses what a column kept.
    ///
    /// # Errors
    ///
    /// [`IndexError::Length`] if it has not 5 to 36 bytes.
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

    /// Returns the bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Returns the bytes to keep.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    /// Returns the tag of the index key's version that it was made under: the last 4 bytes of its id.
    #[must_use]
    pub fn key_tag(&self) -> [u8; TAG_LEN] {
        [self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]]
    }

    /// Returns the tag that all terms under a version of the index key begin with: the last 4 bytes of its id.
    #[must_use]
    pub fn tag_of(id: DataKeyId) -> [u8; TAG_LEN] {
        let [.., a, b, c, d] = id.to_bytes();
        [a, b, c, d]
    }
}

/// Shows the length only: who reads a log could otherwise look up whom it is about.
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

/// What finds one value: its blind index under every version of the index key that may be used. None, if there is no key.
///
/// A value of which an older version of the normaliser made another term has that one too, so that its rows are found.
///
/// On PostgreSQL `WHERE email_index = ANY($1)` with [`as_slice`](Self::as_slice) bound; elsewhere
/// `push_in`, of feature `sqlx-0_9`. What is found are candidates: see `IndexField`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexTerms(Vec<BlindIndex>);

impl IndexTerms {
    /// Lists terms, those of older versions first.
    #[doc(hidden)]
    #[must_use]
    pub fn new(terms: Vec<BlindIndex>) -> Self {
        Self(terms)
    }

    /// Returns the terms, those of older versions first.
    #[must_use]
    pub fn as_slice(&self) -> &[BlindIndex] {
        &self.0
    }

    /// Returns the terms, those of older versions first.
    #[must_use]
    pub fn into_vec(self) -> Vec<BlindIndex> {
        self.0
    }

    /// Tells whether what a column kept is one of them.
    #[must_use]
    pub fn contains(&self, index: &BlindIndex) -> bool {
        self.0.contains(index)
    }

    /// Tells whether there is none, because there is no index key: nothing can be found then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many there are: one for each version of the index key, and more where older terms are looked for too.
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

/// Says why a value was not indexed, or an index refused. No value is shown.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There are too few different values for an index to hide anything.
    #[error(
        "among {distinct} different values a blind index hides none: whoever reads the database counts how often each \
         occurs; index no column with fewer than {}, or say `insecure_small_domain()`",
        MIN_DISTINCT
    )]
    DomainTooSmall {
        /// How many different values are expected.
        distinct: u64,
    },
    /// These bytes are no blind index.
    #[error(
        "a blind index has {} to {} bytes, not {found}; is this the right column?",
        BlindIndex::MIN_LEN,
        BlindIndex::MAX_LEN
    )]
    Length {
        /// Their length.
        found: usize,
    },
    /// The value has not the form that the normaliser knows.
    #[error("the value cannot be normalised as `{normalizer}`: {what}")]
    NotNormalized {
        /// The normaliser's name.
        normalizer: &'static str,
        /// What is wrong, without the value.
        what: &'static str,
    },
    /// The normaliser is for text, and the value is none.
    #[error("normaliser `{normalizer}` is for text, and this value is none; use `Normalizer::Exact`")]
    NotText {
        /// The normaliser's name.
        normalizer: &'static str,
    },
    /// The value has another number of parts than the index.
    #[error("the index is of {expected} columns, and the value has {found} parts")]
    Parts {
        /// How many columns the index has.
        expected: usize,
        /// How many parts the value has.
        found: usize,
    },
    /// The value is too long.
    #[error("an indexed value has at most {MAX_INDEXED_LEN} bytes, before and after it is normalised")]
    TooLong,
    /// The index has so many bits that every value has a term of its own.
    #[error(
        "with {bits} bits each of {distinct} different values has a term of its own; take at most {most}, as `bits_for` \
         says, or do without `expecting`, if it may be seen which rows are equal"
    )]
    TooManyBits {
        /// The index's bits.
        bits: u16,
        /// How many different values are expected.
        distinct: u64,
        /// The most bits at which two values share a term, on average.
        most: u16,
    },
}

debug_as_text!(IndexError);
