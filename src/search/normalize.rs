//! Brings values into one form before they are indexed.

use std::fmt;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::IndexError;

/// Brings equivalent values into one form, so that one finds the other.
///
/// An index's normaliser and its version are part of the index's key: with another one, its column must be computed
/// again. Within a version its behaviour never changes; docs/format.md specifies it. All but [`Exact`](Self::Exact)
/// take only text and drop white space at both ends. The rest may be empty: the empty value has a term like any other.
///
/// [`Email`](Self::Email) and [`Lowercase`](Self::Lowercase) are in version 2, which writes `ς` as `σ`. Values without
/// these two letters keep the terms of version 1. For the others, terms of version 1 are searched for too, until their
/// rows are indexed again.
///
/// Unicode never changes normalisation and case folding of assigned characters. Texts with characters that are newer than
/// these tables may be normalised differently by a later encx.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Normalizer {
    /// NFKC, full case folding, NFKC: `Straße`, `STRASSE` and `ＳＴＲＡＳＳＥ` are the same. For names of people and places.
    CaseFold,
    /// A function of your own: [`Normalizer::custom`].
    Custom(CustomNormalizer),
    /// Email addresses: NFKC, lower case, in the local part too, and `σ` for `ς`.
    ///
    /// RFC 5321 lets a domain distinguish `Ada@` from `ada@`. No important domain does, and people type both, so the
    /// local part is made lower case; the caller can compare the candidates more strictly. Dots and `+tags` stay,
    /// because some domains distinguish them, and domains are not converted between Unicode and `xn--`. The empty text
    /// is a value. Other text without a character on both sides of its last `@`, or with white space or control
    /// characters within, is refused.
    ///
    /// Two addresses that find each other may belong to two mailboxes. Send mail, such as a password reset link, to the
    /// stored address, never to the typed one.
    Email,
    /// Nothing: the bytes unchanged.
    Exact,
    /// Lower case, character by character, and `σ` for `ς`: `ΟΔΟΣ` and `οδος` are the same. `ß` and
    /// `SS`, `ı` and `I` are not.
    Lowercase,
    /// Phone numbers: a leading `+`, and digits. White space, `-`, `.`, `/` and parentheses are dropped; letters and
    /// everything else are refused. It does not know whether `0151…` is `+49151…`: store numbers with their country code.
    Phone,
    /// White space at both ends is dropped.
    Trim,
}

impl Normalizer {
    /// Uses a function of your own. It returns `None` for text that cannot be normalised.
    ///
    /// Its name and version are part of the index's key. **Raise the version whenever the function's result changes for
    /// any value**: otherwise rows that were indexed before are silently no longer found.
    ///
    /// ```
    /// use encx::search::{IndexField, Normalizer};
    ///
    /// const ORDER: IndexField = IndexField::new("orders", "number", 48)
    ///     .normalize(Normalizer::custom("order-number", 1, |text| Some(text.replace('-', ""))));
    /// ```
    ///
    /// # Panics
    ///
    /// If the name is empty or the version 0. In a `const` it does not compile.
    #[must_use]
    pub const fn custom(name: &'static str, version: u32, normalize: fn(&str) -> Option<String>) -> Self {
        assert!(!name.is_empty(), "the normaliser's name is empty");
        assert!(version > 0, "versions of normalisers begin with 1");
        Self::Custom(CustomNormalizer {
            name,
            version,
            normalize,
        })
    }

