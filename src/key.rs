//! Data keys and what names them: ids, versions, KEKs, usages, states, scopes and wraps.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::context::EncryptionContext;

/// The length of a data key, in bytes.
pub const DATA_KEY_LEN: usize = 32;

/// The most wraps that one data key may carry.
pub const MAX_WRAPS: usize = 8;

/// Holds a 256-bit data key (DEK), unwrapped.
///
/// It lives on the heap from the first byte to the last and is zeroised when dropped. It has no `Clone`,
/// no `Serialize`, and prints as `DataKey([REDACTED])`.
///
/// <div class="warning">
///
/// Whoever holds these bytes reads everything that was encrypted under them. Providers need this type;
/// services do not.
///
/// </div>
pub struct DataKey(Box<[u8; DATA_KEY_LEN]>);

impl DataKey {
    /// Draws a new data key from the operating system's random number generator.
    ///
    /// # Errors
    ///
    /// [`RandomError`] if the operating system gives no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        let mut key = Self(Box::new([0; DATA_KEY_LEN]));
        fill_from_os(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// Copies a data key out of a buffer of exactly 32 bytes. The caller zeroises the buffer.
    ///
    /// # Errors
    ///
    /// [`DataKeyLenError`] if the buffer has any other length.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, DataKeyLenError> {
        let mut key = Self(Box::new([0; DATA_KEY_LEN]));
        if bytes.len() != DATA_KEY_LEN {
            return Err(DataKeyLenError { found: bytes.len() });
        }
        key.0.copy_from_slice(bytes);
        Ok(key)
    }

    /// Gives access to the key's 32 bytes. Do not copy them into memory that nobody zeroises.
    #[must_use]
    pub fn expose(&self) -> &[u8; DATA_KEY_LEN] {
        &self.0
    }

    /// Computes what a store keeps to recognise this key: HMAC-SHA-256(key, "encx/check/v1" ‖ id).
    #[must_use]
    pub fn check(&self, id: DataKeyId) -> KeyCheck {
        let mut mac = self.check_mac();
        mac.update(&id.to_bytes());
        KeyCheck(mac.finalize().into_bytes().into())
    }

    fn check_mac(&self) -> Hmac<Sha256> {
        // HMAC takes a key of any length (RFC 2104), so the error cannot occur for one of 32 bytes.
        #[allow(clippy::unwrap_used, reason = "HMAC has no invalid key length")]
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.expose()).unwrap();
        mac.update(b"encx/check/v1");
        mac
    }
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for DataKey {}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([REDACTED])")
    }
}

/// Says that a buffer was no data key because of its length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a data key has {DATA_KEY_LEN} bytes, not {found}")]
pub struct DataKeyLenError {
    /// The buffer's length, in bytes.
    pub found: usize,
}

/// Says that the operating system gave no randomness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed ({0}); nothing was encrypted")]
pub struct RandomError(String);

/// Fills a buffer with randomness from the operating system.
///
/// # Errors
///
/// [`RandomError`] if the operating system gives none; the buffer's content is then undefined.
pub(crate) fn fill_from_os(buffer: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(buffer).map_err(|error| RandomError(error.to_string()))
}

/// Recognises a data key without revealing it: HMAC-SHA-256(key, "encx/check/v1" ‖ id), 32 bytes.
#[derive(Clone, Copy)]
pub struct KeyCheck([u8; 32]);

impl KeyCheck {
    /// Takes a stored check.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the check's 32 bytes, for a store to keep.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// Compares in constant time.
impl PartialEq for KeyCheck {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyCheck {}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCheck(..)")
    }
}

/// Names one version of a data key: a UUIDv7 ([RFC 9562]).
///
/// Within a scope ids only grow, so their order is the order of the versions.
///
/// [RFC 9562]: https://www.rfc-editor.org/rfc/rfc9562#section-5.7
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyId([u8; 16]);

impl DataKeyId {
    /// The length of an id, in bytes.
    pub const LEN: usize = 16;

    /// Parses the 16 bytes of an id.
    ///
    /// # Errors
    ///
    /// [`DataKeyIdError`] if the bytes are no UUID of version 7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, DataKeyIdError> {
        if bytes[6] >> 4 == 7 && bytes[8] >> 6 == 0b10 {
            Ok(Self(bytes))
        } else {
            Err(DataKeyIdError)
        }
    }

    /// Returns the 16 bytes of the id, big-endian as in RFC 9562.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns the milliseconds since 1970 at which the id was made, by the maker's clock.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(millis)
    }

    /// Makes an id that is greater than `after`, even if the clock stands or went back.
    ///
    /// `unix_millis` is the wall clock's time. An id holds 48 bits of it, which last until the year 10889.
    ///
    /// # Errors
    ///
    /// [`NewIdError::Exhausted`] if no id is greater than `after`; [`NewIdError::Random`] if the operating system
    /// gives no randomness.
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
                // The greatest id decides, not the clock: one millisecond past it is greater whatever the
                // random part says.
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

