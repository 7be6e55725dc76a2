//! Encryption contexts on the command line: `--context tenantId=t-42 --context purpose=pii`.

use anyhow::{Context as _, Result};
use encx::EncryptionContext;

/// One pair of an encryption context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Parses `KEY=VALUE`. The value may contain `=`.
pub(crate) fn parse_pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(Pair {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write KEY=VALUE, such as tenantId=t-42".to_owned()),
    }
}

/// The options that name one encryption context.
#[derive(Debug, clap::Args)]
pub(crate) struct ContextArgs {
    /// A pair of the encryption context; repeat for each pair
    #[arg(long = "context", short = 'c', value_name = "KEY=VALUE", value_parser = parse_pair, required = true)]
    pairs: Vec<Pair>,
}

impl ContextArgs {
    pub(crate) fn context(&self) -> Result<EncryptionContext> {
        let pairs = self.pairs.iter().map(|pair| (&pair.key, &pair.value));
        EncryptionContext::from_pairs(pairs).context("the encryption context cannot be used")
    }
}

/// Formats pairs as on the command line. Quotes text that could be read as two pairs.
pub(crate) fn describe<'p>(pairs: impl IntoIterator<Item = (&'p String, &'p String)>) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '=' | '"' | '\'');
    let quoted = |text: &str| match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    };
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(key, value)| format!("{}={}", quoted(key), quoted(value)))
        .collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pair_is_not_shown_as_two() {
        let (key, value) = ("note".to_owned(), "x tenantId=t-9".to_owned());
        assert_eq!(describe([(&key, &value)]), "note=\"x tenantId=t-9\"");
    }

    #[test]
    fn a_pair_has_a_key_and_a_value() {
        let pair = parse_pair("path=a=b").unwrap();
        assert_eq!((pair.key.as_str(), pair.value.as_str()), ("path", "a=b"));
        for wrong in ["", "tenantId", "=t", "tenantId="] {
            assert!(parse_pair(wrong).is_err(), "{wrong}");
        }
    }
}
