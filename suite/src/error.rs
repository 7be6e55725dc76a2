//! Errors of sealing and opening.

use crate::causes::debug_as_text;
use crate::ciphertext::MAX_PLAINTEXT_LEN;
use crate::key::RandomError;

/// Why a message did not open.
// As long as a pointer, so that a `Result` with it is moved in whole words.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u64)]
pub enum OpenError {
    /// The commitment does not match: the key is wrong, or nonce or commitment were changed.
    #[error("this was sealed under another key")]
    Commitment,
    /// The key is right, but the bytes or the AAD are not those that were sealed.
    #[error("this was changed since it was sealed, or it belongs to another place")]
    Tag,
    /// There are fewer bytes than in an empty message.
    #[error("too few bytes for a sealed message; was it cut short?")]
    TooShort,
}

debug_as_text!(OpenError);

/// Why a message was not sealed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The operating system returned no randomness for a nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The plaintext is longer than one message may be.
    #[error("one message holds at most {MAX_PLAINTEXT_LEN} bytes, not {found}; large values need a stream")]
    TooLong {
        /// The plaintext's length, in bytes.
        found: usize,
    },
}

debug_as_text!(SealError);

/// The cipher refused: a wrong tag, or more bytes than GCM allows.
#[derive(Debug)]
pub(crate) struct Refused;
