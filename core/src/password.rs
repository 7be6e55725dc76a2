//! The stored form of a password's hash, and its parameters.

use std::fmt;
use std::str::FromStr;

use password_hash::PasswordHash as Phc;
use subtle::ConstantTimeEq;

use crate::causes::debug_as_text;
use crate::key::DataKeyId;

/// The length of the salt, in bytes.
#[doc(hidden)]
pub const SALT_LEN: usize = 16;
/// The length of Argon2's output, in bytes.
#[doc(hidden)]
pub const OUTPUT_LEN: usize = 32;

/// The hash of a password, as stored in a column of text.
///
/// ```text
/// $encx$v=1,k=<id of the pepper key>$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>
/// ```
///
/// The rest after the pepper's id is a PHC string with a salt of 16 bytes and a hash of 32. At most 148 characters. Every
/// value of this type has this form and computable parameters; only `Crypto::verify_password` can tell whether a password
/// matches. Two hashes are equal if their texts are, compared in constant time. `Debug` shows neither salt nor hash.
#[derive(Clone)]
pub struct PasswordHash {
    text: Box<str>,
    key_id: DataKeyId,
    params: PasswordParams,
    salt: [u8; SALT_LEN],
    output: [u8; OUTPUT_LEN],
}

impl PasswordHash {
    /// The greatest length, in characters.
    pub const MAX_LEN: usize = 148;

    /// Parses the text from a column. Its parameters cause no allocation.
    ///
    /// # Errors
    ///
    /// [`PasswordError::NotAHash`] and [`PasswordError::UnknownVersion`] if the text does not have this form,
    /// [`PasswordError::Params`] if its parameters are out of bounds.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, PasswordError> {
        let text = text.as_ref();
        let not_a_hash = |what| PasswordError::NotAHash { what };
        let rest = text
            .strip_prefix("$encx$v=")
            .ok_or_else(|| not_a_hash("it does not begin with `$encx$v=`"))?;
        let Some(rest) = rest.strip_prefix("1,k=") else {
            return Err(PasswordError::UnknownVersion);
        };
        if text.len() > Self::MAX_LEN {
            return Err(not_a_hash("it is too long"));
        }
        let (id, phc) = rest
            .split_at_checked(uuid::fmt::Hyphenated::LENGTH)
            .ok_or_else(|| not_a_hash("it names no pepper key"))?;
        let key_id = id
            .parse::<DataKeyId>()
            .map_err(|_| not_a_hash("it names no pepper key"))?;
        let parsed = Phc::new(phc).map_err(|_| not_a_hash("the text after the key is not a PHC string"))?;
        if parsed.algorithm.as_str() != "argon2id" || parsed.version != Some(VERSION) {
            return Err(not_a_hash("the algorithm is not Argon2id, version 19"));
        }
        let cost = |name| parsed.params.get_decimal(name);
        let (Some(memory), Some(passes), Some(lanes)) = (cost("m"), cost("t"), cost("p")) else {
            return Err(not_a_hash("its parameters are not `m`, `t` and `p`"));
        };
        let params = PasswordParams::computable(memory, passes, lanes)?;
        let mut salt = [0; SALT_LEN];
        let decoded = parsed.salt.and_then(|text| {
            let decoded = text.decode_b64(&mut salt).ok()?;
            (decoded.len() == SALT_LEN).then_some(())
        });
        decoded.ok_or_else(|| not_a_hash("it has no salt of 16 bytes"))?;
        let output = parsed.hash.and_then(|output| output.as_bytes().try_into().ok());
        let output = output.ok_or_else(|| not_a_hash("it has no hash of 32 bytes"))?;
        let hash = Self::new(key_id, params, salt, output);
        // Each hash has exactly one text: no extra parameters, no other order, no other spelling.
        if *hash.text != *text {
            return Err(not_a_hash("it is not in the form that encx writes"));
        }
        Ok(hash)
    }

    #[doc(hidden)]
    #[must_use]
    pub fn new(
        key_id: DataKeyId,
        params: PasswordParams,
        salt: [u8; SALT_LEN],
        output: [u8; OUTPUT_LEN],
    ) -> Self {
        let text = format!(
            "$encx$v=1,k={key_id}$argon2id$v={VERSION}$m={},t={},p={}${}${}",
            params.memory_kib,
            params.passes,
            params.lanes,
            Base64(&salt),
            Base64(&output),
        );
        Self {
            text: text.into(),
            key_id,
            params,
            salt,
            output,
        }
    }

    /// Returns the text to store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the id of the pepper key, which is not yet authenticated.
    #[must_use]
    pub fn key_id(&self) -> DataKeyId {
        self.key_id
    }

    /// Returns the parameters, which are not yet authenticated.
    #[must_use]
    pub fn params(&self) -> PasswordParams {
        self.params
    }

    #[doc(hidden)]
    #[must_use]
    pub fn salt(&self) -> &[u8; SALT_LEN] {
        &self.salt
    }

    #[doc(hidden)]
    #[must_use]
    pub fn output(&self) -> &[u8; OUTPUT_LEN] {
        &self.output
    }
}

impl PartialEq for PasswordHash {
    fn eq(&self, other: &Self) -> bool {
        self.text.as_bytes().ct_eq(other.text.as_bytes()).into()
    }
}

