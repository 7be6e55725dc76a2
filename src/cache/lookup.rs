//! Gets a call the key that it needs: decides, loads what is missing, and decides again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyUsage};

use crate::cache::entry::{Decision, Found, Load, Request, SoFar, Surroundings, Trust, Why};
use crate::cache::later::tell_stale;
use crate::cache::reread::read;
use crate::cache::{Cache, CachedKey, DataCipher, Entry, Purpose, Records, Snapshot, UNKNOWN_TTL};
use crate::error::{Boxed, Error};

/// How many loads a call waits for. Most need one; every race that is lost adds some.
const MAX_STEPS: usize = 16;

impl Cache {
    /// Tells whether a snapshot's states were read or polled for so recently that no closer check is needed.
    #[inline(always)]
    pub(crate) fn is_snapshot_fresh(&self, snapshot: &Snapshot, now: Duration) -> bool {
        now <= snapshot.known_until || now <= self.polls.polled_until()
    }

    /// Tells whether a snapshot's states may be used now without asking. `None` if the key store must be asked.
    pub(crate) fn is_snapshot_current(&self, snapshot: &Snapshot, now: Duration) -> Option<Boxed<()>> {
        if self.is_snapshot_fresh(snapshot, now) {
            return Some(Ok(()));
        }
        match self.surroundings(now).trust(snapshot.known_at) {
            Trust::Ask => None,
            Trust::Current => Some(Ok(())),
            Trust::Refuse => Some(Err(Error::boxed(Error::StaleState))),
            Trust::Stale => {
                self.counters.count(&self.counters.stale_serves);
                Some(Ok(()))
            }
        }
    }

