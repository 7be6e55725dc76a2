//! Caches the message keys with which one data key has opened messages, for later messages of the same epoch.
//!
//! A hit skips only the derivation: commitment and tag are always checked. A key enters the cache only after messages
//! with correct tags asked for it, so an attacker without the data key cannot fill the cache. The cache is dropped with
//! the data key.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::backend::Cipher;
use super::bytes::HalfNonce;
use super::xaes::MessageKey;
use crate::memory::Wiped;

/// The number of places in each level of a cache. A new level is added when the last one proves too small.
const LEVELS: [usize; 4] = [8, 64, 512, 4096];

/// How often keys must find their place taken before a cache gets another level.
const CROWDED: u32 = 8;

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
/// It grows only where it is used: it keeps a message key that a thread asked for twice, with not too many others in
/// between. Entries stay unchanged until the cache is dropped, so a lookup needs no reference count and no lock. Data
/// keys are unwrapped again, with an empty cache, before it grows stale.
pub(super) struct MessageKeyCache<C: Cipher> {
    /// Allocated with the first level, for the first kept key.
    levels: OnceLock<Box<Levels<C>>>,
    /// How often a key found its place in the last level taken.
    crowd: AtomicU32,
}

type Levels<C> = [OnceLock<Box<[Place<C>]>>; LEVELS.len()];

type Place<C> = OnceLock<Box<CachedMessageKey<C>>>;

/// A message key, and its share of the total that all caches may keep.
pub(super) struct CachedMessageKey<C: Cipher> {
    pub(super) key: Wiped<MessageKey<C>>,
    _share: Share,
}

/// Permission to keep a message key that is about to be derived.
pub(super) struct Admission(Share);

impl<C: Cipher> MessageKeyCache<C> {
    pub(super) fn new() -> Self {
        Self {
            levels: OnceLock::new(),
            crowd: AtomicU32::new(0),
        }
    }

    /// Returns the message key of a first half, if it is kept.
    #[inline(always)]
    pub(super) fn find(&self, first_half: &HalfNonce) -> Option<&MessageKey<C>> {
        for level in self.levels.get()?.iter() {
            let places = level.get()?;
            let kept = places[index(first_half, places.len())].get();
            if let Some(kept) = kept
                && kept.key.first_half == *first_half
            {
                return Some(&kept.key);
            }
        }
        None
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
        if self.was_missed(first_half) {
            if self.is_taken(first_half) {
                self.note_crowd();
            }
            return;
        }
        let (mark, at) = self.mark(first_half);
        OPENED.with(|opened| opened[at].set(mark));
    }

    /// Keeps a message key that has just opened a message.
    pub(super) fn keep(&self, kept: Box<CachedMessageKey<C>>) {
        let levels = self
            .levels
            .get_or_init(|| Box::new([const { OnceLock::new() }; LEVELS.len()]));
        levels[0].get_or_init(|| places(LEVELS[0]));
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

    /// Records that a key found its place taken.
    fn note_crowd(&self) {
        let mut levels = self
            .levels
            .get()
            .into_iter()
            .flat_map(|levels| levels.iter().zip(LEVELS));
        let Some((level, count)) = levels.find(|(level, _)| level.get().is_none()) else {
            // There is no further level: counting would only make threads wait for each other.
            return;
        };
        if self.crowd.fetch_add(1, Ordering::Relaxed) + 1 >= CROWDED {
            level.get_or_init(|| places(count));
            self.crowd.store(0, Ordering::Relaxed);
        }
    }

    /// Counts the kept message keys, and the places.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let levels = || self.levels.get().into_iter().flat_map(|levels| levels.iter());
        let places = || levels().filter_map(OnceLock::get).flatten();
        let kept = places().filter(|place| place.get().is_some());
        (kept.count(), places().count())
    }

    /// Finds the place of a first half in the last level.
    fn place(&self, first_half: &HalfNonce) -> Option<&Place<C>> {
        let places = self.levels.get()?.iter().map_while(OnceLock::get).last()?;
        places.get(index(first_half, places.len()))
    }
}

impl<C: Cipher> CachedMessageKey<C> {
    pub(super) fn new(key: Wiped<MessageKey<C>>, admission: Admission) -> Box<Self> {
        Box::new(Self {
            key,
            _share: admission.0,
        })
    }
}

fn places<C: Cipher>(count: usize) -> Box<[Place<C>]> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

#[inline]
fn index(first_half: &HalfNonce, places: usize) -> usize {
    let [.., high, low] = *first_half;
    // The number of places is a power of two; a division would take as long as an AES block.
    usize::from(u16::from_be_bytes([high, low])) & (places - 1)
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
