//! Blind indexes: keyed, truncated hashes that find encrypted values by equality.

mod field;
mod normalize;
mod value;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use self::field::{IndexField, IndexPart};
pub use self::normalize::{CustomNormalizer, Normalizer};
pub use self::value::{IndexValue, IndexValues};
use encx_core::blind_index::MAX_INDEXED_LEN;
pub use encx_core::blind_index::{BlindIndex, IndexError, IndexTerms};
use encx_core::key::{DataKeyId, Subkey};

/// A value that was normalised for one index.
pub(crate) struct Message {
    /// The info that derives the index's subkey.
    pub(crate) info: Vec<u8>,
    normalized: Zeroizing<Vec<u8>>,
    bits: u16,
}

impl Message {
    /// Tells whether it is the same value of the same index, after normalisation.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.info == other.info && self.normalized == other.normalized
    }

    /// Computes the blind index under a version of the index key, given that version's subkey for this index.
    pub(crate) fn under(&self, id: DataKeyId, subkey: &Subkey) -> BlindIndex {
        // HMAC takes a key of any length (RFC 2104), so 32 bytes cannot fail.
        #[allow(clippy::unwrap_used, reason = "HMAC has no invalid key length")]
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(subkey.expose()).unwrap();
        mac.update(&self.normalized);
        let mac: [u8; 32] = mac.finalize().into_bytes().into();
        BlindIndex::of_hash(id, &mac, self.bits)
    }
}

#[cfg(test)]
mod tests;
