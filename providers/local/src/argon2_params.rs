//! Derives a key from a passphrase with Argon2id.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use encx_core::key::DataKey;
use zeroize::Zeroizing;

use crate::error::LocalKmsError;

pub(crate) const SALT_LEN: usize = 16;

/// The cost of one guess at the passphrase ([RFC 9106]).
///
/// Bounded below and above: a mistake or a hostile file can make guessing neither cheap nor opening endless.
///
/// [RFC 9106]: https://www.rfc-editor.org/rfc/rfc9106
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Params {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Params {
    /// The least memory, in KiB. It is for tests only: it protects no real secret.
    pub const MIN_MEMORY_KIB: u32 = 128;
    /// The most memory, in KiB: 1 GiB.
    pub const MAX_MEMORY_KIB: u32 = 1 << 20;
    /// The most passes over the memory.
    pub const MAX_PASSES: u32 = 16;
    /// The most lanes. They need no threads here: one thread computes all.
    pub const MAX_LANES: u32 = 16;

    /// Checks parameters: memory of 128 KiB to 1 GiB, 1 to 16 passes, 1 to 16 lanes.
    ///
    /// # Errors
    ///
    /// [`LocalKmsError::Argon2Params`] if one is out of bounds.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, LocalKmsError> {
        let bounds = [
            (
                "memory in KiB",
                memory_kib,
                Self::MIN_MEMORY_KIB,
                Self::MAX_MEMORY_KIB,
            ),
            ("number of passes", passes, 1, Self::MAX_PASSES),
            ("number of lanes", lanes, 1, Self::MAX_LANES),
        ];
        match bounds
            .into_iter()
            .find(|(_, found, min, max)| !(min..=max).contains(&found))
        {
            Some((parameter, found, min, max)) => Err(LocalKmsError::Argon2Params {
                parameter,
                min,
                max,
                found,
            }),
            None => Ok(Self {
                memory_kib,
                passes,
                lanes,
            }),
        }
    }

    pub(crate) fn to_array(self) -> [u32; 3] {
        [self.memory_kib, self.passes, self.lanes]
    }

    pub(crate) fn derive(self, passphrase: &str, salt: &[u8; SALT_LEN]) -> Result<DataKey, LocalKmsError> {
        if passphrase.is_empty() {
            return Err(LocalKmsError::key("the passphrase", "it is empty"));
        }
        let failed = |_| LocalKmsError::key("the passphrase", "Argon2 refused it");
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None).map_err(failed)?;
        let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
        DataKey::try_fill(|key| {
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
                passphrase.as_bytes(),
                salt,
                key,
                memory.as_mut_slice(),
            )
        })
        .map_err(failed)
    }
}

/// 64 MiB, 3 passes, 4 lanes: the recommendation of RFC 9106, section 4, if 2 GiB are too much.
impl Default for Argon2Params {
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by OpenSSL's Argon2id.
    #[test]
    fn derivation_is_argon2id() {
        let derived = |params: [u32; 3], passphrase| {
            let [memory, passes, lanes] = params;
            let params = Argon2Params::new(memory, passes, lanes).unwrap();
            let key = params.derive(passphrase, b"0123456789abcdef").unwrap();
            key.expose()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let expected = "b978e118005c3c0bdcd0617fda729eaf8be2f5fe91c0c78ea73de11b5823f5f1";
        assert_eq!(derived([128, 2, 1], "passphrase"), expected);
        let expected = "8b66ba4c15187e92069b384bf58aaa3c23bfc57c0bb013a6d270f7c5e8971a76";
        assert_eq!(derived([256, 3, 4], "pässphrase"), expected);
    }

    #[test]
    fn parameters_are_bounded_both_ways() {
        for (memory, passes, lanes) in [(128, 1, 1), (1 << 20, 16, 16)] {
            Argon2Params::new(memory, passes, lanes).unwrap();
        }
        for (memory, passes, lanes) in [
            (127, 1, 1),
            ((1 << 20) + 1, 1, 1),
            (128, 0, 1),
            (128, 17, 1),
            (128, 1, 0),
            (128, 1, 17),
        ] {
            let error = Argon2Params::new(memory, passes, lanes).unwrap_err();
            assert!(matches!(error, LocalKmsError::Argon2Params { .. }), "{error}");
        }
    }
}
