//! The slow part of calls: reads of the key store, and calls to the KMS. Each runs in a flight that many callers share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use encx_core::key::{DataKey, DataKeyId};
use encx_core::store::{KeyRecord, NewKey, are_shredded, load_all_usages};

use crate::cache::failure::Failure;
use crate::cache::{Cache, CachedKey, Entry, EntryKey, KeyMeta, MAX_ATTEMPTS, Records};
use crate::error::Error;

impl Cache {
    /// Checks that there is a runtime, that background work runs, and that states are recent enough.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<(), Error> {
        if self.tasks.is_closed() {
            return Err(Error::ShutDown);
        }
        self.start()?;
        self.registration.introduced(&*self.clock).await;
        let age = self.clock.elapsed().saturating_sub(self.polls.polled_at());
        if age <= self.limits.state_ttl || self.polls.is_store_unreachable() {
            return Ok(());
        }
        // The poller is late, as after a pause of the whole process. If the poll fails, states are stale.
        self.poll_once().await
    }

    pub(super) async fn load(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        not_before: u64,
    ) -> Result<Arc<Records>, Error> {
        let suffices = |records: &Records| records.tick >= not_before && !entry.is_outdated(records);
        for _ in 0..MAX_ATTEMPTS {
            // Another task may have read it since.
            if let Some(records) = entry.records().filter(|records| suffices(records)) {
                return Ok(records);
            }
            let (cache, of) = (Arc::clone(self), Arc::clone(entry));
            let records = self
                .loads
                .join(entry.scope, &self.clock, async move {
                    let read = cache.begin_read();
                    cache.counters.loads.fetch_add(1, Ordering::Relaxed);
                    let rows = cache.ask(cache.store.load(&[of.scope])).await?;
                    let records = of.publish_records(&cache, rows, read)?;
                    cache.settle(&of);
                    Ok(records)
                })
                .await?;
            // A flight that was already running may have read before the change that this call waits for.
            if suffices(&records) {
                return Ok(records);
            }
        }
        Err(Error::Interrupted)
    }

    /// Counts the use of an expired key. `true` the first time, which subscribers are told.
    #[inline]
    pub(crate) fn count_use(&self, key: &KeyMeta, now: Duration) -> bool {
        now >= key.expires_at && self.count_stale_use(key)
    }

    #[cold]
    fn count_stale_use(&self, key: &KeyMeta) -> bool {
        self.counters.count(&self.counters.stale_key_serves);
        key.becomes_stale()
    }

    /// Re-unwraps a cached key; `false` if it was unnecessary or the key is gone.
    pub(super) async fn refresh_key(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        id: DataKeyId,
        expires_at: Duration,
    ) -> Result<bool, Error> {
        let mut records = match entry.records() {
            Some(records) => records,
            None => return Ok(false),
        };
        if !self.is_fresh(&records) {
            records = self.reload(entry).await?;
        }
        let Some(record) = records.find(id).filter(|_| entry.holds(id, expires_at)) else {
            return Ok(false);
        };
        match self.unwrap(entry, record, expires_at).await {
            Ok(key) => Ok(key.expires_at > expires_at),
            Err(error) => {
                if error.is_unavailability() {
                    entry.note_failure(self, id, &error);
                }
                Err(error)
            }
        }
    }

    /// Unwraps a key through the KMS, unless one is cached that expires later than `than`.
    pub(super) async fn unwrap(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Arc<KeyRecord>,
        than: Duration,
    ) -> Result<CachedKey, Error> {
        let (cache, of, record) = (Arc::clone(self), Arc::clone(entry), Arc::clone(record));
        self.unwraps
            .join((entry.scope, record.id), &self.clock, async move {
                // Another task may have unwrapped it between this call's check and the flight's start.
                let began = cache.clock.elapsed();
                if let Some(key) = of.key(record.id, began).filter(|key| key.expires_at > than) {
                    return Ok(key);
                }
                let EntryKey { context, usage } = &of.key;
                let mut unwrapped = cache.keks.unwrap(&record, context, *usage).await;
                if let Err(error) = &unwrapped
                    && Failure::of(error) == Failure::Refused
                    && of.has_key(record.id)
                {
                    // Boxed, because it is rare and would enlarge the task of every load.
                    let anew = Box::pin(cache.unwrap_replaced(&of, &record)).await;
                    unwrapped = anew.unwrap_or(unwrapped);
                }
                match unwrapped {
                    Ok(unwrapped) => {
                        let key = of.keep_key(&cache, record.id, &unwrapped, began);
                        of.publish_key(&cache, &key);
                        Ok(key)
                    }
                    Err(error) => {
                        of.note_failure(&cache, record.id, &error);
                        Err(error)
                    }
                }
            })
            .await
    }

    /// Unwraps a key by the key store's current wraps, so that a cached key is not dropped because of a wrap that was
    /// replaced since its row was read. `None` if the wraps are the same.
    async fn unwrap_replaced(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &KeyRecord,
    ) -> Option<Result<DataKey, Error>> {
        let records = self.reload(entry).await.ok()?;
        let now = records.find(record.id).filter(|now| now.wraps != record.wraps)?;
        let EntryKey { context, usage } = &entry.key;
        Some(self.keks.unwrap(now, context, *usage).await)
    }

    /// Makes the first version of the entry's scope, or finds that another process did.
    pub(super) async fn mint(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Error> {
        if !self.limits.create_on_first_use {
            return Err(Error::NoKeys);
        }
        let (cache, of) = (Arc::clone(self), Arc::clone(entry));
        self.mints
            .join(entry.scope, &self.clock, async move {
                // Another task may have made it between this call's check and the flight's start.
                let known = match of.records() {
                    Some(records) => records,
                    None => cache.load(&of, 0).await?,
                };
                // Make no key in place of one that was used and is gone.
                known.active()?;
                if !known.is_empty() {
                    return Ok(());
                }
                // After a shredding no key is made automatically, even of a usage without keys.
                if are_shredded(&cache.ask(load_all_usages(&*cache.store, &of.key.context)).await?) {
                    return Err(Error::Shredded);
                }
                let began = cache.clock.elapsed();
                let EntryKey { context, usage } = &of.key;
                let id = DataKeyId::generate(cache.clock.unix_millis(), None)?;
                let (made, wraps) = cache.keks.generate(context, *usage, id).await?;
                let mut new = NewKey::new(id, *usage, context, made.check(id));
                new.wraps = wraps;
                let key = of.keep_key(&cache, id, &made, began);
                drop(made);
                let expected = of.expect_record(&cache, &key);
                let read = cache.begin_read();
                match cache.ask(cache.store.insert(&new)).await {
                    Ok(record) => {
                        record.check_belongs(context, *usage)?;
                        expected.stored(record, read);
                        cache.settle(&of);
                        Ok(())
                    }
                    // The winner's key is loaded instead; this one encrypted nothing and is dropped here.
                    Err(error) if error.is_lost_race() => {
                        of.forget(cache.tick());
                        Ok(())
                    }
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}