    /// Returns its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CaseFold => "case-fold",
            Self::Custom(custom) => custom.name,
            Self::Email => "email",
            Self::Exact => "exact",
            Self::Lowercase => "lowercase",
            Self::Phone => "phone",
            Self::Trim => "trim",
        }
    }

    /// Returns its version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        match self {
            Self::Custom(custom) => custom.version,
            Self::Email | Self::Lowercase => 2,
            Self::CaseFold | Self::Exact | Self::Phone | Self::Trim => 1,
        }
    }

    /// Returns the version under whose key a normalised text is indexed. Version 2 of those that have one differs from
    /// version 1 only in texts with a sigma; all others keep their terms.
    pub(super) fn version_for(&self, normalized: &str) -> u32 {
        match self {
            Self::Email | Self::Lowercase if !normalized.contains(SIGMA) => 1,
            _ => self.version(),
        }
    }

    /// Tells whether an older version made another form of a text that is indexed under this version.
    pub(super) fn has_older(&self, version: u32) -> bool {
        matches!(self, Self::Email | Self::Lowercase) && version > 1
    }

    /// Returns its identifier in an index's key: a caller's name cannot equal one of encx's.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Custom(custom) => format!("custom/{}", custom.name),
            ours => ours.name().to_owned(),
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Exact)
    }

    fn refuse(&self, what: &'static str) -> IndexError {
        IndexError::NotNormalized {
            normalizer: self.name(),
            what,
        }
    }

    /// Normalises a text in the normaliser's version.
    pub(super) fn apply(&self, text: &str) -> Result<Zeroizing<String>, IndexError> {
        match self {
            Self::Email | Self::Lowercase => Ok(with_sigmas(&self.apply_first(text)?, |_| SIGMA)),
            _ => self.apply_first(text),
        }
    }

    /// Returns the forms that version 1 may have made of texts that now equal this one: of its two usual spellings,
    /// with `σ` throughout as from capitals, and with `ς` at the ends of words, and of the text itself. Always three in
    /// this order, even if two are equal, because parts of one value are paired by position; none if the version is 1.
    pub(super) fn apply_older(&self, text: &str) -> Result<Vec<Zeroizing<String>>, IndexError> {
        let typed = match self {
            Self::Email | Self::Lowercase => self.apply_first(text)?,
            _ => return Ok(Vec::new()),
        };
        let capitals = with_sigmas(&typed, |_| SIGMA);
        if !capitals.contains(SIGMA) {
            return Ok(Vec::new());
        }
        let words = with_sigmas(&typed, |ends| if ends { FINAL_SIGMA } else { SIGMA });
        Ok(vec![capitals, words, typed])
    }

    /// Normalises a text in version 1, or in the version of the caller's function.
    fn apply_first(&self, text: &str) -> Result<Zeroizing<String>, IndexError> {
        Ok(match self {
            Self::Exact => Zeroizing::new(text.to_owned()),
            Self::Trim => Zeroizing::new(text.trim().to_owned()),
            Self::Lowercase => lowercase(text.trim()),
            Self::CaseFold => {
                let composed = nfkc(text);
                let folded = collect(|| composed.chars().default_case_fold());
                let folded = nfkc(&folded);
                Zeroizing::new(folded.trim().to_owned())
            }
            Self::Email => self.email(text)?,
            Self::Phone => self.phone(text)?,
            Self::Custom(custom) => {
                let normalized =
                    (custom.normalize)(text).ok_or_else(|| self.refuse("its function refused it"))?;
                Zeroizing::new(normalized)
            }
        })
    }

    fn email(&self, text: &str) -> Result<Zeroizing<String>, IndexError> {
        let composed = nfkc(text);
        let lower = lowercase(composed.trim());
        // Lower case may have decomposed letters.
        let email = nfkc(&lower);
        if email.is_empty() {
            return Ok(email);
        }
        if email.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(self.refuse("an email address has no white space or control characters"));
        }
        match email.rsplit_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() => Ok(email),
            _ => Err(self.refuse("an email address has text on both sides of an `@`")),
        }
    }

    fn phone(&self, text: &str) -> Result<Zeroizing<String>, IndexError> {
        let composed = nfkc(text);
        let mut number = Zeroizing::new(String::with_capacity(composed.len()));
        for c in composed.chars() {
            match c {
                '0'..='9' => number.push(c),
                '+' if number.is_empty() => number.push(c),
                '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
                c if c.is_whitespace() => {}
                _ => return Err(self.refuse("a phone number has digits, and a `+` at its beginning")),
            }
        }
        if number.as_str() == "+" {
            number.clear();
        }
        Ok(number)
    }
}

fn nfkc(text: &str) -> Zeroizing<String> {
    collect(|| text.nfkc())
}

const SIGMA: char = '\u{3c3}';
const FINAL_SIGMA: char = '\u{3c2}';

/// Replaces each sigma, of either form, by the result of `form`, whose argument says whether the sigma ends a word.
fn with_sigmas(text: &str, form: impl Fn(bool) -> char) -> Zeroizing<String> {
    // Both forms have two bytes.
    let mut written = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars().peekable();
    let mut in_word = false;
    while let Some(c) = chars.next() {
        if c == SIGMA || c == FINAL_SIGMA {
            let goes_on = chars.peek().is_some_and(|next| next.is_alphabetic());
            written.push(form(in_word && !goes_on));
        } else {
            written.push(c);
        }
        in_word = c.is_alphabetic();
    }
    written
}

/// Collects characters with exact capacity. A string that grew would leave pieces of the value in
/// memory that is not wiped.
fn collect<I: Iterator<Item = char>>(chars: impl Fn() -> I) -> Zeroizing<String> {
    let len = chars().map(char::len_utf8).sum();
    let mut text = Zeroizing::new(String::with_capacity(len));
    chars().for_each(|c| text.push(c));
    text
}

/// Replaces each character by its full lower-case mapping, regardless of context and language.
fn lowercase(text: &str) -> Zeroizing<String> {
    collect(|| text.chars().flat_map(char::to_lowercase))
}

/// Compares name and version, as in the index's key.
impl PartialEq for Normalizer {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.version() == other.version()
    }
}

impl Eq for Normalizer {}

impl fmt::Debug for Normalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Normalizer({} {})", self.id(), self.version())
    }
}

/// A caller's normalising function, with its name and version; see [`Normalizer::custom`].
#[derive(Clone, Copy)]
pub struct CustomNormalizer {
    name: &'static str,
    version: u32,
    normalize: fn(&str) -> Option<String>,
}

impl fmt::Debug for CustomNormalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomNormalizer({} {})", self.name, self.version)
    }
}