/// The greatest time that an id can hold: 48 bits of milliseconds.
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

/// Says why no new data key id could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NewIdError {
    /// No id is greater than the greatest there is: somebody wrote one that lies at the end of time.
    #[error("no data key id is greater than {after}, which encx did not make; look at that row")]
    Exhausted {
        /// The greatest id that there is.
        after: DataKeyId,
    },
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Says that something was no data key id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a data key id is a UUID of version 7 (RFC 9562), and this is none")]
pub struct DataKeyIdError;

/// Numbers the versions of a scope's data key, from 1 and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// The first version of every scope.
    pub const FIRST: Self = Self(1);

    /// Takes a version's number; `None` for zero, which no version has, and for numbers that a store could
    /// not keep in a signed 32-bit column.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number > i32::MAX.cast_unsigned() {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Returns the version's number, 1 to 2³¹ − 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the version that follows; `None` after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a KEK in its KMS: an ARN, a key id or an alias. 1 to 2048 bytes, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekId(Arc<str>);

impl KekId {
    /// Parses the name of a KEK. Whether it exists, only its KMS can say.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the name is empty, longer than 2048 bytes, or has a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
        NameError::check("KEK id", name.as_ref(), 2048).map(|name| Self(name.into()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one of the KMSs that a process has registered, such as `eu`. 1 to 64 bytes, no control characters.
///
/// A wrap's row names the KMS that made it, so the name is as durable as the data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KmsName(Arc<str>);

impl KmsName {
    /// The name of the KMS given to `Crypto::builder`, as it stands in a row.
    pub const DEFAULT: &'static str = "default";

    /// Parses the name of a KMS.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the name is empty, longer than 64 bytes, or has a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
        NameError::check("KMS name", name.as_ref(), 64).map(|name| Self(name.into()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// [`KmsName::DEFAULT`].
impl Default for KmsName {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

macro_rules! name_impls {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    )+};
}

name_impls!(KekId, KmsName);

/// Says why a name of a KEK or a KMS was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has a control character.
    #[error("a {what} has no control characters; remove the one at byte {at}")]
    ControlCharacter {
        /// What was named: "KEK id" or "KMS name".
        what: &'static str,
        /// Where the character begins, in bytes.
        at: usize,
    },
    /// The name is empty.
    #[error("a {what} is not empty; is the setting that it comes from missing?")]
    Empty {
        /// What was named: "KEK id" or "KMS name".
        what: &'static str,
    },
    /// The name is too long.
    #[error("a {what} has at most {max} bytes, not {found}")]
    TooLong {
        /// What was named: "KEK id" or "KMS name".
        what: &'static str,
        /// The name's length, in bytes.
        found: usize,
        /// The greatest length, in bytes.
        max: usize,
    },
}

/// A name that needs no parsing is never refused.
impl From<std::convert::Infallible> for NameError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl NameError {
    fn check<'a>(what: &'static str, name: &'a str, max: usize) -> Result<&'a str, Self> {
        if name.is_empty() {
            return Err(Self::Empty { what });
        }
        if name.len() > max {
            return Err(Self::TooLong {
                what,
                found: name.len(),
                max,
            });
        }
        match name.find(char::is_control) {
            Some(at) => Err(Self::ControlCharacter { what, at }),
            None => Ok(name),
        }
    }
}

/// What a data key is for. A key has one usage, and its scope and its encryption context say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyUsage {
    /// Encrypts fields and records.
    Data,
    /// Makes blind indexes.
    Index,
    /// Peppers password hashes.
    Pepper,
    /// Encrypts streams.
    Stream,
}

impl KeyUsage {
    /// All usages, by code.
    pub const ALL: [Self; 4] = [Self::Data, Self::Stream, Self::Index, Self::Pepper];

    /// Returns the usage's byte: 1 data, 2 stream, 3 index, 4 pepper.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Stream => 2,
            Self::Index => 3,
            Self::Pepper => 4,
        }
    }

    /// Finds the usage that has this byte; `None` if there is none.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.code() == code)
    }

