//! API tokens: the text that a client presents, and its digest, which a column stores encrypted.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use encx_core::codec::{CodecError, Encoded, FieldCodec};
use encx_core::key::{RandomError, fill_from_os};

/// An API token: a secret of 256 random bits, and the id that finds its row.
///
/// ```text
/// <prefix>_<id, 32 digits of hex>_<secret, 64 digits of hex>
/// ```
///
/// Give [`expose`](Self::expose) to its owner once, and store [`digest`](Self::digest) in a field with
/// `#[encx(token, bind(..))]`, in the row whose id is [`id`](Self::id). When a client presents a token, parse it, read
/// the row with its id, decrypt the row, and compare with [`TokenDigest::is_of`]; docs/search.md shows all of it.
///
/// It is zeroised on drop. It has no `Clone` and no `Serialize`, and `Debug` shows only the id.
///
/// ```
/// use encx::token::ApiToken;
///
/// let token = ApiToken::generate("acme")?;
/// let presented = ApiToken::parse(token.expose())?;
/// assert_eq!(presented.id(), token.id());
/// assert!(token.digest().is_of(&presented));
/// # Ok::<(), encx::token::TokenError>(())
/// ```
pub struct ApiToken {
    text: Zeroizing<String>,
    id: Uuid,
}

/// SHA-256 of an [`ApiToken`], as `#[encx(token, bind(..))]` stores it: encrypted, and bound to the columns that define
/// the token's rights.
///
/// Compared in constant time. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct TokenDigest([u8; DIGEST_LEN]);

/// Why there is no token. Shows no part of one.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The text is not a token of this form. Refuse the request, as for an unknown token.
    #[error("this is not an API token: it must be a prefix, 32 and 64 hex digits, joined by `_`")]
    NotAToken,
    /// The prefix is not allowed.
    #[error("the prefix of an API token has 1 to 32 ASCII letters, digits and `_`, and begins with a letter")]
    Prefix,
    /// The operating system returned no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

encx_core::causes::debug_as_text!(TokenError);

const MAX_PREFIX_LEN: usize = 32;
const SECRET_LEN: usize = 32;
const DIGEST_LEN: usize = 32;

impl ApiToken {
    /// The greatest length of a token's text, in bytes.
    pub const MAX_LEN: usize = MAX_PREFIX_LEN + 1 + 32 + 1 + 2 * SECRET_LEN;

    /// Generates a token from the operating system's randomness. The prefix names its issuer, such as `acme_live`, so
    /// that scanners for leaked secrets recognise it.
    ///
    /// # Errors
    ///
    /// [`TokenError::Prefix`], and [`TokenError::Random`] if the operating system returns no randomness.
    pub fn generate(prefix: &str) -> Result<Self, TokenError> {
        if !is_prefix(prefix) {
            return Err(TokenError::Prefix);
        }
        let mut id = [0; 16];
        fill_from_os(&mut id)?;
        let id = uuid::Builder::from_random_bytes(id).into_uuid();
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        fill_from_os(secret.as_mut_slice())?;
        // Full capacity: a text that grew would leave a copy in memory that is not wiped.
        let mut text = Zeroizing::new(String::with_capacity(Self::MAX_LEN));
        text.push_str(prefix);
        text.push('_');
        push_hex(&mut text, id.as_bytes());
        text.push('_');
        push_hex(&mut text, secret.as_slice());
        Ok(Self { text, id })
    }

    /// Parses the text that a client presents. Only its row tells whether it is an issued token.
    ///
    /// # Errors
    ///
    /// [`TokenError::NotAToken`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        Self::id_in(text)
            .map(|id| Self {
                text: Zeroizing::new(text.to_owned()),
                id,
            })
            .ok_or(TokenError::NotAToken)
    }

    fn id_in(text: &str) -> Option<Uuid> {
        if text.len() > Self::MAX_LEN {
            return None;
        }
        let (rest, secret) = text.rsplit_once('_')?;
        let (prefix, id) = rest.rsplit_once('_')?;
        if !is_prefix(prefix) || !is_hex(secret, 2 * SECRET_LEN) || !is_hex(id, 32) {
            return None;
        }
        Uuid::try_parse(id).ok()
    }

    /// Returns the id that finds its row. It is random and not secret.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the text, for its owner: show it once, and do not store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the digest to store.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.text.as_bytes()).into())
    }
}

