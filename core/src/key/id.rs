//! The ids of data keys, and their order.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::random::{RandomError, fill_from_os};
use crate::causes::debug_as_text;

/// Names one version of a data key: a UUIDv7 ([RFC 9562]).
///
/// Ids only grow within a scope, so their order is the order of the versions.
///
/// [RFC 9562]: https://www.rfc-editor.org/rfc/rfc9562#section-5.7
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(8))]
pub struct DataKeyId([u8; 16]);

impl DataKeyId {
    /// The length of an id, in bytes.
    pub const LEN: usize = 16;

    /// Parses the 16 bytes of an id.
    ///
    /// # Errors
    ///
    /// [`DataKeyIdError`] if the bytes are not a UUID of version 7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, DataKeyIdError> {
        if bytes[6] >> 4 == 7 && bytes[8] >> 6 == 0b10 {
            Ok(Self(bytes))
        } else {
            Err(DataKeyIdError)
        }
    }

    /// Takes bytes that are known to be an id.
    pub(crate) fn from_known(bytes: [u8; 16]) -> Self {
        debug_assert!(Self::from_bytes(bytes).is_ok());
        Self(bytes)
    }

    /// Returns the 16 bytes of the id, big-endian as in RFC 9562.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns the milliseconds since 1970 at which the id was made, by its maker's clock.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(millis)
    }

    /// Generates an id greater than `after`, even if the clock stood still or went back.
    ///
    /// `unix_millis` is the wall clock's time. An id holds 48 bits of it, which suffice until the year 10889.
    ///
    /// # Errors
    ///
    /// [`NewIdError::Exhausted`] if no id is greater than `after`; [`NewIdError::Random`] if the operating system
    /// returns no randomness.
    pub fn generate(unix_millis: u64, after: Option<Self>) -> Result<Self, NewIdError> {
        let mut random = [0; 10];
        fill_from_os(&mut random)?;
        let at = |millis: u64| {
            let uuid = uuid::Builder::from_unix_timestamp_millis(millis.min(MAX_ID_MILLIS), &random);
            Self(*uuid.as_uuid().as_bytes())
        };
        let fresh = at(unix_millis);
        match after {
            Some(after) if fresh <= after => {
                // The last id decides, not the clock: an id one millisecond later is greater for any random part.
                let millis = after.unix_millis() + 1;
                if millis > MAX_ID_MILLIS {
                    Err(NewIdError::Exhausted { after })
                } else {
                    Ok(at(millis))
                }
            }
            _ => Ok(fresh),
        }
    }
}

/// The greatest time in an id: 48 bits of milliseconds.
const MAX_ID_MILLIS: u64 = (1 << 48) - 1;

impl From<DataKeyId> for Uuid {
    fn from(id: DataKeyId) -> Self {
        Self::from_bytes(id.0)
    }
}

impl TryFrom<Uuid> for DataKeyId {
    type Error = DataKeyIdError;

    fn try_from(uuid: Uuid) -> Result<Self, DataKeyIdError> {
        Self::from_bytes(uuid.into_bytes())
    }
}

impl FromStr for DataKeyId {
    type Err = DataKeyIdError;

    fn from_str(text: &str) -> Result<Self, DataKeyIdError> {
        Uuid::parse_str(text)
            .map_err(|_| DataKeyIdError)
            .and_then(Self::try_from)
    }
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from(*self).fmt(f)
    }
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyId({self})")
    }
}

/// Why no data key id could be generated.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NewIdError {
    /// The greatest possible id exists already. A row was written with the last possible time.
    #[error(
        "no data key id is greater than {after}, whose time is the last that an id can hold, so this encryption context can get \
         no new version; encx did not make that id: find the row and who wrote it, and restore the key store from a backup"
    )]
    Exhausted {
        /// The greatest existing id.
        after: DataKeyId,
    },
    /// The operating system returned no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

debug_as_text!(NewIdError);

/// The bytes or the text are not a data key id.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("a data key id is a UUID of version 7 (RFC 9562), and this is not one")]
pub struct DataKeyIdError;

debug_as_text!(DataKeyIdError);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> DataKeyId {
        DataKeyId::generate(millis, None).unwrap()
    }

    #[test]
    fn ids_grow_even_if_the_clock_goes_back() {
        let mut last = id(5000);
        assert_eq!(last.unix_millis(), 5000);
        for millis in [5000, 4000, 5000, 0, 5001] {
            let next = DataKeyId::generate(millis, Some(last)).unwrap();
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn after_the_greatest_id_there_is_none() {
        let mut bytes = [0xff; 16];
        (bytes[6], bytes[8]) = (0x7f, 0xbf);
        let greatest = DataKeyId::from_bytes(bytes).unwrap();
        let refused = DataKeyId::generate(1, Some(greatest)).unwrap_err();
        assert_eq!(refused, NewIdError::Exhausted { after: greatest });
        assert!(DataKeyId::generate(u64::MAX, None).unwrap() <= greatest);
    }

    #[test]
    fn ids_are_uuids_of_version_7() {
        let made = id(1_700_000_000_000);
        assert_eq!(made.to_string().parse(), Ok(made));
        assert_eq!(DataKeyId::try_from(Uuid::from(made)), Ok(made));
        assert_eq!(Uuid::from(made).get_version_num(), 7);
        assert_eq!(DataKeyId::from_bytes([0; 16]), Err(DataKeyIdError));
        assert_eq!(
            "67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<DataKeyId>(),
            Err(DataKeyIdError)
        );
    }
}