    /// Returns the usage's name, as the encryption context carries it under `encx:usage`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Stream => "stream",
            Self::Index => "index",
            Self::Pepper => "pepper",
        }
    }
}

impl fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a data key stands in its life ([NIST SP 800-57 part 1], section 7).
///
/// ```text
///                  promote              promote the next
///   pre-active ───────────────▶ active ───────────────▶ deactivated
///       │  ▲                    │  │ ▲                     │  ▲ │
///       │  │ resume             │  │ │ resume              │  │ │ resume comes back
///       ▼  │                    │  ▼ │                     ▼  │ │ from suspended
///      suspended ◀──────────────┘ suspended              suspended
///       │        \ compromise      │                        │
///       │         ▶ compromised ◀──┴────────────────────────┘ (also from active and deactivated)
///       ▼               │
///   destroyed ◀─────────┘ (also from pre-active and deactivated; nothing leaves destroyed)
/// ```
///
/// [NIST SP 800-57 part 1]: https://doi.org/10.6028/NIST.SP.800-57pt1r5
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Encrypts and decrypts. A scope has at most one active version.
    Active,
    /// Encrypts nothing and decrypts only on request: whoever else holds the key can forge.
    Compromised,
    /// Decrypts only.
    Deactivated,
    /// Gone: its wraps were deleted, and nothing reads what it encrypted.
    Destroyed,
    /// Decrypts only, because another process may have been told earlier that the key is active.
    PreActive,
    /// Does nothing until it goes back to the state it was suspended from.
    Suspended,
}

impl KeyState {
    /// All states, in the order of a key's life.
    pub const ALL: [Self; 6] = [
        Self::PreActive,
        Self::Active,
        Self::Deactivated,
        Self::Suspended,
        Self::Compromised,
        Self::Destroyed,
    ];

