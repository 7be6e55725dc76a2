//! The wire format of a ciphertext: parsing and writing, without cryptography.

use std::fmt;

use crate::causes::debug_as_text;
use crate::key::DataKeyId;

/// The longest plaintext of one ciphertext, in bytes: 64 MiB.
pub const MAX_PLAINTEXT_LEN: usize = 64 << 20;

/// The length of the part before the nonce, in bytes: version, suite, data key id.
#[doc(hidden)]
pub const HEADER_LEN: usize = 2 + DataKeyId::LEN;

/// The offset of the suite's byte.
#[doc(hidden)]
pub const SUITE_AT: usize = 1;

const VERSION: u8 = 1;
#[doc(hidden)]
pub const NONCE_LEN: usize = 24;
#[doc(hidden)]
pub const TAG_LEN: usize = 16;
#[doc(hidden)]
pub const COMMITMENT_LEN: usize = 32;

/// The algorithm that sealed a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// Suite 1, the default: XAES-256-GCM with a key commitment. 90 bytes longer than the plaintext.
    ///
    /// [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM) plus the commitment of [ePrint 2025/758]. It commits to key and
    /// nonce: a ciphertext opens under one key only, so it cannot be crafted to decrypt differently for two readers.
    ///
    /// [ePrint 2025/758]: https://eprint.iacr.org/2025/758
    KcXaes256Gcm,
    /// Suite 2, on request: [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM) without a commitment. 58 bytes
    /// longer than the plaintext.
    Xaes256Gcm,
}

impl Suite {
    /// All suites, by code.
    pub const ALL: [Self; 2] = [Self::KcXaes256Gcm, Self::Xaes256Gcm];

    /// Returns the suite's byte.
    #[inline]
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::KcXaes256Gcm => 1,
            Self::Xaes256Gcm => 2,
        }
    }

    /// Returns how many bytes longer than its plaintext a ciphertext is.
    #[inline]
    #[must_use]
    pub const fn overhead(self) -> usize {
        HEADER_LEN + self.body_overhead()
    }

    /// Returns the overhead without the header: nonce, tag and commitment, in bytes.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub const fn body_overhead(self) -> usize {
        match self {
            Self::KcXaes256Gcm => NONCE_LEN + TAG_LEN + COMMITMENT_LEN,
            Self::Xaes256Gcm => NONCE_LEN + TAG_LEN,
        }
    }
}

/// A sealed value, as stored in a column of bytes.
///
/// ```text
/// version 1 ‖ suite 1 ‖ data key id 16 ‖ nonce 24 ‖ encrypted plaintext ‖ tag 16 ‖ commitment 32 (suite 1)
/// ```
///
/// Every value of this type has a valid header and a length that its suite allows. Only the key can tell whether it opens.
///
/// With feature `serde` it serialises as standard base64 in human-readable formats and as bytes in others. With feature
/// `sqlx-0_9` it is a column type.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ciphertext {
    /// The header is parsed once for validity and again on access: carrying it along would slow the hot calls.
    bytes: Vec<u8>,
}

impl Ciphertext {
    /// Parses the bytes of a ciphertext.
    ///
    /// # Errors
    ///
    /// Any [`CiphertextError`].
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, CiphertextError> {
        let bytes = bytes.into();
        Header::of(&bytes)?;
        Ok(Self { bytes })
    }

    /// Returns the suite from the header, which is not yet authenticated.
    #[inline]
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.header().suite
    }

    /// Returns the data key's id from the header, which is not yet authenticated.
    #[inline]
    #[must_use]
    pub fn key_id(&self) -> DataKeyId {
        self.header().key_id
    }

    /// Returns the length of the plaintext, in bytes.
    #[must_use]
    pub fn plaintext_len(&self) -> usize {
        self.bytes.len() - self.suite().overhead()
    }

    /// Returns the bytes to store.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(feature = "sqlx-0_9")]
    #[cfg_attr(not(feature = "sqlx-0_9"), allow(dead_code, reason = "only columns need it"))]
    pub(crate) fn as_vec(&self) -> &Vec<u8> {
        &self.bytes
    }

    /// Returns the bytes to store, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Wraps bytes that the keyring sealed behind a [`Header`].
    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn from_sealed(bytes: Vec<u8>) -> Self {
        debug_assert!(Header::of(&bytes).is_ok(), "it begins with a header");
        Self { bytes }
    }

    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn header(&self) -> Header {
        let suite = match self.bytes[SUITE_AT] {
            2 => Suite::Xaes256Gcm,
            // A `Ciphertext` has one of these two suites.
            _ => Suite::KcXaes256Gcm,
        };
        let mut id = [0; DataKeyId::LEN];
        id.copy_from_slice(&self.bytes[2..HEADER_LEN]);
        let key_id = DataKeyId::from_known(id);
        Header { suite, key_id }
    }

    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }
}

