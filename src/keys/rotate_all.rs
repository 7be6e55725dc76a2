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

/// How many keys a worker rotates at once.
const CONCURRENCY: usize = 16;

/// The usages whose keys a rotation alone replaces: what older versions encrypted stays readable, and is encrypted anew later.
const USAGES: [KeyUsage; 2] = [KeyUsage::Data, KeyUsage::Stream];

/// Rotates the keys of all contexts: see [`KeyManager::rotate_all`].
#[derive(Debug)]
pub struct RotateAll {
    manager: KeyManager,
    before: Timestamp,
    calls: Semaphore,
}

impl KeyManager {
    /// Rotates every key for data and for streams, of all contexts, whose active version became active before a moment.
    ///
    /// Each such context gets one new version, or the pre-active one that waits already. A version that became active at that
    /// moment or later is left as it is: so a job that ended early, or was killed, goes on without rotating a context twice, if
    /// it is run again with the same moment. Take the moment from [`time_of_store`](Self::time_of_store) once, and keep it until the job
    /// has finished.
    ///
    /// Keys for blind indexes and peppers are left out. A new version of theirs does not replace the old one: a search
    /// looks for what the old one made until every term is written anew, and a password's hash can be made anew only when its
    /// owner logs in. Rotate them by name, one context at a time, with [`for_usage`](Self::for_usage) and [`rotate`](Self::rotate).
    ///
    /// Contexts without an active version, as after a suspension, are left out too.
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
    /// Rotates a context's key. `false` if its active version is a new one already, or if it has none any more.
    async fn rotate(&self, record: &KeyRecord) -> Result<bool, Error> {
        // The row says what it is for, and has to agree with its own scope.
        let context = record.verified_context()?;
        let manager = self.manager.clone().for_usage(record.usage);
        // Never closed, so waiting for a permit cannot fail.
        let _permit = self.calls.acquire().await.map_err(|_| Error::ShutDown)?;
        let versions = manager.load(&context).await?;
        if !versions.iter().any(|version| self.is_old(version)) {
            return Ok(false);
        }
        // From what was just looked at: if another worker rotates after that, its version is taken.
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
        // A record is small, and it is in the page already.
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
