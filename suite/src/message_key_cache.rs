//! The message keys that one data key has opened messages with, kept for the next message of the same epoch.
//!
//! A hit skips the derivation and nothing else: commitment and tag are checked as ever. What is in here was
//! asked for by messages whose tags were right, so nobody without the key can fill it. It dies with the data key.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::backend::Cipher;
use super::bytes::HalfNonce;
use super::xaes::MessageKey;
use crate::memory::Wiped;

/// How many places each level of a cache has. A level is made when the one before has proved too small.
const LEVELS: [usize; 4] = [8, 64, 512, 4096];

/// So often must a key find its place taken before a cache gets another level.
const CROWDED: u32 = 8;

/// How many message keys all caches of this process keep together: about 16 MiB.
const MAX_KEPT: usize = 16_384;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How many messages a thread remembers to have opened whose keys were not kept, under whatever data key: in 4 KiB.
const REMEMBERED: usize = 512;

thread_local! {
    /// Of each, what [`MessageKeyCache::mark`] gives. A thread's own, and not the cache's: where threads that open many different messages
    /// all write to one place, they wait for each other.
    static OPENED: [Cell<u64>; REMEMBERED] = const { [const { Cell::new(0) }; REMEMBERED] };
}

/// Keeps message keys by the first half of the nonce, whose random bits choose the place.
///
/// It grows only where it is used: a message key is kept when a thread asked for it twice, with not too many others in between.
/// What is kept stays as it is until the cache dies, so that to find it takes no count and no lock;
/// a data key is unwrapped anew, and its cache begins anew, before it grows old.
pub(super) struct MessageKeyCache<C: Cipher> {
    /// Made with the first level, for the first key that is kept.
    levels: OnceLock<Box<Levels<C>>>,
    /// How often a key found its place in the last level taken.
    crowd: AtomicU32,
}

type Levels<C> = [OnceLock<Box<[Place<C>]>>; LEVELS.len()];

type Place<C> = OnceLock<Box<CachedMessageKey<C>>>;

/// A message key, and its share of what all caches may keep.
pub(super) struct CachedMessageKey<C: Cipher> {
    pub(super) key: Wiped<MessageKey<C>>,
    _share: Share,
}

/// Leave to keep a message key that is about to be derived.
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

    /// Tells whether the message key of a first half should be kept, if its message proves right.
    pub(super) fn admit(&self, first_half: &HalfNonce) -> Option<Admission> {
        if !self.was_missed(first_half) || self.is_taken(first_half) {
            return None;
        }
        Share::take().map(Admission)
    }

    /// Notes that a message opened whose key was not kept.
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

    /// Keeps a message key, which has just opened a message.
    pub(super) fn keep(&self, kept: Box<CachedMessageKey<C>>) {
        let levels = self
            .levels
            .get_or_init(|| Box::new([const { OnceLock::new() }; LEVELS.len()]));
        levels[0].get_or_init(|| places(LEVELS[0]));
        if let Some(place) = self.place(&kept.key.first_half) {
            // Somebody else may have been faster.
            let _ = place.set(kept);
        }
    }

    /// Tells whether this thread has opened a message of this first half lately.
    fn was_missed(&self, first_half: &HalfNonce) -> bool {
        let (mark, at) = self.mark(first_half);
        OPENED.with(|opened| opened[at].get() == mark)
    }

    /// Returns what tells a first half under this data key from others, as well as need be, and where to remember it.
    fn mark(&self, first_half: &HalfNonce) -> (u64, usize) {
        // They are random, so any bytes do.
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

    /// Notes that a key found its place taken.
    fn note_crowd(&self) {
        let mut levels = self
            .levels
            .get()
            .into_iter()
            .flat_map(|levels| levels.iter().zip(LEVELS));
        let Some((level, count)) = levels.find(|(level, _)| level.get().is_none()) else {
            // Nothing to count for: threads would only wait for each other.
            return;
        };
        if self.crowd.fetch_add(1, Ordering::Relaxed) + 1 >= CROWDED {
            level.get_or_init(|| places(count));
            self.crowd.store(0, Ordering::Relaxed);
        }
    }

    /// Counts the message keys that are kept, and the places that there are.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let levels = || self.levels.get().into_iter().flat_map(|levels| levels.iter());
        let places = || levels().filter_map(OnceLock::get).flatten();
        let kept = places().filter(|place| place.get().is_some());
        (kept.count(), places().count())
    }

    /// Finds where a first half belongs: in the last level that there is.
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
    // Each level has a power of two places, and a division would take as long as a block of AES.
    usize::from(u16::from_be_bytes([high, low])) & (places - 1)
}

/// A share of what all caches may keep; given back when dropped.
pub(super) struct Share;

impl Share {
    fn take() -> Option<Self> {
        let more = |kept| (kept < MAX_KEPT).then(|| kept + 1);
        // Made only if it was taken: what is made is given back.
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

/// Counts what this thread keeps by itself, where no other test of the process takes or gives back a share.
#[cfg(test)]
pub(super) fn count_shares_apart() {
    KEPT_APART.set(Some(Box::leak(Box::default())));
}

/// Forgets what this thread has opened, as if it were another.
#[cfg(test)]
pub(super) fn forget_opened() {
    OPENED.with(|opened| opened.iter().for_each(|mark| mark.set(0)));
}

/// Takes every share that is left.
#[cfg(test)]
pub(super) fn take_all_shares() -> Vec<Share> {
    // One too many, if there is no end to them.
    std::iter::from_fn(Share::take).take(MAX_KEPT + 1).collect()
}

impl Drop for Share {
    fn drop(&mut self) {
        shares_taken().fetch_sub(1, Ordering::Relaxed);
    }
}
