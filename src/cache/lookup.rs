//! Chooses the key for a call: a cached one whose state is recent enough, or one to load first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyUsage};
use encx_core::store::KeyRecord;

use crate::cache::reread::read;
use crate::cache::{
    Cache, CachedKey, DataCipher, Entry, MAX_ATTEMPTS, Purpose, Records, Snapshot, UNKNOWN_TTL,
};
use crate::error::{Boxed, Error};

/// How far the known states of keys can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The key store must be asked.
    Ask,
    /// They are recent enough.
    Current,
    /// They are too old, and the builder forbids using them.
    Refuse,
    /// They are too old, but the key store is unreachable.
    Stale,
}

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
        match self.is_current(snapshot.known_at, now) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(Error::boxed(error))),
        }
    }

    /// Tells whether states that were read at `known_at` may be used now without asking.
    ///
    /// `Err` if they may not be used at all; `Ok(false)` if the caller has to ask.
    pub(crate) fn is_current(&self, known_at: Duration, now: Duration) -> Result<bool, Error> {
        match self.trust(known_at, now) {
            Trust::Ask => Ok(false),
            Trust::Current => Ok(true),
            Trust::Refuse => Err(Error::StaleState),
            Trust::Stale => {
                self.counters.stale_serves.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    /// Returns how far states that were read at `known_at` can be trusted now.
    pub(super) fn trust(&self, known_at: Duration, now: Duration) -> Trust {
        let age = now.saturating_sub(known_at.max(self.polls.polled_at()));
        if age <= self.limits.state_ttl {
            return Trust::Current;
        }
        if !self.polls.is_store_unreachable() {
            return Trust::Ask;
        }
        if self.limits.fail_closed_on_stale_state {
            return Trust::Refuse;
        }
        if age > self.limits.ttl {
            // Not forever: the KMS does not know that a key was suspended.
            return Trust::Ask;
        }
        Trust::Stale
    }

    /// Returns the key that encrypts. Makes or unwraps it if necessary.
    pub(crate) async fn active_key(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<DataCipher>, Error> {
        self.active(entry).await?.cipher()
    }

    /// Returns the active key. Makes or unwraps it if necessary.
    pub(crate) async fn active(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<CachedKey, Error> {
        self.find_active(entry, true).await
    }

    /// Returns the active key. Unwraps it if necessary, but makes none.
    pub(crate) async fn existing_active(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<CachedKey, Error> {
        self.find_active(entry, false).await
    }

    async fn find_active(self: &Arc<Self>, entry: &Arc<Entry>, may_make: bool) -> Result<CachedKey, Error> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        self.prepare().await?;
        for attempt in 0..MAX_ATTEMPTS {
            let mut records = self.whole_records(entry).await?;
            if let Some(record) = active_of(&records)? {
                // Making a key does not count as using it again.
                if attempt == 0 {
                    entry.mark_key_used(record.id);
                }
                if !self.may_unwrap(entry, &records, record.id, Purpose::Encrypt) {
                    records = self.reload(entry).await?;
                }
            }
            match active_of(&records)? {
                Some(record) => {
                    let key = self.cached_key(entry, record, Purpose::Encrypt).await?;
                    let now = self.records_now(entry).await?;
                    if now.active()?.is_some_and(|active| active.id == key.id) {
                        return Ok(key);
                    }
                }
                None if records.is_empty() && may_make => self.mint(entry).await?,
                // Another process may have just made it.
                None if records.is_empty() && attempt == 0 => drop(self.reload(entry).await?),
                None => {
                    let error = records.why_none_is_active();
                    tracing::info!(target: "encx::refused", %error, "there is no key to encrypt with");
                    return Err(error);
                }
            }
        }
        Err(Error::Interrupted)
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
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let mut records = self.records_with(entry, id).await?;
        entry.mark_key_used(id);
        if !self.may_unwrap(entry, &records, id, Purpose::Decrypt) {
            records = self.reload(entry).await?;
        }
        let record = self.check_found(&records, id)?;
        let key = self.cached_key(entry, record, Purpose::Decrypt).await?;
        let now = self.records_now(entry).await?;
        self.check_found(&now, id)?;
        Ok(key)
    }

    /// Returns the version that decrypts for this id, if it may.
    fn check_found<'a>(&self, records: &'a Records, id: DataKeyId) -> Result<&'a Arc<KeyRecord>, Error> {
        let refused = match records.find(id) {
            None => records.why_unknown(id),
            Some(_) if records.is_shredded() => Error::Shredded,
            Some(record) => match self.check_opens(record) {
                Ok(()) => return Ok(record),
                Err(error) => error,
            },
        };
        tracing::info!(target: "encx::refused", key = %id, error = %refused, "the state of the key forbids its use");
        Err(refused)
    }

    /// Returns the known versions of a scope after a possibly long wait for the KMS: the key may have been withdrawn,
    /// and this process may have acknowledged that it no longer holds it.
    async fn records_now(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<Records>, Error> {
        match entry.records() {
            Some(records) => Ok(records),
            // The entry was dropped, or its records were forgotten.
            None => self.reload(entry).await,
        }
    }

    /// Tells whether a key that was loaded a while ago may still be used.
    pub(crate) async fn still_allows(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
        purpose: Purpose,
    ) -> bool {
        match self.records_now(entry).await {
            Ok(records) => self.allows(&records, id, purpose),
            Err(_) => false,
        }
    }

    /// Tells the same without asking. `false` if nothing is known.
    pub(crate) fn allows_now(&self, entry: &Entry, id: DataKeyId, purpose: Purpose) -> bool {
        entry
            .records()
            .is_some_and(|records| self.allows(&records, id, purpose))
    }

    fn allows(&self, records: &Records, id: DataKeyId, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Encrypt => records
                .active()
                .is_ok_and(|active| active.is_some_and(|active| active.id == id)),
            Purpose::Decrypt => records
                .find(id)
                .is_some_and(|record| self.check_opens(record).is_ok()),
        }
    }

    /// Tells whether a key is already unwrapped, or its record was read recently enough to unwrap it.
    ///
    /// Polls do not suffice here. They list no row that was deleted or edited by hand, and only check the rows of
    /// cached keys. While the key store is unreachable, the known records are used.
    fn may_unwrap(&self, entry: &Entry, records: &Records, id: DataKeyId, purpose: Purpose) -> bool {
        entry
            .key_for(id, purpose, self.clock.elapsed(), &self.limits)
            .is_some()
            || self.is_fresh(records)
    }

    /// Tells whether records were read recently enough to unwrap by them.
    pub(super) fn is_fresh(&self, records: &Records) -> bool {
        self.clock.elapsed().saturating_sub(records.read_at) <= self.limits.state_ttl
            || self.polls.is_store_unreachable()
    }

    /// Returns all versions of the entry's scope, for a caller that needs no key.
    pub(crate) async fn current_records(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<Records>, Error> {
        self.prepare().await?;
        self.whole_records(entry).await
    }

    /// As `records`. If the key store had lost a used version, asks it again from time to time: the rows may have been
    /// restored, which no poll lists.
    async fn whole_records(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<Records>, Error> {
        let records = self.records(entry).await?;
        if records.active().is_err() && !self.is_fresh(&records) {
            return self.reload(entry).await;
        }
        Ok(records)
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

    /// Returns all versions of the entry's scope, as fresh as `state_ttl` requires.
    async fn records(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Arc<Records>, Error> {
        match entry.records() {
            Some(records) if self.is_current(records.read_at, self.clock.elapsed())? => Ok(records),
            Some(_) => self.reload(entry).await,
            None => self.load(entry, 0).await,
        }
    }

    /// Returns all versions of the entry's scope, if `id` is one of them.
    pub(crate) async fn records_with(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
    ) -> Result<Arc<Records>, Error> {
        self.prepare().await?;
        let records = self.records(entry).await?;
        if records.find(id).is_some() {
            return Ok(records);
        }
        // Another process may have just made it. A caller that asks for invented ids causes one query per id within a
        // while, and at most one query per scope at a time.
        let name = (entry.scope, id);
        let now = self.clock.elapsed();
        if self.unknown.get(&name).is_some_and(|until| now < until) {
            return Err(refuse_unknown(&records, id));
        }
        let records = self.reload(entry).await?;
        if records.find(id).is_none() {
            self.unknown.insert(name, now.saturating_add(UNKNOWN_TTL));
            return Err(refuse_unknown(&records, id));
        }
        Ok(records)
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

    /// Checks that a version may decrypt, and that the key store still has its wraps.
    fn check_opens(&self, record: &KeyRecord) -> Result<(), Error> {
        self.check_decrypts(record)?;
        if record.lacks_wraps() {
            let id = record.id;
            return Err(Error::RolledBack {
                found: Some(id),
                used: id,
            });
        }
        Ok(())
    }
}

/// Returns the active version, and logs if the key store has lost it.
fn active_of(records: &Records) -> Result<Option<&Arc<KeyRecord>>, Error> {
    records.active().inspect_err(|error| {
        tracing::info!(target: "encx::refused", %error, "the key store has lost the key to encrypt with");
    })
}

/// Returns and logs why there is no such key.
fn refuse_unknown(records: &Records, id: DataKeyId) -> Error {
    let error = records.why_unknown(id);
    tracing::info!(target: "encx::refused", key = %id, %error, "no such key in this context");
    error
}