impl TokenDigest {
    /// Tells whether it is the digest of this token, in constant time.
    ///
    /// It does not check the token's expiry: compare that with the clock, now that the row has been decrypted and its
    /// expiry is known to be authentic.
    #[must_use]
    pub fn is_of(&self, token: &ApiToken) -> bool {
        *self == token.digest()
    }
}

fn is_prefix(prefix: &str) -> bool {
    let begins = prefix.starts_with(|c: char| c.is_ascii_alphabetic());
    begins && prefix.len() <= MAX_PREFIX_LEN && prefix.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Tells whether a text is `len` lower-case hex digits: one token has one text.
fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

impl ZeroizeOnDrop for ApiToken {}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, [REDACTED])", self.id)
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenDigest {}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest([REDACTED])")
    }
}

/// The digest's 32 bytes.
impl FieldCodec for TokenDigest {
    const FORMAT: &'static str = "token";

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        Ok(Encoded::borrowed(&self.0))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        <[u8; DIGEST_LEN]>::decode(bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn text(prefix: &str, id: &str, secret: &str) -> String {
        format!("{prefix}_{id}_{secret}")
    }

    #[test]
    fn a_token_is_pinned() {
        let shown = text("acme_live", ID, &"5a".repeat(32));
        let token = ApiToken::parse(&shown).unwrap();
        assert_eq!(
            token.id(),
            Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)
        );
        assert_eq!(token.expose(), shown);
        let hex: String = token
            .digest()
            .0
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // Computed by Python's hashlib.
        assert_eq!(
            hex,
            "59b949da5e0b5fe14241df1fed19a449b8c1c1addca5a1a9438a1d0d13d98928"
        );
        assert_eq!(token.digest().encode().unwrap().as_bytes(), token.digest().0);
        assert_eq!(TokenDigest::decode(&token.digest().0).unwrap(), token.digest());
        assert!(matches!(
            TokenDigest::decode(&[0; 31]),
            Err(CodecError::Length { .. })
        ));
    }

    #[test]
    fn tokens_are_random_and_come_back() {
        let tokens: Vec<_> = (0..100).map(|_| ApiToken::generate("a").unwrap()).collect();
        for (place, token) in tokens.iter().enumerate() {
            let presented = ApiToken::parse(token.expose()).unwrap();
            assert_eq!(presented.id(), token.id());
            assert_eq!(token.id().get_version_num(), 4);
            for (other, digest) in tokens.iter().map(ApiToken::digest).enumerate() {
                assert_eq!(digest.is_of(&presented), other == place);
            }
            let secret = token.expose().rsplit_once('_').unwrap().1;
            assert!(
                tokens[place + 1..]
                    .iter()
                    .all(|other| other.id() != token.id() && !other.expose().ends_with(secret))
            );
        }
        let longest = ApiToken::generate(&"a".repeat(32)).unwrap();
        assert_eq!(
            (longest.expose().len(), longest.text.capacity()),
            (ApiToken::MAX_LEN, ApiToken::MAX_LEN)
        );
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let secret = "0".repeat(64);
        for wrong in [
            String::new(),
            "_".to_owned(),
            text("", ID, &secret),
            text("7a", ID, &secret),
            text("a-b", ID, &secret),
            text("é", ID, &secret),
            text(&"a".repeat(33), ID, &secret),
            text("a", &ID[1..], &secret),
            text("a", &ID.to_uppercase(), &secret),
            text("a", "00112233-4455-6677-8899-aabbccddeeff", &secret),
            text("a", ID, &secret[1..]),
            text("a", ID, &"A".repeat(64)),
            text("a", ID, &format!("{secret}0")),
            format!(" {}", text("a", ID, &secret)),
            format!("{}\n", text("a", ID, &secret)),
            "a".repeat(1 << 20),
        ] {
            assert_eq!(
                ApiToken::parse(&wrong).unwrap_err(),
                TokenError::NotAToken,
                "{wrong}"
            );
        }
        for prefix in ["", "1", "_a", "a b", &"a".repeat(33)] {
            assert_eq!(
                ApiToken::generate(prefix).unwrap_err(),
                TokenError::Prefix,
                "{prefix}"
            );
        }
    }

    #[test]
    fn secrets_are_wiped_and_redacted() {
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<ApiToken>();
        let token = ApiToken::generate("acme").unwrap();
        assert_eq!(
            format!("{token:?}"),
            format!("ApiToken({}, [REDACTED])", token.id())
        );
        assert_eq!(format!("{:?}", token.digest()), "TokenDigest([REDACTED])");
    }
}
