//! Where a value belongs that does not open in its row.

use std::fmt;

use encx::EncryptionContext;
use encx::keys::KeyUsage;

/// Where a value belongs that does not open in its row.
///
/// `Display` continues the sentence "the value belongs elsewhere: ".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The encryption context of its key, if it differs from the row's.
    pub context: Option<EncryptionContext>,
    /// The usage of its key, if that is not data.
    pub usage: Option<KeyUsage>,
    /// Where it opens.
    pub opens: Opens,
}

/// Whether a place was found in which a value opens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Opens {
    /// In the same column and row, under the other context: the row names the wrong context.
    Here,
    /// In this place, such as `users.email of row 7`.
    In(String),
    /// In none of this many places.
    Nowhere(usize),
    /// Not tried.
    Untried,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(usage) = self.usage {
            write!(f, "its key is for `{}` and encrypts no column", usage.name())?;
            if self.context.is_some() {
                f.write_str("; it ")?;
            }
        } else {
            f.write_str("it ")?;
        }
        if let Some(context) = &self.context {
            f.write_str("belongs to encryption context")?;
            pairs(context, f)?;
        }
        let and = if self.context.is_some() { ", and " } else { "" };
        match &self.opens {
            Opens::Here => write!(f, "{and}opens there in this row: the row names another context"),
            Opens::In(place) => write!(f, "{and}opens as {place}"),
            Opens::Nowhere(places) => write!(f, "{and}opens in none of the {places} places that were tried"),
            Opens::Untried => Ok(()),
        }
    }
}

/// Writes the pairs of a context. Quotes text that could be read as more than one part.
fn pairs(context: &EncryptionContext, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_plain = |text: &str| {
        text.chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '=' | '"' | '\''))
    };
    for (key, value) in context.pairs() {
        let mut part = |before: char, text: &str| match is_plain(text) {
            true => write!(f, "{before}{text}"),
            false => write!(f, "{before}{text:?}"),
        };
        part(' ', key)?;
        part('=', value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_in_a_sentence() {
        let context = EncryptionContext::from_pairs([("tenantId", "t 2"), ("purpose", "pii")]).unwrap();
        let told = |context, usage, opens| {
            Elsewhere {
                context,
                usage,
                opens,
            }
            .to_string()
        };
        assert_eq!(
            told(Some(context.clone()), None, Opens::Here),
            "it belongs to encryption context purpose=pii tenantId=\"t 2\", and opens there in this row: the row names \
             another context"
        );
        assert_eq!(
            told(None, None, Opens::In("users.email of row 7".to_owned())),
            "it opens as users.email of row 7"
        );
        assert_eq!(
            told(Some(context), Some(KeyUsage::Index), Opens::Untried),
            "its key is for `index` and encrypts no column; it belongs to encryption context purpose=pii tenantId=\"t 2\""
        );
    }
}
