//! Epochs: many messages in a row that share the first half of their nonces, and so one message key.

use std::sync::Arc;

use super::backend::Cipher;
use super::fastest::Fastest;
use super::xaes::{MessageKey, PaddedHalf};
use crate::memory::Wiped;

/// An epoch ends with a message whose fresh half nonce has so many low bits all zero: after 4096 messages on average,
/// and nobody counts.
///
/// The bound. Say that q messages are encrypted under one data key, by any number of processes. Two of them are in
/// danger only if both halves of their nonces are equal. Within an epoch the second halves are 96 random bits each, but
/// for the one value in 4096 that ends it; an epoch's length is geometric with mean m = 2¹², so the expected number of
/// pairs that share an epoch is less than q·m, and the probability that any such pair is equal is about q·m/2⁹⁶ at most:
/// 2⁻⁴⁴ after q = 2⁴⁰ messages. That two epochs have the same first half, also 96 random bits, has probability
/// (q/m)²/2⁹⁷ = 2⁻⁴¹ then, and only makes one epoch of the two. Neither changes if processes share the key without
/// knowing of each other, which is why no counter is needed. At most 2⁴⁷ messages should be encrypted under one data key
/// (2⁻³⁷). Longer epochs would gain nothing: shared by 4096 messages, a derivation costs each less than a nanosecond.
///
/// Two things share an epoch more widely. A thread that is in a batch goes on with the epoch that it began with, even if
/// another thread has ended it: t threads that do nothing but batches make q·m at most t·q·m. And n copies of a memory
/// that nobody noticed (see [`reseed`](crate::memory::reseed)), whose second halves all come from the operating system with
/// `os_nonces` or under `KcXaes256Gcm`, go on with one epoch: they add about (n·m)²/2⁹⁷, which is 2⁻³³ for a million copies.
const EPOCH_END_BITS: u32 = 12;

/// Tells whether a half nonce ends the epoch. It is then discarded.
#[inline]
pub(super) fn ends_epoch(second_half: &PaddedHalf) -> bool {
    let [.., high, low, _, _, _, _] = *second_half;
    u16::from_be_bytes([high, low]).trailing_zeros() >= EPOCH_END_BITS
}

/// A message key to encrypt with, and the fork count when it began. Nothing in it ever changes.
#[doc(hidden)]
pub struct Epoch<C: Cipher = Fastest> {
    pub(super) key: Wiped<MessageKey<C>>,
    /// A copy of this process's memory must not go on with the same epoch.
    pub(super) fork: u64,
}

impl<C: Cipher> Epoch<C> {
    /// Tells whether a half nonce that was drawn at this fork count may be used in this epoch.
    #[inline]
    pub(super) fn takes(&self, second_half: &PaddedHalf, fork: Option<u64>) -> bool {
        fork == Some(self.fork) && !ends_epoch(second_half)
    }
}

/// The epoch that a caller keeps for a data key, and the one that began while it was used.
///
/// The caller keeps epochs, because it has a place that all threads read anyway. Two threads that begin an epoch at once
/// only make one of them shorter.
#[doc(hidden)]
pub struct Epochs<'a, C: Cipher = Fastest> {
    pub(super) now: Option<&'a Epoch<C>>,
    pub(super) begun: Option<Arc<Epoch<C>>>,
}

impl<'a, C: Cipher> Epochs<'a, C> {
    /// Goes on with the epoch that is kept, if there is one.
    #[inline]
    #[doc(hidden)]
    pub fn new(now: Option<&'a Arc<Epoch<C>>>) -> Self {
        Self {
            now: now.map(Arc::as_ref),
            begun: None,
        }
    }

    /// Returns the epoch to keep from now on, if another began.
    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn begun(self) -> Option<Arc<Epoch<C>>> {
        self.begun
    }

    #[inline]
    pub(super) fn current(&self) -> Option<&Epoch<C>> {
        self.begun.as_deref().or(self.now)
    }
}