/// The start of a ciphertext: `version 1 ‖ suite 1 ‖ data key id 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct Header {
    pub suite: Suite,
    pub key_id: DataKeyId,
}

impl Header {
    /// Reads the header of a ciphertext and checks that its suite allows its length.
    #[doc(hidden)]
    #[inline]
    pub fn of(ciphertext: &[u8]) -> Result<Self, CiphertextError> {
        let (suite, key_id) = parse_header(ciphertext)?;
        let (found, min) = (ciphertext.len(), suite.overhead());
        if found < min {
            return Err(CiphertextError::TooShort { found, min });
        }
        let max = min + MAX_PLAINTEXT_LEN;
        if found > max {
            return Err(CiphertextError::TooLong { found, max });
        }
        Ok(Self { suite, key_id })
    }

    /// Returns the data key's id if the bytes are a ciphertext.
    #[doc(hidden)]
    #[must_use]
    pub fn key_id_of(ciphertext: &[u8]) -> Option<DataKeyId> {
        Self::of(ciphertext).ok().map(|header| header.key_id)
    }

    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = VERSION;
        header[SUITE_AT] = self.suite.code();
        header[2..].copy_from_slice(&self.key_id.to_bytes());
        header
    }
}

/// Reads as much of the header as is there, so that the most helpful error comes first.
fn parse_header(bytes: &[u8]) -> Result<(Suite, DataKeyId), CiphertextError> {
    let shortest = Suite::Xaes256Gcm.overhead();
    let too_short = CiphertextError::TooShort {
        found: bytes.len(),
        min: shortest,
    };
    let (&version, rest) = bytes.split_first().ok_or(too_short.clone())?;
    if version != VERSION {
        return Err(not_ours(bytes, version));
    }
    let (&code, rest) = rest.split_first().ok_or(too_short.clone())?;
    let suite = Suite::ALL
        .into_iter()
        .find(|suite| suite.code() == code)
        .ok_or(CiphertextError::UnknownSuite { found: code })?;
    let id = rest.first_chunk().ok_or(too_short)?;
    let key_id = DataKeyId::from_bytes(*id).map_err(|_| CiphertextError::BadKeyId)?;
    Ok((suite, key_id))
}

/// Chooses the error for bytes that start with an unknown version.
#[cold]
fn not_ours(bytes: &[u8], version: u8) -> CiphertextError {
    // `bytea` in PostgreSQL's hex form: version 1 and suite 1 or 2.
    if [b"\\x0101", b"\\x0102"].iter().any(|hex| bytes.starts_with(*hex)) {
        return CiphertextError::HexText;
    }
    let is_text = |text: &str| {
        text.chars()
            .all(|letter| !letter.is_control() || letter.is_whitespace())
    };
    if std::str::from_utf8(bytes).is_ok_and(is_text) {
        return CiphertextError::NotEncrypted;
    }
    CiphertextError::UnknownVersion { found: version }
}

impl TryFrom<Vec<u8>> for Ciphertext {
    type Error = CiphertextError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, CiphertextError> {
        Self::parse(bytes)
    }
}

impl TryFrom<&[u8]> for Ciphertext {
    type Error = CiphertextError;

    fn try_from(bytes: &[u8]) -> Result<Self, CiphertextError> {
        Self::parse(bytes)
    }
}

impl From<Ciphertext> for Vec<u8> {
    fn from(ciphertext: Ciphertext) -> Self {
        ciphertext.bytes
    }
}

impl AsRef<[u8]> for Ciphertext {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ciphertext")
            .field("suite", &self.suite())
            .field("key_id", &self.key_id())
            .field("plaintext_len", &self.plaintext_len())
            .finish()
    }
}

/// Why bytes are not a ciphertext.
///
/// ```
/// use encx::{Ciphertext, CiphertextError};
///
/// let refused = Ciphertext::parse(b"123-45-6789".to_vec()).unwrap_err();
/// assert_eq!(refused, CiphertextError::NotEncrypted);
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CiphertextError {
    /// The data key's id is not a UUID of version 7.
    #[error("these bytes name no data key, so encx did not write them; is this the right column?")]
    BadKeyId,
    /// The bytes are a ciphertext in hex, as PostgreSQL prints `bytea`.
    #[error(
        "this is a ciphertext written as hex text: the column's type is text; make it `bytea` (in SQLite `BLOB`), as by \
         `ALTER TABLE .. ALTER COLUMN .. TYPE bytea USING column::bytea`"
    )]
    HexText,
    /// The bytes are text.
    #[error(
        "this is text, not a ciphertext: was the value never encrypted? Rows from before encryption are moved by an adoption, \
         as docs/adoption.md says; is this the right column?"
    )]
    NotEncrypted,
    /// There are more bytes than in the longest ciphertext.
    #[error("a ciphertext of this suite has at most {max} bytes, not {found}; large values need a stream")]
    TooLong {
        /// The given length, in bytes.
        found: usize,
        /// The greatest length, in bytes.
        max: usize,
    },
    /// There are fewer bytes than in the shortest ciphertext.
    #[error("a ciphertext of this suite has at least {min} bytes, not {found}; was it cut short?")]
    TooShort {
        /// The given length, in bytes.
        found: usize,
        /// The smallest length, in bytes.
        min: usize,
    },
    /// This version of encx does not know the suite.
    #[error("this version of encx knows no suite {found}; was it written by a later one?")]
    UnknownSuite {
        /// The suite's byte.
        found: u8,
    },
    /// The format's version is unknown.
    #[error("format version {found} is unknown: not a ciphertext, or written by a later version of encx")]
    UnknownVersion {
        /// The version's byte.
        found: u8,
    },
}