    /// Returns what decisions depend on besides an entry.
    pub(super) fn surroundings(&self, now: Duration) -> Surroundings<'_> {
        Surroundings {
            limits: &self.limits,
            now,
            polled_at: self.polls.polled_at(),
            is_store_unreachable: self.polls.is_store_unreachable(),
            is_unknown: false,
        }
    }

    /// Tells whether records were read recently enough to unwrap by them.
    pub(super) fn is_fresh(&self, records: &Records) -> bool {
        self.surroundings(self.clock.elapsed()).is_fresh(records)
    }

    /// Returns the key that encrypts. Makes or unwraps it if necessary.
    pub(crate) async fn active_key(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<DataCipher>, Error> {
        self.active(entry).await?.cipher()
    }

    /// Returns the active key. Makes or unwraps it if necessary.
    pub(crate) async fn active(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<CachedKey, Error> {
        self.key(entry, Request::Active { may_make: true }).await
    }

    /// Returns the active key. Unwraps it if necessary, but makes none.
    pub(crate) async fn existing_active(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<CachedKey, Error> {
        self.key(entry, Request::Active { may_make: false }).await
    }

    /// Returns the key that decrypts for this id. Unwraps it if necessary.
    pub(crate) async fn key_by_id(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
    ) -> Result<Arc<DataCipher>, Error> {
        self.by_id(entry, id).await?.cipher()
    }

    /// Returns the key of this id. Unwraps it if necessary.
    pub(crate) async fn by_id(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
    ) -> Result<CachedKey, Error> {
        self.key(entry, Request::Key(id)).await
    }

    /// Returns all versions of the entry's scope, for a caller that needs no key.
    pub(crate) async fn current_records(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<Records>, Error> {
        Ok(self.fetch(entry, Request::Versions).await?.records)
    }

    /// Returns all versions of the entry's scope, if `id` is one of them.
    pub(crate) async fn records_with(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
    ) -> Result<Arc<Records>, Error> {
        Ok(self.fetch(entry, Request::VersionsWith(id)).await?.records)
    }

    async fn key(self: &Arc<Self>, entry: &Arc<Entry>, request: Request) -> Result<CachedKey, Error> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        // A request for a key is never answered without one.
        self.fetch(entry, request).await?.key.ok_or(Error::Interrupted)
    }

    /// Decides, loads what is missing, and decides again, until the call has what it needs.
    ///
    /// Each decision is made from what is known at that moment: during a load the key may have been withdrawn, and this
    /// process may have acknowledged that it no longer holds it.
    async fn fetch(self: &Arc<Self>, entry: &Arc<Entry>, request: Request) -> Result<Found, Error> {
        self.prepare().await?;
        let mut so_far = SoFar::default();
        // The first read of an entry may have begun before this call. A later one may not.
        let mut not_before = 0;
        for _ in 0..MAX_STEPS {
            let now = self.clock.elapsed();
            let around = Surroundings {
                is_unknown: self.is_known_to_lack(entry, request, now),
                ..self.surroundings(now)
            };
            match entry.decide(request, &so_far, &around) {
                Decision::Use(found) => {
                    self.count_found(&found, &so_far, now);
                    return Ok(found);
                }
                Decision::Refuse(why, error) => {
                    if why == Why::Unknown && so_far.has_read {
                        self.note_unknown(entry, request, now);
                    }
                    if why.is_of_the_key() {
                        let key = request.id().map(tracing::field::display);
                        tracing::info!(target: "encx::refused", key, %error, "{why}");
                    }
                    return Err(error);
                }
                Decision::Load(Load::Records { again }) => {
                    if again {
                        not_before = self.tick();
                    }
                    so_far.records = Some(self.load(entry, not_before).await?);
                    so_far.has_read = not_before > 0;
                }
                Decision::Load(Load::Key(record)) => {
                    match self.unwrap(entry, &record, Duration::ZERO).await {
                        Ok(key) => {
                            so_far.key = Some(key);
                            so_far.has_loaded = true;
                        }
                        Err(error) if error.is_unavailability() => {
                            // Here too, in case the whole flight was abandoned.
                            entry.note_failure(self, record.id, &error);
                            if entry.records().is_none() {
                                // Nothing that is cached could serve instead.
                                return Err(error);
                            }
                            so_far.unanswered = Some((record.id, error));
                        }
                        Err(error) => return Err(error),
                    }
                    so_far.records = None;
                    not_before = self.tick();
                }
                Decision::Load(Load::FirstVersion) => {
                    self.mint(entry).await?;
                    so_far.has_loaded = true;
                    so_far.records = None;
                    not_before = self.tick();
                }
            }
        }
        Err(Error::Interrupted)
    }

    /// Counts what serves although it is too old.
    fn count_found(&self, found: &Found, so_far: &SoFar, now: Duration) {
        if found.are_states_stale {
            self.counters.count(&self.counters.stale_serves);
        }
        if let Some(key) = &found.key
            && so_far.key.is_none()
            && self.count_use(key, now)
        {
            tell_stale(key.id);
        }
    }

    /// Tells whether the key store was asked for this id a moment ago, and does not have it. So a caller that asks for
    /// invented ids causes one query per id within a while.
    fn is_known_to_lack(&self, entry: &Entry, request: Request, now: Duration) -> bool {
        let until = request.id().and_then(|id| self.unknown.get(&(entry.scope, id)));
        until.is_some_and(|until| now < until)
    }

    fn note_unknown(&self, entry: &Entry, request: Request, now: Duration) {
        if let Some(id) = request.id() {
            self.unknown
                .insert((entry.scope, id), now.saturating_add(UNKNOWN_TTL));
        }
    }

    /// Tells whether a key that was loaded a while ago may still be used.
    pub(crate) async fn still_allows(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
        purpose: Purpose,
    ) -> bool {
        let records = match entry.records() {
            Some(records) => Ok(records),
            // The entry was dropped, or its records were forgotten.
            None => self.reload(entry).await,
        };
        records.is_ok_and(|records| records.allows(id, purpose, &self.limits))
    }

    /// Tells the same without asking. `false` if nothing is known.
    pub(crate) fn allows_now(&self, entry: &Entry, id: DataKeyId, purpose: Purpose) -> bool {
        entry
            .records()
            .is_some_and(|records| records.allows(id, purpose, &self.limits))
    }

    /// Reads the unread scopes of entries, many in one query. The loads that follow report failures.
    pub(crate) async fn preload(self: &Arc<Self>, entries: &[Arc<Entry>]) {
        let unread = entries.iter().filter(|entry| entry.records().is_none());
        let unread: Vec<_> = unread.map(Arc::clone).collect();
        if unread.len() > 1 && self.prepare().await.is_ok() {
            tokio::select! {
                _ = read(self, &unread) => {}
                () = self.clock.sleep(self.limits.load_timeout) => {}
            }
        }
    }

    /// Reads the entry's scope again. A read that began before this call does not suffice.
    pub(crate) async fn reload(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<Records>, Error> {
        self.load(entry, self.tick()).await
    }

    /// Reloads what this process has cached of a scope, after it changed the scope itself.
    pub(crate) async fn refresh(self: &Arc<Self>, context: &EncryptionContext, usage: KeyUsage) {
        if let Some(entry) = self.find_entry(context, usage) {
            entry.expect_change(self.tick());
            if self.reload(&entry).await.is_err() {
                // Cached records must not undo the caller's change.
                entry.forget(self.tick());
            }
        }
    }
}
