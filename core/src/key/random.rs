//! Randomness from the operating system.

use crate::causes::debug_as_text;

/// The operating system returned no randomness.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed ({0}); nothing was encrypted")]
pub struct RandomError(pub(super) String);

debug_as_text!(RandomError);

/// Fills a buffer with randomness from the operating system.
///
/// # Errors
///
/// [`RandomError`] if the operating system returns none; the buffer's content is then undefined.
#[doc(hidden)]
pub fn fill_from_os(buffer: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(buffer).map_err(|error| RandomError(error.to_string()))
}
