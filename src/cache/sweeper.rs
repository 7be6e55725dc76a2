//! The sweeper: drops keys that are too old, and hands over keys to refresh.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::refresh::refresh;
use crate::cache::running::Running;
use crate::error::Error;

/// How many entries are swept before yielding to other tasks.
const ENTRIES_PER_TURN: usize = 1000;

impl Cache {
    /// Starts the sweeper, unless it is running.
    pub(super) fn ensure_sweeper(self: &Arc<Self>) -> Result<(), Error> {
        if let Some(running) = Running::claim(&self.sweeper) {
            let cache = Arc::downgrade(self);
            self.tasks.spawn(async move {
                let _running = running;
                sweep_forever(cache).await;
            })?;
        }
        Ok(())
    }
}

async fn sweep_forever(cache: Weak<Cache>) {
    loop {
        let Some(cache) = cache.upgrade() else { return };
        let now = cache.clock.elapsed();
        let (mut due, mut next) = (Vec::new(), None::<Duration>);
        for (swept, entry) in cache.all_entries().iter().enumerate() {
            if let Some(at) = entry.sweep(&cache, now, &mut due) {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
            if swept % ENTRIES_PER_TURN == ENTRIES_PER_TURN - 1 {
                // There may be a hundred thousand entries, and requests on this thread.
                tokio::task::yield_now().await;
            }
        }
        // Evicts what exceeds the bound even if no call does.
        cache.apply_bounds();
        if !due.is_empty() && cache.tasks.spawn(refresh(Arc::clone(&cache), due)).is_err() {
            return;
        }
        // A key that is loaded during the pause is due later than this, less the longest time of its unwrapping: for that
        // long it may be expired and unusable before it is dropped.
        let limits = &cache.limits;
        let earliest = limits.ttl.saturating_sub(limits.refresh_window());
        let pause = next.map_or(earliest, |next| next.saturating_sub(now).min(earliest));
        let sleep = cache.clock.sleep(pause.max(limits.between_sweeps()));
        drop(cache);
        sleep.await;
    }
}
