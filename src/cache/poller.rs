//! What runs without a caller: the sweeper, which empties entries, and the poller, which follows the key store.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_core::Stream;

use crate::cache::entry::{Entry, tidy_seats};
use crate::cache::refresh::refresh;
use crate::cache::single_flight::{Flights, Tasks};
use crate::cache::{Cache, Limits, prefetch, vanished};
use crate::clock::Moment;
use crate::error::Error;
use crate::key::Scope;
use crate::store::{
    ChangeCursor, CursorPosition, KeyChange, KeyChanges, KeyHint, KeyRecord, KeyStore, StoreError,
};

/// How many scopes one read of the key store asks for.
const SCOPES_PER_READ: usize = 1000;

/// How often a read that another change overtook is repeated.
const MAX_ATTEMPTS: usize = 8;

/// How many hints are taken together before the key store is read.
const HINTS_PER_READ: usize = 1000;

/// How many entries are swept before others have their turn.
const ENTRIES_PER_TURN: usize = 1000;

/// The state of the sweeper and the poller.
#[derive(Debug)]
pub(crate) struct Background {
    tasks: Tasks,
    sweeper: RunsIn,
    poller: RunsIn,
    polls: Flights<(), ()>,
    cursor: Mutex<ChangeCursor>,
    /// When the last poll that succeeded began.
    polled_at: Moment,
    /// Until when that is believed without asking anybody.
    polled_until: Moment,
    /// Where the last poll that succeeded began, in the order of events.
    polled_tick: AtomicU64,
    /// When the key store was last asked whether it still has the keys in memory.
    checked_at: Moment,
    unreachable: AtomicBool,
}

impl Background {
    /// Begins at `now`, when nothing is held yet that could have changed.
    pub(crate) fn new(tasks: &Tasks, limits: &Limits, now: Duration) -> Self {
        Self {
            tasks: tasks.clone(),
            sweeper: RunsIn::default(),
            poller: RunsIn::default(),
            polls: Flights::new(tasks, limits.load_timeout),
            cursor: Mutex::new(ChangeCursor::now()),
            polled_at: Moment::new(now),
            polled_until: Moment::new(now.saturating_add(limits.state_ttl)),
            polled_tick: AtomicU64::new(0),
            checked_at: Moment::new(now),
            unreachable: AtomicBool::new(false),
        }
    }

    /// Returns the moment as of which this process knows all changes of keys that it holds.
    pub(crate) fn polled_at(&self) -> Duration {
        self.polled_at.get()
    }

    /// Returns the moment until which that suffices.
    #[inline]
    pub(crate) fn polled_until(&self) -> Duration {
        self.polled_until.get()
    }