impl Eq for PasswordHash {}

/// Argon2's version 0x13.
const VERSION: u32 = 19;

/// Prints bytes in standard base64 without padding, as in PHC strings.
struct Base64<'a>(&'a [u8]);

impl fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for chunk in self.0.chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(group);
            for digit in 0..=chunk.len() {
                let index = (bits >> (18 - 6 * digit)) & 63;
                write!(f, "{}", char::from(ALPHABET[index as usize]))?;
            }
        }
        Ok(())
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordError;

    fn from_str(text: &str) -> Result<Self, PasswordError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = PasswordError;

    fn try_from(text: String) -> Result<Self, PasswordError> {
        Self::parse(text)
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.text.into()
    }
}

impl AsRef<str> for PasswordHash {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash")
            .field("key_id", &self.key_id)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// The cost of one guess at a password: the parameters of Argon2id ([RFC 9106]).
///
/// Default: 19 MiB, 2 passes, 1 lane, as required by OWASP's
/// [Password Storage Cheat Sheet](https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html).
///
/// [RFC 9106]: https://www.rfc-editor.org/rfc/rfc9106
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PasswordParams {
    /// The least memory, in KiB: 7 MiB, which requires 5 passes.
    pub const MIN_MEMORY_KIB: u32 = 7 * 1024;
    /// The most memory, in KiB: 256 MiB.
    pub const MAX_MEMORY_KIB: u32 = 256 * 1024;
    /// The most passes over the memory.
    pub const MAX_PASSES: u32 = 16;
    /// The most lanes. One thread computes them all.
    pub const MAX_LANES: u32 = 16;
    /// The least product of memory, in KiB, and passes: that of OWASP's weakest choice, 7 MiB and 5 passes.
    pub const MIN_WORK: u32 = 5 * Self::MIN_MEMORY_KIB;
    /// The greatest product of memory, in KiB, and passes: about one second on one core.
    pub const MAX_WORK: u32 = 1024 * 1024;

    /// Checks parameters for new hashes: memory in KiB, passes, and lanes.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Params`] if they are weaker than OWASP's weakest choice, or too expensive for a
    /// server: see the constants.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, PasswordError> {
        let params = Self::computable(memory_kib, passes, lanes)?;
        if memory_kib < Self::MIN_MEMORY_KIB || params.work() < u64::from(Self::MIN_WORK) {
            return Err(PasswordError::Params {
                what: "they are weaker than 7 MiB and 5 passes, or as much work with more memory",
            });
        }
        Ok(params)
    }

    /// Takes parameters without a lower bound, for tests that hash many passwords.
    ///
    /// <div class="warning">
    ///
    /// An attacker who has such hashes and the pepper guesses the passwords quickly.
    ///
    /// </div>
    ///
    /// # Errors
    ///
    /// [`PasswordError::Params`] if Argon2 does not accept them, or they are too expensive for a server.
    pub fn insecure_new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, PasswordError> {
        Self::computable(memory_kib, passes, lanes)
    }

    /// Checks a hash's parameters before anything is computed or allocated.
    fn computable(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, PasswordError> {
        let refuse = |what| Err(PasswordError::Params { what });
        if !(1..=Self::MAX_LANES).contains(&lanes) {
            return refuse("Argon2 gets 1 to 16 lanes here");
        }
        if !(8 * lanes..=Self::MAX_MEMORY_KIB).contains(&memory_kib) {
            return refuse("the memory must be from 8 KiB for each lane to 256 MiB");
        }
        if !(1..=Self::MAX_PASSES).contains(&passes) {
            return refuse("Argon2 makes 1 to 16 passes here");
        }
        let params = Self {
            memory_kib,
            passes,
            lanes,
        };
        if params.work() > u64::from(Self::MAX_WORK) {
            return refuse("memory times passes is more than 1 GiB");
        }
        Ok(params)
    }

    fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    /// Returns the memory, in KiB.
    #[must_use]
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Returns the number of passes over the memory.
    #[must_use]
    pub const fn passes(self) -> u32 {
        self.passes
    }

    /// Returns the number of lanes.
    #[must_use]
    pub const fn lanes(self) -> u32 {
        self.lanes
    }
}

/// 19 MiB, 2 passes, 1 lane.
impl Default for PasswordParams {
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            passes: 2,
            lanes: 1,
        }
    }
}

/// Why a password was not hashed, or stored text is not a hash. Shows neither.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The password is empty.
    #[error("the password is empty; ask for one of at least 8 characters")]
    Empty,
    /// The text is not a hash that encx wrote.
    #[error("this is not a password hash of encx: {what}; is this the right column?")]
    NotAHash {
        /// What is wrong, without the hash.
        what: &'static str,
    },
    /// The parameters are out of bounds.
    #[error("these parameters of Argon2id are out of bounds: {what}")]
    Params {
        /// Which parameter, and its bounds.
        what: &'static str,
    },
    /// The password is too long.
    #[error("a password has at most 4096 bytes, not {found}")]
    TooLong {
        /// Its length, in bytes.
        found: usize,
    },
    /// The version of the format is unknown.
    #[error("this version of a password hash is unknown; was it written by a later version of encx?")]
    UnknownVersion,
}

debug_as_text!(PasswordError);