debug_as_text!(CiphertextError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(suite: Suite, plaintext_len: usize) -> Vec<u8> {
        let id = DataKeyId::generate(1, None).unwrap();
        let mut bytes = Header { suite, key_id: id }.to_bytes().to_vec();
        bytes.resize(suite.overhead() + plaintext_len, 0xaa);
        bytes
    }

    #[test]
    fn sizes_are_pinned() {
        assert_eq!(
            Suite::ALL.map(|suite| (suite.code(), suite.overhead())),
            [(1, 90), (2, 58)]
        );
        assert_eq!(HEADER_LEN, 18);
    }

    #[test]
    fn parsing_keeps_every_byte() {
        for suite in Suite::ALL {
            for len in [0, 1, 1000] {
                let bytes = sample(suite, len);
                let parsed = Ciphertext::parse(bytes.clone()).unwrap();
                assert_eq!((parsed.suite(), parsed.plaintext_len()), (suite, len));
                assert_eq!(parsed.key_id().to_bytes(), bytes[2..18]);
                assert_eq!(parsed.into_bytes(), bytes);
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for suite in Suite::ALL {
            let bytes = sample(suite, 0);
            for len in 0..bytes.len() {
                let refused = Ciphertext::parse(&bytes[..len]).unwrap_err();
                assert!(
                    matches!(refused, CiphertextError::TooShort { found, .. } if found == len),
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn unknown_headers_and_excess_are_refused() {
        let good = sample(Suite::KcXaes256Gcm, 3);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Ciphertext::parse(bytes)
        };
        for version in (0..=255).filter(|version| *version != 1) {
            assert_eq!(
                with(0, version),
                Err(CiphertextError::UnknownVersion { found: version })
            );
        }
        for suite in (0..=255).filter(|suite| !(1..=2).contains(suite)) {
            assert_eq!(
                with(1, suite),
                Err(CiphertextError::UnknownSuite { found: suite })
            );
        }
        assert_eq!(with(8, 0x40), Err(CiphertextError::BadKeyId));
        for suite in Suite::ALL {
            assert!(Ciphertext::parse(sample(suite, MAX_PLAINTEXT_LEN)).is_ok());
            let refused = Ciphertext::parse(sample(suite, MAX_PLAINTEXT_LEN + 1));
            assert!(matches!(refused, Err(CiphertextError::TooLong { .. })));
        }
    }

    #[test]
    fn text_is_told_from_a_later_version() {
        for text in ["123-45-6789", "Zoë\nMüller", "7"] {
            let refused = Ciphertext::parse(text).unwrap_err();
            assert_eq!(refused, CiphertextError::NotEncrypted);
            assert!(refused.to_string().contains("adoption") && !refused.to_string().contains(text));
        }
        let hex: String = sample(Suite::KcXaes256Gcm, 3)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            Ciphertext::parse(format!("\\x{hex}")),
            Err(CiphertextError::HexText)
        );
        for other in [&b"\x02\x01\x02"[..], b"\xff\xfe", b"\0"] {
            let found = other[0];
            assert_eq!(
                Ciphertext::parse(other),
                Err(CiphertextError::UnknownVersion { found })
            );
        }
    }

    #[test]
    fn debug_shows_no_sealed_bytes() {
        let shown = format!("{:?}", Ciphertext::parse(sample(Suite::KcXaes256Gcm, 5)).unwrap());
        assert!(
            shown.contains("plaintext_len: 5") && !shown.contains("170"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_loses_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200), fix in 0..4) {
            let mut bytes = bytes;
            // Most random bytes fail at the first byte: let three in four get further.
            if fix > 0 && bytes.len() > 10 {
                bytes[0] = 1;
                bytes[1] = 1 + bytes[1] % 2;
                bytes[8] = 0x70 | (bytes[8] & 0x0f);
                bytes[10] = 0x80 | (bytes[10] & 0x3f);
            }
            if let Ok(parsed) = Ciphertext::parse(bytes.clone()) {
                prop_assert_eq!(parsed.plaintext_len() + parsed.suite().overhead(), bytes.len());
                prop_assert_eq!(parsed.into_bytes(), bytes);
            }
        }
    }
}
