//! The entries that a thread used last, found without a lock, a reference count or communication with other threads.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;

use encx_core::context::EncryptionContext;
use encx_core::key::KeyUsage;

use crate::cache::Cache;
use crate::cache::entry::Entry;

/// How many entries a thread remembers, in 3 KiB.
const PLACES: usize = 128;

thread_local! {
    static NEARBY: RefCell<Box<[Option<Near>]>> = RefCell::new((0..PLACES).map(|_| None).collect());

    /// The place of the entry that this thread last reported to the bound on keyrings.
    static TOLD: Cell<usize> = const { Cell::new(PLACES) };
}

/// An entry, and the cache that it belongs to. A strong reference, because all threads would contend on a weak one's
/// count; keys leave an entry however long it is held.
struct Near {
    cache: u64,
    entry: Arc<Entry>,
}

impl Near {
    fn is(&self, cache: &Cache, context: &EncryptionContext, usage: KeyUsage) -> bool {
        self.cache == cache.id
            && self.entry.key.context == *context
            && self.entry.key.usage == usage
            && !self.entry.is_detached()
    }
}

impl Cache {
    /// Calls a non-waiting function with the entry of a context and usage. `false`, without a
    /// call, while the thread exits.
    ///
    /// The function must not be user code, which might come back here. If it does all the same, for example through a
    /// subscriber of `tracing`, the entry is found the slow way.
    ///
    /// There is only one call site: with two, for a nearby entry and for one that is looked up, the function would not be
    /// inlined. And it returns nothing: a result passing through here would be moved piece by piece.
    #[inline(always)]
    pub(crate) fn with_entry(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        call: impl FnOnce(&Arc<Entry>),
    ) -> bool {
        // The remainder is less than PLACES, so nothing is lost.
        #[allow(clippy::cast_possible_truncation)]
        let place = (context.hash64() % PLACES as u64) as usize;
        let called = NEARBY.try_with(|nearby| {
            let known = nearby.try_borrow().ok().and_then(|nearby| {
                let near = Ref::filter_map(nearby, |nearby| nearby[place].as_ref());
                near.ok().filter(|near| near.is(self, context, usage))
            });
            let found;
            let entry = if let Some(near) = &known {
                if self.is_crowded() {
                    tell(self, near, place);
                }
                &near.entry
            } else {
                found = find(nearby, place, self, context, usage);
                &found
            };
            call(entry);
        });
        called.is_ok()
    }

    /// Returns the entry of a context and usage from this thread's recent ones; otherwise as [`entry`](Self::entry).
    pub(crate) fn nearby_entry(&self, context: &EncryptionContext, usage: KeyUsage) -> Arc<Entry> {
        let mut nearby = None;
        self.with_entry(context, usage, |entry| nearby = Some(Arc::clone(entry)));
        nearby.unwrap_or_else(|| self.entry(context, usage))
    }
}

/// Finds an entry the slow way, and remembers it.
#[cold]
#[inline(never)]
fn find(
    nearby: &RefCell<Box<[Option<Near>]>>,
    place: usize,
    cache: &Cache,
    context: &EncryptionContext,
    usage: KeyUsage,
) -> Arc<Entry> {
    let entry = cache.entry(context, usage);
    if let Ok(mut nearby) = nearby.try_borrow_mut() {
        nearby[place] = Some(Near {
            cache: cache.id,
            entry: Arc::clone(&entry),
        });
    }
    entry
}

/// Tells the bound on keyrings that an entry is in use. The order of use matters only when it will soon have to evict.
fn tell(cache: &Cache, near: &Near, place: usize) {
    if TOLD.try_with(|told| told.replace(place)).ok() == Some(place) {
        // It was already the last one used, as far as this thread knows. The poller reports it for the others.
        near.entry.mark_used();
    } else {
        let _ = cache.entries.get(&near.entry.key);
    }
}