    /// Tells whether the last poll failed.
    pub(crate) fn is_store_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Acquire)
    }

    /// Starts the sweeper and the poller if they do not run, as at first, after their runtime ended, and in a process that was
    /// forked.
    pub(crate) fn ensure_running(&self, cache: &Arc<Cache>) -> Result<(), Error> {
        if let Some(running) = Running::claim(&self.sweeper) {
            let cache = Arc::downgrade(cache);
            self.tasks.spawn(async move {
                let _running = running;
                sweep_forever(cache).await;
            })?;
        }
        if let Some(running) = Running::claim(&self.poller) {
            let cache = Arc::downgrade(cache);
            self.tasks.spawn(async move {
                let _running = running;
                poll_forever(cache).await;
            })?;
        }
        cache.fleet.ensure_running(cache)
    }

    /// Polls now, or waits for the poll that is under way. Its failure shows in
    /// [`is_store_unreachable`](Self::is_store_unreachable).
    pub(crate) async fn poll_once(&self, cache: &Arc<Cache>) -> Result<(), Error> {
        let of = Arc::clone(cache);
        let polled = self
            .polls
            .join((), &cache.clock, async move {
                let attempt = Attempt(&of);
                poll(&of).await.inspect_err(|error| {
                    tracing::warn!(target: "encx::store", %error, "polling the key store failed");
                })?;
                attempt.succeeded();
                Ok(())
            })
            .await;
        match polled {
            Err(error @ (Error::ShutDown | Error::NoRuntime)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Polls, not satisfied with a poll that began before `tick`. `false` if that failed.
    pub(super) async fn poll_since(&self, cache: &Arc<Cache>, tick: u64) -> Result<bool, Error> {
        // The first may be one that was under way already.
        for _ in 0..2 {
            self.poll_once(cache).await?;
            if self.polled_tick.load(Ordering::Acquire) > tick {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Notes that a poll failed, also if it hung or panicked: once, however many wait for it.
struct Attempt<'a>(&'a Cache);

impl Attempt<'_> {
    fn succeeded(self) {
        self.0.background.unreachable.store(false, Ordering::Release);
        std::mem::forget(self);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.counters.failed_polls.fetch_add(1, Ordering::Relaxed);
        self.0.background.unreachable.store(true, Ordering::Release);
    }
}

/// The number of the process in which a background task runs, or 0. By `fork` this comes along, and the task does not.
pub(super) type RunsIn = Arc<AtomicU32>;

/// Marks a background task as running for as long as it exists.
pub(super) struct Running {
    runs_in: RunsIn,
    process: u32,
}

impl Running {
    /// Returns `None` if the task runs already.
    pub(super) fn claim(runs_in: &RunsIn) -> Option<Self> {
        Self::claim_for(runs_in, std::process::id())
    }

    fn claim_for(runs_in: &RunsIn, process: u32) -> Option<Self> {
        // Read first: every slow call comes by here.
        let now = runs_in.load(Ordering::Acquire);
        let claimed = now != process
            && runs_in
                .compare_exchange(now, process, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        claimed.then(|| Self {
            runs_in: Arc::clone(runs_in),
            process,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not what another process claimed, of which this one's task is a copy that never ran.
        let _ = self
            .runs_in
            .compare_exchange(self.process, 0, Ordering::AcqRel, Ordering::Acquire);
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
                // There may be a hundred thousand, and requests on this thread.
                tokio::task::yield_now().await;
            }
        }
        // What exceeds the bound is dropped even if nobody calls any more.
        cache.apply_bounds();
        tidy_seats();
        if !due.is_empty() && cache.tasks.spawn(refresh(Arc::clone(&cache), due)).is_err() {
            return;
        }
        // A key that comes meanwhile has its moment later than that from now, less the time that its unwrapping
        // takes at most: it may be refused for that long before it is dropped.
        let limits = &cache.limits;
        let earliest = limits.ttl.saturating_sub(limits.refresh_window());
        let pause = next.map_or(earliest, |next| next.saturating_sub(now).min(earliest));
        let sleep = cache.clock.sleep(pause.max(limits.between_sweeps()));
        drop(cache);
        sleep.await;
    }
}

async fn poll_forever(cache: Weak<Cache>) {
    let Some(mut hints) = cache.upgrade().map(|cache| cache.store.changes()) else {
        return;
    };
    loop {
        let Some(strong) = cache.upgrade() else { return };
        touch_used(&strong);
        if strong.background.poll_once(&strong).await.is_err() {
            return;
        }
        tidy_seats();
        prefetch::begin(&strong);
        let sleep = strong.clock.sleep(pause_between_polls(&strong));
        drop(strong);
        tokio::pin!(sleep);
        // Hints are taken as they come until it is time for the next poll.
        loop {
            let hinted = tokio::select! {
                // First, so that no flood of hints puts off a poll.
                biased;
                () = &mut sleep => break,
                hinted = next_hints(&mut hints) => hinted,
            };
            let Some(strong) = cache.upgrade() else { return };
            tokio::select! {
                () = follow_hints(&strong, &hinted) => {}
                // As every load: a key store that hangs does not stop the polls.
                () = strong.clock.sleep(strong.limits.load_timeout) => {}
            }
            // Hints of keys that are not held cost no wait: others have their turn all the same.
            tokio::task::yield_now().await;
        }
    }
}

/// Tells the bound on keyrings which ones were used through a handle, which does not pass by it.
fn touch_used(cache: &Cache) {
    let used = cache.entries.iter().filter(|(_, entry)| entry.take_used());
    // Collected first, so that a look-up does not wait for the iteration's own lock.
    let used: Vec<_> = used.map(|(_, entry)| entry).collect();
    for entry in used {
        let _ = cache.entries.get(&entry.key);
    }
}

/// Polls twice in a `state_ttl`, so that a change is seen within it; more often while polls fail.
fn pause_between_polls(cache: &Cache) -> Duration {
    let part = if cache.background.is_store_unreachable() {
        10
    } else {
        2
    };
    // Up to a tenth less, so that a fleet that started together does not stay together.
    (cache.limits.state_ttl / part).mul_f64(1.0 - 0.1 * rand::random::<f64>())
}

/// Follows the key store's changes since the last poll.
async fn poll(cache: &Arc<Cache>) -> Result<(), Error> {
    let background = &cache.background;
    let (began, tick) = (cache.clock.elapsed(), cache.tick());
    let mut cursor = *background.cursor.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let page = cache.store.changed_since(&cursor).await?;
        let followed_since = cache.tick();
        if cursor.position() == CursorPosition::Now {
            // Before the first poll nothing was followed: what was read until then is read again.
            let missed = |entry: &Arc<Entry>| entry.records().is_none_or(|read| read.tick < followed_since);
            let missed = cache.all_entries().into_iter().filter(missed);
            read_again(cache, missed.map(|entry| (entry.scope, entry)).collect()).await?;
        }
        follow_changes(cache, &page.changes, followed_since).await?;
        cursor = page.next;
        // Page by page, so that a poll that is cut off goes on from here.
        *background.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
        if !page.more {
            break;
        }
    }
    // Of the two polls in a `state_ttl`, one.
    if began.saturating_sub(background.checked_at.get()) > cache.limits.state_ttl / 2 {
        vanished::check(cache, tick).await?;
        background.checked_at.advance_to(began);
    }
    background.polled_at.advance_to(began);
    let until = began.saturating_add(cache.limits.state_ttl);
    background.polled_until.advance_to(until);
    background.polled_tick.fetch_max(tick, Ordering::AcqRel);
    Ok(())
}

/// Reads again what changed, of what is in memory.
async fn follow_changes(cache: &Arc<Cache>, changes: &[KeyChange], followed_since: u64) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let entries: HashMap<_, _> = cache
        .all_entries()
        .into_iter()
        .map(|entry| (entry.scope, entry))
        .collect();
    let mut outdated: HashMap<Scope, Arc<Entry>> = HashMap::new();
    let mut withdrawn = Vec::new();
    for change in changes {
        let Some(entry) = entries.get(&change.scope) else {
            continue;
        };
        // Also where the change is known: a read that began before it may still be under way.
        entry.expect_change(followed_since);
        let records = entry.records();
        let known = records.as_ref().and_then(|records| records.find(change.id));
        if known.is_some_and(|record| record.revision == change.revision) {
            continue;
        }
        outdated.insert(entry.scope, Arc::clone(entry));
        let encrypted = known.is_some_and(|record| record.state.encrypts());
        if !change.state.decrypts() || (encrypted && !change.state.encrypts()) {
            withdrawn.push(Arc::clone(entry));
        }
    }
    let followed = read_again(cache, outdated).await;
    if followed.is_err() {
        // What else is true of these keys could not be read, but that they may not do what they did, was.
        for entry in withdrawn {
            entry.forget(cache.tick());
        }
    }
    followed
}

/// Reads entries again. A read of theirs that is under way is not believed any more.
pub(super) async fn read_again(cache: &Arc<Cache>, entries: HashMap<Scope, Arc<Entry>>) -> Result<(), Error> {
    let mut entries: Vec<_> = entries.into_values().collect();
    let changed = cache.tick();
    for entry in &entries {
        entry.expect_change(changed);
    }
    for _ in 0..MAX_ATTEMPTS {
        if entries.is_empty() {
            return Ok(());
        }
        // Who announced the change that overtook a read may fail to read it: this one does not rely on that.
        entries = read(cache, &entries).await?;
    }
    for entry in entries {
        entry.forget(cache.tick());
    }
    Ok(())
}

/// Reads the scopes of many entries, a thousand in one query. Returns those that another change overtook
/// meanwhile.
pub(crate) async fn read(cache: &Cache, entries: &[Arc<Entry>]) -> Result<Vec<Arc<Entry>>, Error> {
    let mut overtaken = Vec::new();
    let mut failed = None;
    // What fails for some does not keep the others from being read.
    for some in entries.chunks(SCOPES_PER_READ) {
        match read_together(cache, some, &mut overtaken).await {
            // One row that encx did not write must not hide what happened to the keys of others.
            Err(Error::Store(StoreError::Corrupt { .. })) => {
                for entry in some {
                    failed = read_alone(cache, entry, &mut overtaken).await.err().or(failed);
                }
            }
            read => failed = read.err().or(failed),
        }
    }
    failed.map_or(Ok(overtaken), Err)
}

async fn read_alone(cache: &Cache, entry: &Arc<Entry>, overtaken: &mut Vec<Arc<Entry>>) -> Result<(), Error> {
    match read_together(cache, std::slice::from_ref(entry), overtaken).await {
        Err(Error::Store(StoreError::Corrupt { .. })) => {
            // What is in memory may not outlive that, and the next caller learns what is wrong.
            entry.forget(cache.tick());
            Ok(())
        }
        read => read,
    }
}

async fn read_together(
    cache: &Cache,
    entries: &[Arc<Entry>],
    overtaken: &mut Vec<Arc<Entry>>,
) -> Result<(), Error> {
    let scopes: Vec<_> = entries.iter().map(|entry| entry.scope).collect();
    let mut rows: HashMap<Scope, Vec<KeyRecord>> = HashMap::new();
    let read = cache.begin_read();
    cache.counters.loads.fetch_add(1, Ordering::Relaxed);
    for row in cache.store.load(&scopes).await? {
        rows.entry(row.scope).or_default().push(row);
    }
    for entry in entries {
        let rows = rows.remove(&entry.scope).unwrap_or_default();
        match entry.publish_records(cache, rows, read) {
            Ok(records) if entry.is_outdated(&records) => overtaken.push(Arc::clone(entry)),
            Ok(_) => cache.settle(entry),
            // The rows were tampered with: what is in memory may not outlive that.
            Err(_) => entry.forget(read.tick),
        }
    }
    Ok(())
}

async fn follow_hints(cache: &Arc<Cache>, hints: &[KeyHint]) {
    if hints.iter().any(|hint| !matches!(hint, KeyHint::Changed { .. })) {
        cache.fleet.wake();
    }
    let of: HashSet<Scope> = hints
        .iter()
        .filter_map(|hint| match hint {
            KeyHint::Changed { scope } => Some(*scope),
            _ => None,
        })
        .collect();
    let all = of.len() < hints.len() && hints.contains(&KeyHint::Gap);
    let entries = cache
        .all_entries()
        .into_iter()
        .filter(|entry| all || of.contains(&entry.scope));
    let entries = entries.map(|entry| (entry.scope, entry)).collect();
    if let Err(error) = read_again(cache, entries).await {
        // A hint is only a hint: the next poll finds the change.
        tracing::warn!(target: "encx::store", %error, "reading changed keys failed");
    }
    prefetch::begin(cache);
}

/// Waits for a hint, and takes those that are there with it.
async fn next_hints(hints: &mut KeyChanges) -> Vec<KeyHint> {
    let mut taken = Vec::new();
    std::future::poll_fn(|context| {
        while taken.len() < HINTS_PER_READ {
            match Pin::new(&mut *hints).poll_next(context) {
                std::task::Poll::Ready(Some(hint)) => taken.push(hint),
                std::task::Poll::Ready(None) => {
                    // The store pushes no more; polls remain.
                    *hints = KeyChanges::never();
                    taken.push(KeyHint::Gap);
                }
                std::task::Poll::Pending => break,
            }
        }
        if taken.is_empty() {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_fork_left_behind_is_started_anew() {
        let runs_in = RunsIn::default();
        let in_parent = Running::claim_for(&runs_in, 4711).unwrap();
        assert!(Running::claim_for(&runs_in, 4711).is_none());
        // In the child, where the parent's number came along.
        let in_child = Running::claim_for(&runs_in, 4712).unwrap();
        assert!(Running::claim_for(&runs_in, 4712).is_none());
        drop(in_parent);
        assert!(Running::claim_for(&runs_in, 4712).is_none(), "it runs still");
        drop(in_child);
        assert!(Running::claim_for(&runs_in, 4712).is_some());
    }
}
