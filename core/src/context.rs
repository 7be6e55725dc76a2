//! The encryption context: non-secret pairs that select a data key and that the KMS authenticates.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::causes::debug_as_text;

/// The greatest number of pairs in an encryption context.
pub const MAX_PAIRS: usize = 8;

/// The greatest length of a key or a value of an encryption context, in Unicode scalars.
pub const MAX_PAIR_CHARS: usize = 384;

/// Selects a data key by 1 to 8 pairs of text, such as `tenantId` = `t-42` and `purpose` = `pii`.
///
/// Each distinct context has its own data keys and costs one KMS call per cache lifetime. Put what has *few* values
/// (tenant, purpose) here, and what has many (the row) into the AAD.
///
/// Order does not matter. Keys and values are 1 to 384 Unicode scalars without control characters. Keys must differ
/// by more than case, and keys that begin with `encx:` are reserved. Nothing is normalised: `é` as one scalar and as
/// two are different values.
///
/// <div class="warning">
///
/// A context is not secret: it appears in your database, in the KMS's log, and in the sources of errors. Put no personal
/// data into it.
///
/// </div>
///
/// ```
/// use encx::EncryptionContext;
///
/// let context = EncryptionContext::builder().pair("tenantId", "t-42").pair("purpose", "pii").build()?;
/// let same = EncryptionContext::builder().pair("purpose", "pii").pair("tenantId", "t-42").build()?;
/// assert_eq!(context, same);
/// # Ok::<(), encx::ContextError>(())
/// ```
#[derive(Clone)]
pub struct EncryptionContext(Arc<Inner>);

struct Inner {
    pairs: Vec<(String, String)>,
    canonical: Vec<u8>,
    hash: u64,
}

/// Hashes contexts under a secret of this process, so that tenants' names cannot be chosen to collide.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl EncryptionContext {
    /// Starts a context without pairs.
    pub fn builder() -> EncryptionContextBuilder {
        EncryptionContextBuilder { pairs: Vec::new() }
    }

    /// Builds a context from pairs in any order.
    ///
    /// # Errors
    ///
    /// Any [`ContextError`].
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, ContextError>
    where
        K: Into<String>,
        V: fmt::Display,
    {
        pairs
            .into_iter()
            .fold(Self::builder(), |builder, (key, value)| builder.pair(key, value))
            .build()
    }

    /// Lists the pairs, sorted by the UTF-8 bytes of their keys.
    #[must_use]
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the value of a key; `None` if the context has no such key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs()
            .find_map(|(found, value)| (found == key).then_some(value))
    }

    /// Returns the canonical bytes: `u16 count ‖ {u16 klen ‖ key ‖ u16 vlen ‖ value}*`, big-endian, sorted by the
    /// keys' UTF-8 bytes. At most 24 610 bytes.
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        &self.0.canonical
    }

    /// Returns a hash that was computed when the context was built.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn hash64(&self) -> u64 {
        self.0.hash
    }

    /// Returns the pairs as an owned map, for a store.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.pairs.iter().cloned().collect()
    }
}

/// Frames pairs that are sorted by key, as in [`EncryptionContext::canonical`].
///
/// [`MAX_PAIRS`] and [`MAX_PAIR_CHARS`] (four bytes a scalar) bound the lengths, which fit into 16 bits.
pub(crate) fn frame_pairs<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut framed = Vec::new();
    let put_len = |framed: &mut Vec<u8>, len: usize| {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        framed.extend_from_slice(&len.to_be_bytes());
    };
    put_len(&mut framed, pairs.len());
    for (key, value) in pairs {
        for text in [key, value] {
            put_len(&mut framed, text.len());
            framed.extend_from_slice(text.as_bytes());
        }
    }
    framed
}

impl PartialEq for EncryptionContext {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash && self.0.canonical == other.0.canonical)
    }
}

impl Eq for EncryptionContext {}

impl Hash for EncryptionContext {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

/// Collects the pairs of an [`EncryptionContext`].
///
/// ```
/// use encx::EncryptionContext;
///
/// let tenant = 42;
/// let context = EncryptionContext::builder().pair("tenantId", tenant).pair("purpose", "pii").build()?;
/// # assert_eq!(context, EncryptionContext::from_pairs([("purpose", "pii"), ("tenantId", "42")])?);
/// # Ok::<(), encx::ContextError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct EncryptionContextBuilder {
    pairs: Vec<(String, String)>,
}

