//! Passwords: Argon2id with a pepper that the KMS protects.

mod workers;

use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

pub(crate) use self::workers::{NotDone, Settings, Workers};
use encx_core::aad::{Aad, AadError};
use encx_core::key::{DataKeyId, Subkey};
use encx_core::memory::{DEEP, wiping_stack};
use encx_core::password::OUTPUT_LEN;
pub(crate) use encx_core::password::SALT_LEN;
pub use encx_core::password::{PasswordError, PasswordHash, PasswordParams};

/// The longest password, in bytes. Argon2 accepts much longer ones, but people do not type them.
const MAX_PASSWORD_LEN: usize = 4096;

/// The result of comparing a password with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "ignoring the verdict accepts every password"]
pub enum PasswordVerdict {
    /// The password matches.
    Match {
        /// Whether to hash it again now, while it is known: the hash has other parameters than new ones get, an older
        /// pepper, or is one of the password's bytes before normalisation.
        needs_rehash: bool,
    },
    /// The password does not match, or the hash belongs to another row, column or context.
    NoMatch,
}

impl PasswordVerdict {
    /// Tells whether the password matches.
    #[must_use]
    pub fn is_match(self) -> bool {
        matches!(self, Self::Match { .. })
    }

    /// Tells whether the password matches and should be hashed again.
    #[must_use]
    pub fn needs_rehash(self) -> bool {
        matches!(self, Self::Match { needs_rehash: true })
    }
}

/// A password in the form that is hashed. Wiped on drop.
pub(crate) struct Prepared {
    /// The form that is hashed.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// The original, if it differs: earlier versions of encx hashed it.
    pub(crate) raw: Option<Zeroizing<Vec<u8>>>,
}

/// Prepares a password so that keyboards that write one text in different bytes give one hash.
///
/// This applies the mappings of RFC 8265 (`OpaqueString`): every Unicode space becomes U+0020, and the text is
/// composed by NFC. It refuses no characters, because the password may have been accepted before. Bytes that are
/// not UTF-8 stay unchanged.
pub(crate) fn prepare(password: &[u8]) -> Result<Prepared, PasswordError> {
    let found = password.len();
    if found == 0 {
        return Err(PasswordError::Empty);
    }
    if found > MAX_PASSWORD_LEN {
        return Err(PasswordError::TooLong { found });
    }
    let raw = Zeroizing::new(password.to_vec());
    let Ok(text) = std::str::from_utf8(password) else {
        return Ok(Prepared {
            bytes: raw,
            raw: None,
        });
    };
    let composed = || text.chars().map(space).nfc();
    // With exact capacity: a buffer that grew would leave a copy in memory that is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(composed().map(char::len_utf8).sum()));
    for c in composed() {
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    let raw = (bytes != raw).then_some(raw);
    Ok(Prepared { bytes, raw })
}

/// Replaces Unicode spaces (category Zs) by the ASCII space.
fn space(c: char) -> char {
    match c {
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        c => c,
    }
}

/// Returns the info that derives the pepper of one place: `"encx/pepper/v1" ‖ framed AAD`.
pub(crate) fn pepper_info(aad: &Aad) -> Result<Vec<u8>, AadError> {
    Ok([b"encx/pepper/v1", aad.framed()?].concat())
}

/// Argon2's output. There is no `PartialEq`: it is only compared in constant time.
pub(crate) struct Output(Zeroizing<[u8; OUTPUT_LEN]>);

impl Output {
    /// Makes the hash to store.
    pub(crate) fn into_hash(
        self,
        pepper: DataKeyId,
        params: PasswordParams,
        salt: [u8; SALT_LEN],
    ) -> PasswordHash {
        PasswordHash::new(pepper, params, salt, *self.0)
    }

    /// Compares with a stored hash, in constant time.
    pub(crate) fn is_of(&self, hash: &PasswordHash) -> bool {
        self.0.ct_eq(hash.output()).into()
    }
}

/// Computes Argon2id, version 0x13. It takes time and memory, so it runs on a blocking thread: see `Room`.
fn argon2id(
    params: PasswordParams,
    pepper: &Subkey,
    password: &[u8],
    salt: &[u8; SALT_LEN],
) -> Result<Output, PasswordError> {
    let refused = |_| PasswordError::Params {
        what: "Argon2 refuses them",
    };
    let params = argon2::Params::new(
        params.memory_kib(),
        params.passes(),
        params.lanes(),
        Some(OUTPUT_LEN),
    )
    .map_err(refused)?;
    let mut memory = Zeroizing::new(vec![argon2::Block::default(); params.block_count()]);
    let mut output = Zeroizing::new([0; OUTPUT_LEN]);
    wiping_stack::<DEEP, _>(|| {
        let argon2 = argon2::Argon2::new_with_secret(
            pepper.expose(),
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            params,
        );
        argon2?.hash_password_into_with_memory(password, salt, output.as_mut_slice(), memory.as_mut_slice())
    })
    .map_err(refused)?;
    Ok(Output(output))
}

#[cfg(test)]
mod tests;
