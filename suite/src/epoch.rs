//! Epochs: runs of consecutive messages that share the first half of their nonces, and so one message key.

use std::sync::Arc;

use super::xaes::{MessageKey, PaddedHalf};
use crate::memory::Wiped;

/// An epoch ends with a message whose fresh half nonce has this many low bits zero: after 4096 messages on average,
/// without a counter.
///
/// The bound. Let q messages be encrypted under one data key, by any number of processes. Two of them collide only if
/// both halves of their nonces are equal. Within an epoch the second halves are 96 random bits each, except for the one
/// value in 4096 that ends it. An epoch's length is geometric with mean m = 2¹², so the expected number of pairs that
/// share an epoch is less than q·m, and the probability that any such pair is equal is at most about q·m/2⁹⁶: 2⁻⁴⁴
/// after q = 2⁴⁰ messages. The probability that two epochs have the same first half, also 96 random bits, is then
/// (q/m)²/2⁹⁷ = 2⁻⁴¹, and such a coincidence only makes one epoch of the two. Processes that share the key without
/// knowing of each other change neither probability, so no counter is needed. At most 2⁴⁷ messages should be encrypted
/// under one data key (2⁻³⁷). Longer epochs would gain nothing: shared by 4096 messages, a derivation costs less than a
/// nanosecond for each.
///
/// Two cases share an epoch more widely. A thread in a batch continues with the epoch that it began with, even if another
/// thread has ended it: t threads that only run batches make q·m at most t·q·m. And n undetected copies of one memory
/// (see [`reseed`](crate::memory::reseed)), whose second halves all come from the operating system with `os_nonces` or
/// under `KcXaes256Gcm`, continue with one epoch: they add about (n·m)²/2⁹⁷, which is 2⁻³³ for a million copies.
const EPOCH_END_BITS: u32 = 12;

/// Tells whether a half nonce ends the epoch. That half nonce is then discarded.
#[inline]
pub(super) fn ends_epoch(second_half: &PaddedHalf) -> bool {
    let [.., high, low, _, _, _, _] = *second_half;
    u16::from_be_bytes([high, low]).trailing_zeros() >= EPOCH_END_BITS
}

/// A message key for encryption, and the fork count when it began. Immutable.
#[doc(hidden)]
pub struct Epoch {
    pub(super) key: Wiped<MessageKey>,
    /// Prevents a copy of this process's memory from continuing with the same epoch.
    pub(super) fork: u64,
}

impl Epoch {
    /// Tells whether a half nonce that was drawn at this fork count may be used in this epoch.
    #[inline]
    pub(super) fn takes(&self, second_half: &PaddedHalf, fork: Option<u64>) -> bool {
        fork == Some(self.fork) && !ends_epoch(second_half)
    }
}

/// The epoch that a caller keeps for a data key, and a new one if it began during use.
///
/// The caller keeps epochs, because it has a place that all threads read anyway. If two threads begin an epoch at once,
/// one of the epochs is merely shorter.
#[doc(hidden)]
pub struct Epochs<'a> {
    pub(super) now: Option<&'a Epoch>,
    pub(super) begun: Option<Arc<Epoch>>,
}

impl<'a> Epochs<'a> {
    /// Continues the caller's epoch, if there is one.
    #[inline]
    #[doc(hidden)]
    pub fn new(now: Option<&'a Arc<Epoch>>) -> Self {
        Self {
            now: now.map(Arc::as_ref),
            begun: None,
        }
    }

    /// Returns the epoch to keep from now on, if a new one began.
    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn begun(self) -> Option<Arc<Epoch>> {
        self.begun
    }

    #[inline]
    pub(super) fn current(&self) -> Option<&Epoch> {
        self.begun.as_deref().or(self.now)
    }
}