impl EncryptionContextBuilder {
    /// Adds a pair. The value may be anything that implements `Display`: text, a number, a UUID.
    pub fn pair(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.pairs.push((key.into(), value.to_string()));
        self
    }

    /// Checks the pairs and builds the context.
    ///
    /// # Errors
    ///
    /// Any [`ContextError`]; each says what to change.
    pub fn build(mut self) -> Result<EncryptionContext, ContextError> {
        match self.pairs.len() {
            0 => return Err(ContextError::NoPairs),
            1..=MAX_PAIRS => {}
            found => return Err(ContextError::TooManyPairs { found }),
        }
        for (key, value) in &self.pairs {
            check_text(key).map_err(|fault| ContextError::Key {
                key: excerpt(key),
                fault,
            })?;
            check_text(value).map_err(|fault| ContextError::Value {
                key: excerpt(key),
                fault,
            })?;
            if is_reserved(key) {
                return Err(ContextError::ReservedKey { key: excerpt(key) });
            }
        }
        self.pairs.sort();
        for (place, (key, _)) in self.pairs.iter().enumerate() {
            if self.pairs[..place]
                .iter()
                .any(|(other, _)| are_confused(key, other))
            {
                let key = excerpt(&fold_case(key));
                return Err(ContextError::DuplicateKey { key });
            }
        }
        let canonical = frame_pairs(
            self.pairs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        let hash = HASHES.hash_one(&canonical);
        Ok(EncryptionContext(Arc::new(Inner {
            pairs: self.pairs,
            canonical,
            hash,
        })))
    }
}

/// Folds case well enough to find keys that a KMS's policy conditions would confuse.
fn fold_case(key: &str) -> String {
    key.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Tells whether two keys differ in case alone. Almost all are ASCII, and then nothing is copied.
fn are_confused(key: &str, other: &str) -> bool {
    if key.is_ascii() && other.is_ascii() {
        return key.eq_ignore_ascii_case(other);
    }
    fold_case(key) == fold_case(other)
}

fn is_reserved(key: &str) -> bool {
    const RESERVED: &str = "encx:";
    if key.is_ascii() {
        let begin = key.get(..RESERVED.len());
        return begin.is_some_and(|begin| begin.eq_ignore_ascii_case(RESERVED));
    }
    fold_case(key).starts_with(RESERVED)
}

fn check_text(text: &str) -> Result<(), TextFault> {
    if text.is_empty() {
        return Err(TextFault::Empty);
    }
    // Where every byte is a character, neither takes a loop over characters.
    let is_ascii = text.is_ascii();
    let found = if is_ascii {
        text.len()
    } else {
        text.chars().count()
    };
    if found > MAX_PAIR_CHARS {
        return Err(TextFault::TooLong { found });
    }
    let control = if is_ascii {
        text.bytes().position(|byte| byte.is_ascii_control())
    } else {
        text.chars().position(char::is_control)
    };
    match control {
        Some(at) => Err(TextFault::ControlCharacter { at }),
        None => Ok(()),
    }
}

/// Shortens a key for an error message, and escapes control characters.
fn excerpt(key: &str) -> String {
    key.chars().take(48).flat_map(char::escape_debug).collect()
}

/// Why an encryption context was refused.
///
/// Keys are shortened to 48 characters. Values never show.
///
/// ```
/// use encx::{ContextError, EncryptionContext};
///
/// let refused = EncryptionContext::from_pairs([("encx:tenant", "t-42")]).unwrap_err();
/// assert!(matches!(refused, ContextError::ReservedKey { .. }));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Two keys are equal, or differ only in case.
    #[error(
        "two pairs of the encryption context have the key `{key}` (ignoring case, as policies of a KMS do); \
         rename or remove one"
    )]
    DuplicateKey {
        /// The key, in lower case.
        key: String,
    },
    /// A key is not allowed.
    #[error("the encryption context's key `{key}` {fault}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        fault: TextFault,
    },
    /// There are no pairs.
    #[error("an encryption context has at least one pair, such as the tenant or the purpose; add one")]
    NoPairs,
    /// A key begins with `encx:`.
    #[error("keys that begin with `encx:` belong to encx; rename the key `{key}`")]
    ReservedKey {
        /// The key.
        key: String,
    },
    /// There are too many pairs.
    #[error(
        "an encryption context has at most {MAX_PAIRS} pairs, not {found}; what varies by row belongs into \
         the AAD"
    )]
    TooManyPairs {
        /// The number of pairs.
        found: usize,
    },
    /// A value is not allowed.
    #[error("the value of the encryption context's key `{key}` {fault}")]
    Value {
        /// The value's key.
        key: String,
        /// What is wrong with the value.
        fault: TextFault,
    },
}

