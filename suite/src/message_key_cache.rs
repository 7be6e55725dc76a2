//! Caches the message keys with which one data key has opened messages, for later messages of the same epoch.
//!
//! A hit skips only the derivation: commitment and tag are always checked. A key enters the cache only after messages
//! with correct tags asked for it, so an attacker without the data key cannot fill the cache. The cache is dropped with
//! the data key.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bytes::HalfNonce;
use super::xaes::MessageKey;
use crate::memory::Wiped;

/// How many message keys of one data key are kept at most, each for one epoch of about 4096
/// messages. The places take 2 KiB.
pub(super) const PLACES: usize = 128;

/// How many message keys all caches of this process keep together: about 16 MiB.
const MAX_KEPT: usize = 16_384;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How many opened messages without a kept key a thread remembers, across all data keys: in 4 KiB.
const REMEMBERED: usize = 512;

thread_local! {
    /// The [`MessageKeyCache::mark`] of each remembered message. Per thread rather than per cache: threads that open many
    /// different messages and all write to one place would wait for each other.
    static OPENED: [Cell<u64>; REMEMBERED] = const { [const { Cell::new(0) }; REMEMBERED] };
}

/// Keeps message keys by the first half of the nonce, whose random bits select the place.
///
/// It keeps a message key that a thread asked for twice, with not too many others in between. Entries stay unchanged
/// until the cache is dropped, so a lookup needs no reference count and no lock. Data keys are unwrapped again, with an
/// empty cache, before it grows stale.
pub(super) struct MessageKeyCache {
    /// Allocated for the first kept key.
    places: OnceLock<Box<[Place]>>,
}

type Place = OnceLock<Box<CachedMessageKey>>;

/// A message key, and its share of the total that all caches may keep.
pub(super) struct CachedMessageKey {
    pub(super) key: Wiped<MessageKey>,
    _share: Share,
}

/// Permission to keep a message key that is about to be derived.
pub(super) struct Admission(Share);

impl MessageKeyCache {
    pub(super) fn new() -> Self {
        Self {
            places: OnceLock::new(),
        }
    }

    /// Returns the message key of a first half, if it is kept.
    #[inline(always)]
    pub(super) fn find(&self, first_half: &HalfNonce) -> Option<&MessageKey> {
        let kept = self.place(first_half)?.get()?;
        (kept.key.first_half == *first_half).then_some(&*kept.key)
    }

    /// Decides whether to keep the message key of a first half, if its message is authentic.
    pub(super) fn admit(&self, first_half: &HalfNonce) -> Option<Admission> {
        if !self.was_missed(first_half) || self.is_taken(first_half) {
            return None;
        }
        Share::take().map(Admission)
    }

    /// Records that a message was opened whose key is not kept.
    pub(super) fn note_miss(&self, first_half: &HalfNonce) {
        let (mark, at) = self.mark(first_half);
        OPENED.with(|opened| opened[at].set(mark));
    }

    /// Keeps a message key that has just opened a message.
    pub(super) fn keep(&self, kept: Box<CachedMessageKey>) {
        self.places
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(PLACES).collect());
        if let Some(place) = self.place(&kept.key.first_half) {
            // Another thread may have been faster.
            let _ = place.set(kept);
        }
    }

    /// Tells whether this thread has recently opened a message of this first half.
    fn was_missed(&self, first_half: &HalfNonce) -> bool {
        let (mark, at) = self.mark(first_half);
        OPENED.with(|opened| opened[at].get() == mark)
    }

    /// Returns a mark that nearly always distinguishes a first half under this data key, and where to remember it.
    fn mark(&self, first_half: &HalfNonce) -> (u64, usize) {
        // All bytes are random, so any will do.
        let [first, second, rest @ ..] = *first_half;
        let [c, d, e, f, g, h, i, j, ..] = rest;
        let cache = std::ptr::from_ref(self).addr() as u64;
        let mark = u64::from_le_bytes([c, d, e, f, g, h, i, j]) ^ cache;
        (
            mark,
            usize::from(u16::from_le_bytes([first, second])) % REMEMBERED,
        )
    }

    fn is_taken(&self, first_half: &HalfNonce) -> bool {
        self.place(first_half).is_some_and(|place| place.get().is_some())
    }

    /// Counts the kept message keys, and the places.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let places = || self.places.get().into_iter().flatten();
        let kept = places().filter(|place| place.get().is_some());
        (kept.count(), places().count())
    }

    /// Finds the place of a first half. `None` while nothing is kept.
    #[inline(always)]
    fn place(&self, first_half: &HalfNonce) -> Option<&Place> {
        let [.., high, low] = *first_half;
        let number = usize::from(u16::from_be_bytes([high, low]));
        self.places.get()?.get(number % PLACES)
    }
}

impl CachedMessageKey {
    pub(super) fn new(key: Wiped<MessageKey>, admission: Admission) -> Box<Self> {
        Box::new(Self {
            key,
            _share: admission.0,
        })
    }
}

/// A share of the total that all caches may keep; returned on drop.
pub(super) struct Share;

impl Share {
    fn take() -> Option<Self> {
        let more = |kept| (kept < MAX_KEPT).then(|| kept + 1);
        // Constructed only if a share was taken, because `Drop` returns one.
        shares_taken()
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Self)
    }
}

#[cfg(not(test))]
#[inline]
fn shares_taken() -> &'static AtomicUsize {
    &KEPT
}

#[cfg(test)]
thread_local! {
    static KEPT_APART: std::cell::Cell<Option<&'static AtomicUsize>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn shares_taken() -> &'static AtomicUsize {
    KEPT_APART.get().unwrap_or(&KEPT)
}

/// Counts this thread's shares separately, so that other tests of the process do not interfere.
#[cfg(test)]
pub(super) fn count_shares_apart() {
    KEPT_APART.set(Some(Box::leak(Box::default())));
}

/// Forgets what this thread has opened, as if it were another thread.
#[cfg(test)]
pub(super) fn forget_opened() {
    OPENED.with(|opened| opened.iter().for_each(|mark| mark.set(0)));
}

/// Takes every remaining share.
#[cfg(test)]
pub(super) fn take_all_shares() -> Vec<Share> {
    // Takes one too many if the limit does not hold.
    std::iter::from_fn(Share::take).take(MAX_KEPT + 1).collect()
}

impl Drop for Share {
    fn drop(&mut self) {
        shares_taken().fetch_sub(1, Ordering::Relaxed);
    }
}
