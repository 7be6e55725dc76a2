//! The poller: follows changes of keys in the key store by polling, and by hints in between.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use encx_core::key::Scope;
use encx_core::store::{CursorPosition, KeyChange, KeyChanges, KeyHint};
use futures_core::Stream;

use crate::cache::reread::read_again;
use crate::cache::running::Running;
use crate::cache::vanished::check_vanished;
use crate::cache::{Cache, Entry};
use crate::error::Error;

/// How many hints are collected before the key store is read.
const HINTS_PER_READ: usize = 1000;

impl Cache {
    /// Starts the poller, unless it is running.
    pub(super) fn ensure_poller(self: &Arc<Self>) -> Result<(), Error> {
        if let Some(running) = Running::claim(&self.polls.running) {
            let cache = Arc::downgrade(self);
            self.tasks.spawn(async move {
                let _running = running;
                poll_forever(cache).await;
            })?;
        }
        Ok(())
    }

    /// Polls now, or waits for the poll in flight. A failure shows in
    /// [`is_store_unreachable`](super::polls::Polls::is_store_unreachable).
    pub(super) async fn poll_once(self: &Arc<Self>) -> Result<(), Error> {
        let of = Arc::clone(self);
        let polled = self
            .polls
            .flights
            .join((), &self.clock, async move {
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

    /// Polls; a poll that began before `tick` does not suffice. `false` if it failed.
    pub(super) async fn poll_since(self: &Arc<Self>, tick: u64) -> Result<bool, Error> {
        // The first may have been in flight already.
        for _ in 0..2 {
            self.poll_once().await?;
            if self.polls.tick.load(Ordering::Acquire) > tick {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Records that a poll failed, even by hanging or panicking: once, however many callers wait for it.
struct Attempt<'a>(&'a Cache);

impl Attempt<'_> {
    fn succeeded(self) {
        self.0.polls.unreachable.store(false, Ordering::Release);
        std::mem::forget(self);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.counters.failed_polls.fetch_add(1, Ordering::Relaxed);
        self.0.polls.unreachable.store(true, Ordering::Release);
    }
}

async fn poll_forever(cache: Weak<Cache>) {
    let Some(mut hints) = cache.upgrade().map(|cache| cache.store.changes()) else {
        return;
    };
    loop {
        let Some(strong) = cache.upgrade() else { return };
        touch_used(&strong);
        if strong.poll_once().await.is_err() {
            return;
        }
        strong.begin_prefetch();
        let sleep = strong.clock.sleep(pause_between_polls(&strong));
        drop(strong);
        tokio::pin!(sleep);
        // Hints are handled as they arrive until the next poll is due.
        loop {
            let hinted = tokio::select! {
                // First, so that a flood of hints cannot delay a poll.
                biased;
                () = &mut sleep => break,
                hinted = next_hints(&mut hints) => hinted,
            };
            let Some(strong) = cache.upgrade() else { return };
            tokio::select! {
                () = follow_hints(&strong, &hinted) => {}
                // With the time-out of a load: a key store that hangs does not stop the polls.
                () = strong.clock.sleep(strong.limits.load_timeout) => {}
            }
            // Hints of keys that are not cached need no wait, so yield to other tasks.
            tokio::task::yield_now().await;
        }
    }
}

/// Reports entries used through a handle, which bypasses the bound on keyrings, to that bound.
fn touch_used(cache: &Cache) {
    let used = cache.entries.iter().filter(|(_, entry)| entry.take_used());
    // Collected first, so that a lookup does not wait for the iteration's lock.
    let used: Vec<_> = used.map(|(_, entry)| entry).collect();
    for entry in used {
        let _ = cache.entries.get(&entry.key);
    }
}

/// Polls twice in a `state_ttl`, so that a change is seen within it; more often while polls fail.
fn pause_between_polls(cache: &Cache) -> Duration {
    let part = if cache.polls.is_store_unreachable() { 10 } else { 2 };
    // Up to a tenth less, so that processes that started together do not stay in step.
    (cache.limits.state_ttl / part).mul_f64(1.0 - 0.1 * rand::random::<f64>())
}

/// Follows the key store's changes since the last poll.
async fn poll(cache: &Arc<Cache>) -> Result<(), Error> {
    let polls = &cache.polls;
    let (began, tick) = (cache.clock.elapsed(), cache.tick());
    let mut cursor = *polls.cursor.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let page = cache.ask(cache.store.changed_since(&cursor)).await?;
        let followed_since = cache.tick();
        if cursor.position() == CursorPosition::Now {
            // Before the first poll nothing was followed: earlier reads are repeated.
            let missed = |entry: &Arc<Entry>| entry.records().is_none_or(|read| read.tick < followed_since);
            let missed = cache.all_entries().into_iter().filter(missed);
            read_again(cache, missed.map(|entry| (entry.scope, entry)).collect()).await?;
        }
        follow_changes(cache, &page.changes, followed_since).await?;
        cursor = page.next;
        // Page by page, so that an interrupted poll continues from here.
        *polls.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
        if !page.more {
            break;
        }
    }
    // Every second poll, so once in a `state_ttl`.
    if began.saturating_sub(polls.checked_at.get()) > cache.limits.state_ttl / 2 {
        check_vanished(cache, tick).await?;
        polls.checked_at.advance_to(began);
    }
    polls.polled_at.advance_to(began);
    let until = began.saturating_add(cache.limits.state_ttl);
    polls.polled_until.advance_to(until);
    polls.tick.fetch_max(tick, Ordering::AcqRel);
    Ok(())
}

/// Reloads the cached scopes that changed.
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
        // Even if the change is known: a read that began before it may still be in flight.
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
        // The reload failed, but the withdrawals were read.
        for entry in withdrawn {
            entry.forget(cache.tick());
        }
    }
    followed
}

async fn follow_hints(cache: &Arc<Cache>, hints: &[KeyHint]) {
    if hints.iter().any(|hint| !matches!(hint, KeyHint::Changed { .. })) {
        cache.registration.wake();
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
        // A hint may be lost: the next poll finds the change.
        tracing::warn!(target: "encx::store", %error, "reading changed keys failed");
    }
    cache.begin_prefetch();
}

/// Waits for a hint, and takes the others that are there.
async fn next_hints(hints: &mut KeyChanges) -> Vec<KeyHint> {
    let mut taken = Vec::new();
    std::future::poll_fn(|context| {
        while taken.len() < HINTS_PER_READ {
            match Pin::new(&mut *hints).poll_next(context) {
                std::task::Poll::Ready(Some(hint)) => taken.push(hint),
                std::task::Poll::Ready(None) => {
                    // The store no longer pushes; polls remain.
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