debug_as_text!(ContextError);

/// A fault in a text of an encryption context.
///
/// ```
/// use encx::{ContextError, EncryptionContext, TextFault};
///
/// let refused = EncryptionContext::from_pairs([("tenantId", "")]).unwrap_err();
/// assert!(matches!(refused, ContextError::Value { fault: TextFault::Empty, .. }));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextFault {
    /// The text has a control character.
    #[error("has a control character at position {at}; remove it, or encode the text")]
    ControlCharacter {
        /// The number of characters before it.
        at: usize,
    },
    /// The text is empty.
    #[error("is empty; leave the pair out, or give it a text that says so")]
    Empty,
    /// The text is too long.
    #[error("has {found} characters and may have at most {MAX_PAIR_CHARS}; use an id or a hash of it")]
    TooLong {
        /// Its length in Unicode scalars.
        found: usize,
    },
}

debug_as_text!(TextFault);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(pairs: &[(&str, &str)]) -> Result<EncryptionContext, ContextError> {
        EncryptionContext::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn canonical_bytes_are_pinned() {
        let context = build(&[("tenantId", "t-1"), ("purpose", "pii")]).unwrap();
        assert_eq!(
            context.canonical(),
            b"\0\x02\0\x07purpose\0\x03pii\0\x08tenantId\0\x03t-1",
            "sorted by key, each length before its text"
        );
        assert_eq!(context.get("purpose"), Some("pii"));
        assert_eq!(context.get("Purpose"), None);
    }

    #[test]
    fn each_refusal_says_what_to_change() {
        let long = "x".repeat(385);
        let many: Vec<_> = (0..9).map(|n| (format!("k{n}"), "v")).collect();
        let refused = |pairs: &[(&str, &str)]| build(pairs).unwrap_err().to_string();
        assert!(refused(&[]).contains("add one"));
        assert!(
            EncryptionContext::from_pairs(many)
                .unwrap_err()
                .to_string()
                .contains("belongs into the AAD")
        );
        assert!(refused(&[("", "v")]).contains("leave the pair out"));
        assert!(refused(&[("k", "")]).contains("leave the pair out"));
        assert!(refused(&[("k", &long)]).contains("an id or a hash"));
        assert!(refused(&[(&long, "v")]).contains("an id or a hash"));
        assert!(refused(&[("k", "a\u{85}b")]).contains("position 1; remove it"));
        assert!(refused(&[("k\n", "v")]).contains(r"`k\n` has a control character"));
        assert!(refused(&[("a", "1"), ("A", "2")]).contains("rename or remove"));
        assert!(refused(&[("STRASSE", "1"), ("stra\u{df}e", "2")]).contains("rename or remove"));
        assert!(refused(&[("a", "1"), ("a", "1")]).contains("rename or remove"));
        for reserved in ["encx:key", "ENCX:x", "encx:"] {
            assert!(
                refused(&[(reserved, "v")]).contains("rename the key"),
                "{reserved}"
            );
        }
    }

    #[test]
    fn bounds_are_inclusive_and_count_scalars() {
        let longest = "\u{10ffff}".repeat(MAX_PAIR_CHARS);
        let pairs: Vec<_> = (0..8)
            .map(|n| (format!("{n}{}", "\u{10fffe}".repeat(383)), &longest))
            .collect();
        let context = EncryptionContext::from_pairs(pairs).unwrap();
        assert!(context.canonical().len() <= 24_610);
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_content_does(
            pairs in prop::collection::btree_map("[a-z]{1,6}", "[a-zA-Z0-9é]{1,6}", 1..8),
            other in prop::collection::btree_map("[a-z]{1,6}", "[a-zA-Z0-9é]{1,6}", 1..8),
        ) {
            let forwards = EncryptionContext::from_pairs(pairs.clone()).unwrap();
            let backwards = EncryptionContext::from_pairs(pairs.clone().into_iter().rev()).unwrap();
            prop_assert_eq!(&forwards, &backwards);
            prop_assert_eq!(forwards.canonical(), backwards.canonical());
            let others = EncryptionContext::from_pairs(other.clone()).unwrap();
            prop_assert_eq!(forwards.canonical() == others.canonical(), pairs == other);
        }
    }
}
