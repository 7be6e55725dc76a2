//! Prints errors as text with their causes where a program shows their `Debug`.

use std::error::Error;
use std::fmt;

/// Writes an error's text, then a line `caused by: ..` for each cause that the text does not already contain.
///
/// `main` prints the `Debug` of the error that it returns, as do `unwrap` and `expect`. The errors of encx implement
/// `Debug` with this function; a provider's own errors can do the same:
///
/// ```
/// use std::fmt;
///
/// #[derive(thiserror::Error)]
/// #[error("the vault at {host} did not answer; is it unsealed?")]
/// struct VaultError {
///     host: String,
///     source: std::io::Error,
/// }
///
/// impl fmt::Debug for VaultError {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         encx_core::causes::debug_error(self, f)
///     }
/// }
///
/// let error = VaultError { host: "vault:8200".into(), source: std::io::Error::other("connection refused") };
/// assert_eq!(
///     format!("{error:?}"),
///     "the vault at vault:8200 did not answer; is it unsealed?\ncaused by: connection refused"
/// );
/// ```
///
/// Causes are printed with `Display` only, so a foreign error's fields never show.
///
/// # Errors
///
/// [`fmt::Error`], if the formatter cannot be written to.
pub fn debug_error(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut shown = error.to_string();
    f.write_str(&shown)?;
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.take(MAX_CAUSES) {
        let text = cause.to_string();
        if shown.contains(&text) {
            continue;
        }
        // One line for each cause, even if the foreign error's text has several.
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "\ncaused by: {line}")?;
        shown.push('\n');
        shown.push_str(&text);
    }
    Ok(())
}

/// Bounds the loop: a foreign error may name itself as its cause.
const MAX_CAUSES: usize = 16;

/// Implements `Debug` with [`debug_error`].
#[doc(hidden)]
#[macro_export]
macro_rules! __debug_as_text {
    ($type:ty) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::causes::debug_error(self, f)
            }
        }
    };
}

#[doc(hidden)]
pub use __debug_as_text as debug_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    debug_as_text!(Link);

    fn chain(texts: &[&'static str]) -> Link {
        let (text, causes) = texts.split_first().unwrap();
        let source = (!causes.is_empty()).then(|| Box::new(chain(causes)));
        Link { text, source }
    }

    #[test]
    fn each_cause_has_a_line_and_none_is_repeated() {
        for (texts, shown) in [
            (&["no answer"][..], "no answer"),
            (&["no answer", "refused"], "no answer\ncaused by: refused"),
            (&["no answer: refused", "refused"], "no answer: refused"),
            (&["a", "b c", "c", "d\n  e"], "a\ncaused by: b c\ncaused by: d e"),
        ] {
            assert_eq!(format!("{:?}", chain(texts)), shown);
            assert_eq!(format!("{:#?}", chain(texts)), shown);
        }
        let long: Vec<&str> = "a b c d e f g h i j k l m n o p q r s t u".split(' ').collect();
        assert_eq!(format!("{:?}", chain(&long)).lines().count(), 1 + MAX_CAUSES);
    }
}