    /// Returns the state's name, as stores keep it: `pre-active`, `active`, `deactivated`, `suspended`,
    /// `compromised` or `destroyed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Compromised => "compromised",
            Self::Deactivated => "deactivated",
            Self::Destroyed => "destroyed",
            Self::PreActive => "pre-active",
            Self::Suspended => "suspended",
        }
    }

    /// Finds the state that has this name; `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Tells whether a key in this state encrypts.
    #[must_use]
    pub const fn encrypts(self) -> bool {
        matches!(self, Self::Active)
    }

    /// Tells whether a key in this state decrypts without being asked specially.
    #[must_use]
    pub const fn decrypts(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated | Self::PreActive)
    }

    /// Tells whether a key may go from this state to `to`.
    ///
    /// `suspended_from` is the state that a suspended key was suspended from, and the only one besides
    /// compromised and destroyed that it may go to. The step from active to deactivated is the store's
    /// own, taken when the next version is promoted.
    #[must_use]
    pub fn may_become(self, to: Self, suspended_from: Option<Self>) -> bool {
        use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
        match (self, to) {
            (PreActive, Active | Suspended | Destroyed)
            | (Active, Suspended | Compromised)
            | (Deactivated, Suspended | Compromised | Destroyed)
            | (Suspended, Compromised | Destroyed)
            | (Compromised, Destroyed) => true,
            (Suspended, to) => suspended_from == Some(to),
            _ => false,
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one family of data keys: SHA-256("encx/scope/v1" ‖ usage byte ‖ canonical context), 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope([u8; 32]);

impl Scope {
    /// The length of a scope, in bytes.
    pub const LEN: usize = 32;

    /// Computes the scope of a usage under an encryption context.
    #[must_use]
    pub fn of(usage: KeyUsage, context: &EncryptionContext) -> Self {
        let digest = Sha256::new()
            .chain_update(b"encx/scope/v1")
            .chain_update([usage.code()])
            .chain_update(context.canonical());
        Self(digest.finalize().into())
    }

    /// Takes the 32 bytes of a stored scope.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the scope's 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

/// A data key encrypted by a KEK, as the KMS returned it.
///
/// The bytes are the provider's own format. They are no identity: two wraps of one key differ, and some
/// formats carry metadata that nobody authenticates.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrappedKey {
    /// The KEK that wrapped it, under the name that will still find it later: never an alias.
    pub kek: KekId,
    /// The wrapped key, 1 to 8192 bytes.
    pub ciphertext: Vec<u8>,
    /// Which material of the KEK wrapped it, where the KMS says so. At most 256 bytes of text.
    pub kek_material: Option<String>,
}

impl WrappedKey {
    /// The longest wrap that a store keeps, in bytes. AWS KMS makes at most 6144.
    pub const MAX_LEN: usize = 8192;

    /// Puts a wrap together from what the KMS returned.
    #[must_use]
    pub fn new(kek: KekId, ciphertext: Vec<u8>) -> Self {
        Self {
            kek,
            ciphertext,
            kek_material: None,
        }
    }

    /// Adds the name of the KEK's material that did the wrapping.
    #[must_use]
    pub fn with_material(mut self, material: impl Into<String>) -> Self {
        self.kek_material = Some(material.into());
        self
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey")
            .field("kek", &self.kek)
            .field("ciphertext", &format_args!("[{} bytes]", self.ciphertext.len()))
            .field("kek_material", &self.kek_material)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> DataKeyId {
        DataKeyId::generate(millis, None).unwrap()
    }

    #[test]
    fn secrets_print_redacted() {
        let key = DataKey::copy_from(&[0xab; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "DataKey([REDACTED])");
        assert_eq!(format!("{:?}", key.check(id(1))), "KeyCheck(..)");
        let wrap = WrappedKey::new(KekId::new("k").unwrap(), vec![0xab; 5]);
        assert!(!format!("{wrap:?}").contains("171"), "{wrap:?}");
    }

    #[test]
    fn keys_are_zeroised() {
        fn is_zeroised<T: ZeroizeOnDrop>() {}
        is_zeroised::<DataKey>();
    }

    #[test]
    fn a_key_has_32_bytes() {
        assert_eq!(
            DataKey::copy_from(&[0; 31]).unwrap_err(),
            DataKeyLenError { found: 31 }
        );
        assert_eq!(
            DataKey::copy_from(&[0; 33]).unwrap_err(),
            DataKeyLenError { found: 33 }
        );
        assert_ne!(
            DataKey::generate().unwrap().expose(),
            DataKey::generate().unwrap().expose()
        );
    }

    #[test]
    fn a_check_depends_on_key_and_id() {
        let (a, b) = (id(1), id(2));
        let key = DataKey::copy_from(&[1; 32]).unwrap();
        assert_eq!(key.check(a), key.check(a));
        assert_ne!(key.check(a), key.check(b));
        assert_ne!(key.check(a), DataKey::copy_from(&[2; 32]).unwrap().check(a));
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

    #[test]
    fn names_are_checked() {
        assert_eq!(KekId::new(""), Err(NameError::Empty { what: "KEK id" }));
        assert_eq!(
            KekId::new("a\nb"),
            Err(NameError::ControlCharacter {
                what: "KEK id",
                at: 1
            })
        );
        assert!(KekId::new("k".repeat(2048)).is_ok());
        assert!(matches!(
            KekId::new("k".repeat(2049)),
            Err(NameError::TooLong { found: 2049, .. })
        ));
        assert!(matches!(
            KmsName::new("k".repeat(65)),
            Err(NameError::TooLong { .. })
        ));
    }

    #[test]
    fn codes_and_names_are_pinned() {
        let usages = KeyUsage::ALL.map(|usage| (usage.code(), usage.name()));
        assert_eq!(usages, [(1, "data"), (2, "stream"), (3, "index"), (4, "pepper")]);
        assert!(
            KeyUsage::ALL
                .into_iter()
                .all(|usage| KeyUsage::from_code(usage.code()) == Some(usage))
        );
        assert_eq!(KeyUsage::from_code(0), None);
        assert!(
            KeyState::ALL
                .into_iter()
                .all(|state| KeyState::from_name(state.name()) == Some(state))
        );
        assert_eq!(KeyState::from_name("Active"), None);
    }

    /// The design's table, written out once more and compared pair by pair.
    #[test]
    fn transitions_are_those_of_the_table() {
        use KeyState::*;
        let legal = |from, suspended_from: Option<KeyState>| -> Vec<KeyState> {
            match from {
                PreActive => vec![Active, Suspended, Destroyed],
                Active => vec![Suspended, Compromised],
                Deactivated => vec![Suspended, Compromised, Destroyed],
                Suspended => suspended_from
                    .into_iter()
                    .chain([Compromised, Destroyed])
                    .collect(),
                Compromised => vec![Destroyed],
                Destroyed => vec![],
            }
        };
        for from in KeyState::ALL {
            for suspended_from in [None, Some(PreActive), Some(Active), Some(Deactivated)] {
                for to in KeyState::ALL {
                    let expected = legal(from, suspended_from).contains(&to);
                    assert_eq!(from.may_become(to, suspended_from), expected, "{from} to {to}");
                }
            }
        }
    }
}
