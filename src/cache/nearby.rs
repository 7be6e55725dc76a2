//! The slots that a thread used last: found without a lock, a count, or a word to other threads.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::slot::Slot;
use crate::context::EncryptionContext;
use crate::key::KeyUsage;

/// How many slots a thread remembers, in 3 KiB.
const PLACES: usize = 128;

thread_local! {
    static NEARBY: RefCell<Box<[Option<Near>]>> = RefCell::new((0..PLACES).map(|_| None).collect());

    /// The place of the slot that this thread has told the bound on keyrings about last.
    static TOLD: Cell<usize> = const { Cell::new(PLACES) };
}

/// A slot, and the cache that it belongs to. An `Arc`, because a weak one would be counted up and down by all threads in
/// one place; keys leave a slot however long it is held.
struct Near {
    cache: u64,
    slot: Arc<Slot>,
}

impl Near {
    fn is(&self, cache: &Cache, context: &EncryptionContext, usage: KeyUsage) -> bool {
        self.cache == cache.id
            && self.slot.key.context == *context
            && self.slot.key.usage == usage
            && !self.slot.is_detached()
    }
}

/// Makes a call that does not wait with the slot of a context and usage. `false`, and no call, while the thread ends.
///
/// The call must not be user code, which might come back here; if it does all the same, through a subscriber of
/// `tracing` for example, the slot is found the slow way.
///
/// The call stands here once: one that stood here twice, for a slot at hand and for one that is looked up, would not be
/// inlined. And it returns nothing: a result that went through here would be moved piece by piece.
#[inline(always)]
pub(super) fn with_slot(
    cache: &Cache,
    context: &EncryptionContext,
    usage: KeyUsage,
    call: impl FnOnce(&Arc<Slot>),
) -> bool {
    // The remainder is less than PLACES, so nothing is lost.
    #[allow(clippy::cast_possible_truncation)]
    let place = (context.hash64() % PLACES as u64) as usize;
    let called = NEARBY.try_with(|nearby| {
        let known = nearby.try_borrow().ok().and_then(|nearby| {
            let near = Ref::filter_map(nearby, |nearby| nearby[place].as_ref());
            near.ok().filter(|near| near.is(cache, context, usage))
        });
        let found;
        let slot = if let Some(near) = &known {
            if cache.is_crowded() {
                tell(cache, near, place);
            }
            &near.slot
        } else {
            found = find(nearby, place, cache, context, usage);
            &found
        };
        call(slot);
    });
    called.is_ok()
}

/// Finds a slot the slow way, and remembers it.
#[cold]
#[inline(never)]
fn find(
    nearby: &RefCell<Box<[Option<Near>]>>,
    place: usize,
    cache: &Cache,
    context: &EncryptionContext,
    usage: KeyUsage,
) -> Arc<Slot> {
    let slot = cache.slot(context, usage);
    if let Ok(mut nearby) = nearby.try_borrow_mut() {
        nearby[place] = Some(Near {
            cache: cache.id,
            slot: Arc::clone(&slot),
        });
    }
    slot
}

/// Tells the bound on keyrings that a slot is in use. Who was used before whom matters only where it will soon have to
/// drop some.
fn tell(cache: &Cache, near: &Near, place: usize) {
    if TOLD.try_with(|told| told.replace(place)).ok() == Some(place) {
        // It was the last one already, as far as this thread knows. The poller tells it for the others.
        near.slot.mark_used();
    } else {
        let _ = cache.slots.get(&near.slot.key);
    }
}
