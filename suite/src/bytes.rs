//! The parts of a message, as arrays of their lengths.

use crate::ciphertext::{COMMITMENT_LEN, TAG_LEN};

pub(crate) type Block = [u8; 16];
pub(crate) type Tag = [u8; TAG_LEN];
pub(crate) type Commitment = [u8; COMMITMENT_LEN];
/// Half of a nonce: the first half selects the message key, the second is its IV.
pub(crate) type HalfNonce = [u8; 12];
