//! Rotating the keys of all contexts, as a job.

use std::sync::Arc;

use async_trait::async_trait;
use encx_core::key::{KeyState, KeyUsage};
use encx_core::store::{KeyQuery, KeyRecord, Timestamp};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::Semaphore;

use super::KeyManager;
use super::walked::{not_now_or_never, page};
use crate::error::Error;
use crate::jobs::{Job, JobError, Walk, WalkOutcome, WalkPage};

/// Concurrent rotations of a worker.
const CONCURRENCY: usize = 16;

/// Usages for which a rotation is enough: older versions still decrypt, and rows are re-encrypted later.
const USAGES: [KeyUsage; 2] = [KeyUsage::Data, KeyUsage::Stream];

/// Rotates the keys of all contexts: see [`KeyManager::rotate_all`].
#[derive(Debug)]
pub struct RotateAll {
    manager: KeyManager,
    before: Timestamp,
    calls: Semaphore,
}

impl KeyManager {
    /// Rotates every data and stream key, of all contexts, whose active version was activated before a given
    /// time.
    ///
    /// Each such context gets one new version, or its waiting pre-active one. A version activated at or after
    /// that time is kept, so a job that ended early or was killed rotates no context twice if it is run again
    /// with the same time. Take the time from [`time_of_store`](Self::time_of_store) once, and keep it until
    /// the job has finished.
    ///
    /// Index and pepper keys are skipped, because a new version does not replace the old one. A search looks
    /// for terms under the old version until every term is rewritten; a password is rehashed only when its
    /// user logs in. Rotate these keys one context at a time, with [`for_usage`](Self::for_usage) and
    /// [`rotate`](Self::rotate).
    ///
    /// Contexts without an active version, such as after a suspension, are skipped too.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// # let context = EncryptionContext::builder().pair("tenantId", "t-42").build()?;
    /// # crypto.key_manager().create(&context).await?;
    /// let manager = crypto.key_manager().because("an operator left");
    /// let before = manager.time_of_store().await?;
    /// let report = manager.rotate_all(before).throttle(50).run().await;
    /// println!("{} contexts have a new version", report.run.changed);
    /// # assert!(report.is_complete());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn rotate_all(&self, before: Timestamp) -> Job<RotateAll> {
        let walk = RotateAll {
            manager: self.clone(),
            before,
            calls: Semaphore::new(CONCURRENCY),
        };
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        Job::on(store, clock, "encx/rotate", walk)
    }
}

impl RotateAll {
    /// Rotates a context's key; `false` if its active version is already new, or if it has none.
    async fn rotate(&self, record: &KeyRecord) -> Result<bool, Error> {
        // The row's context must match its scope.
        let context = record.verified_context()?;
        let manager = self.manager.clone().for_usage(record.usage);
        // Never closed, so acquiring a permit cannot fail.
        let _permit = self.calls.acquire().await.map_err(|_| Error::ShutDown)?;
        let versions = manager.load(&context).await?;
        if !versions.iter().any(|version| self.is_old(version)) {
            return Ok(false);
        }
        // Pass the versions just checked: if another worker rotates now, its version is returned.
        match manager.rotate_from(&context, versions).await {
            Ok(_) => Ok(true),
            Err(Error::NoKeys | Error::Shredded) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_old(&self, version: &KeyRecord) -> bool {
        version.state == KeyState::Active && version.activated_at.is_some_and(|at| at < self.before)
    }
}

#[async_trait]
impl Walk for RotateAll {
    type Item = KeyRecord;

    fn plan(&self) -> String {
        format!("rotate before {}", self.before.as_micros())
    }

    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<KeyRecord>, JobError> {
        let query = KeyQuery::new(limit)
            .state(KeyState::Active)
            .activated_before(self.before);
        let mut page = page(&*self.manager.store, query, after, upto).await?;
        page.items.retain(|record| USAGES.contains(&record.usage));
        Ok(page)
    }

    fn weight(&self, _: &KeyRecord) -> u64 {
        // A record is small and already in the page.
        0
    }

    async fn work(&self, records: Vec<KeyRecord>) -> Vec<WalkOutcome<KeyRecord>> {
        let rotating = records.into_iter().map(|record| async move {
            match self.rotate(&record).await {
                Ok(true) => WalkOutcome::Changed,
                Ok(false) => WalkOutcome::Overtaken,
                Err(error) => not_now_or_never(record, error),
            }
        });
        stream::iter(rotating)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }

    async fn inspect(&self, records: Vec<KeyRecord>) -> Vec<WalkOutcome<KeyRecord>> {
        let looked = records.into_iter().map(|record| match record.verified_context() {
            Ok(_) if self.is_old(&record) => WalkOutcome::Changed,
            Ok(_) => WalkOutcome::Unchanged,
            Err(error) => not_now_or_never(record, error.into()),
        });
        looked.collect()
    }
}
