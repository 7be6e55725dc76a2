//! Moving all keys to other KEKs, as a job.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use encx_core::context::EncryptionContext;
use encx_core::key::{KekId, KeyState, KeyUsage};
use encx_core::store::{JobStatus, KeyQuery, KeyRecord, KeyStore, StoreError, StoredWrap, WrapChange};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{Mutex, OnceCell, Semaphore};

use super::KeyManager;
use super::walked::{name, not_now_or_never, page};
use crate::error::Error;
use crate::jobs::{Job, JobError, Walk, WalkOutcome, WalkPage};
use crate::kek::{KekRef, Keks};

/// Concurrent KMS calls of a worker.
const CONCURRENCY: usize = 16;

/// Keys per write.
const BATCH: usize = 250;

/// Retries of a key that other processes change.
const MAX_RACES: usize = 4;

/// Moves all keys to the KEKs that the KEK rule now chooses: see [`KeyManager::rewrap_all`].
#[derive(Debug)]
pub struct RewrapAll {
    keks: Arc<Keks>,
    store: Arc<dyn KeyStore>,
    from: Option<KekRef>,
    /// The lasting name of `from`, once resolved.
    from_name: OnceCell<KekId>,
    usage: Option<KeyUsage>,
    /// The reason for the audit log.
    reason: Option<String>,
    concurrency: usize,
    calls: Semaphore,
    /// KEKs whose alias this job has resolved.
    asked: Mutex<HashSet<KekRef>>,
}

impl KeyManager {
    /// Moves the keys of all contexts and usages to the KEKs that the KEK rule now chooses.
    ///
    /// For a change of KEK, provider or region.
    ///
    /// No ciphertext changes, and every key stays usable. Allow the current KEKs with
    /// [`also_unwrap`](crate::CryptoBuilder::also_unwrap). A key already moved costs no call, so the job can
    /// be run again at any time: after a crash, or until nothing fails. Destroyed keys are skipped.
    ///
    /// Several processes with the same KEK rule share the job. Closures cannot be compared: after changing a
    /// rule that is a closure, let the job finish or give it another [name](Job::job_name).
    ///
    /// A dry run only calls the KMS to resolve KEK aliases.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::kms::KekRef;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let old = KekRef::try_from("memory/retired")?;
    /// let planned = crypto.key_manager().rewrap_all().from(old).dry_run().run().await;
    /// println!("{} keys would move", planned.run.changed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn rewrap_all(&self) -> Job<RewrapAll> {
        let walk = RewrapAll {
            keks: Arc::clone(&self.keks),
            store: Arc::clone(&self.store),
            from: None,
            from_name: OnceCell::new(),
            usage: None,
            reason: self.reason.clone(),
            concurrency: CONCURRENCY,
            calls: Semaphore::new(CONCURRENCY),
            asked: Mutex::default(),
        };
        let name = walk.job_name();
        Job::on(Arc::clone(&self.store), Arc::clone(&self.clock), name, walk)
    }
}

impl Job<RewrapAll> {
    /// Moves only keys that have a wrap by this KEK.
    pub fn from(mut self, kek: impl Into<KekRef>) -> Self {
        self.walk_mut().from = Some(kek.into());
        self.rename(RewrapAll::job_name);
        self
    }

    /// Moves only keys for one usage.
    pub fn usage(mut self, usage: KeyUsage) -> Self {
        self.walk_mut().usage = Some(usage);
        self.rename(RewrapAll::job_name);
        self
    }

    /// Sets the number of concurrent KMS calls, 1 to 1024. Default: 16.
    ///
    /// [`max_concurrent_kms_calls`](crate::CryptoBuilder::max_concurrent_kms_calls) limits them too.
    pub fn concurrency(mut self, calls: usize) -> Self {
        let calls = calls.clamp(1, 1024);
        let walk = self.walk_mut();
        (walk.concurrency, walk.calls) = (calls, Semaphore::new(calls));
        self
    }
}

/// What to do with a key.
enum Decided {
    Change(KeyRecord, WrapChange),
    Outcome(WalkOutcome<KeyRecord>),
}

impl RewrapAll {
    /// Names the job after the selected keys, so that jobs on different keys do not replace each other.
    fn job_name(&self) -> String {
        let from = self
            .from
            .as_ref()
            .map(|kek| format!("from {}/{}", kek.kms, kek.kek));
        let usage = self.usage.map(|usage| format!("usage {}", usage.name()));
        JobStatus::name_for("encx/rewrap", from.into_iter().chain(usage))
    }

    async fn query(&self, limit: u32) -> Result<KeyQuery, Error> {
        let mut query = KeyState::ALL
            .into_iter()
            .filter(|state| *state != KeyState::Destroyed)
            .fold(KeyQuery::new(limit), KeyQuery::state);
        if let Some(usage) = self.usage {
            query = query.usage(usage);
        }
        if let Some(kek) = &self.from {
            let name = self.from_name.get_or_try_init(|| self.keks.name(kek)).await?;
            query = query.wrapped_by(kek.kms.clone(), name.clone());
        }
        Ok(query)
    }

    async fn decide(&self, record: KeyRecord, raced: bool) -> Decided {
        if record.state == KeyState::Destroyed {
            return Decided::Outcome(WalkOutcome::Overtaken);
        }
        Decided::Outcome(match self.moved(&record).await {
            Ok(Some(wraps)) => {
                let mut change = WrapChange::new(&record, wraps);
                change.reason.clone_from(&self.reason);
                return Decided::Change(record, change);
            }
            Ok(None) if raced => WalkOutcome::Overtaken,
            Ok(None) => WalkOutcome::Unchanged,
            Err(error) => not_now_or_never(record, error),
        })
    }

    /// Has the KMS move a key; `None` if it is already moved.
    async fn moved(&self, record: &KeyRecord) -> Result<Option<Vec<StoredWrap>>, Error> {
        // The row's context must match its scope.
        let context = record.verified_context()?;
        self.ask_names(&context).await?;
        // Never closed, so acquiring a permit cannot fail.
        let _permit = self.calls.acquire().await.map_err(|_| Error::ShutDown)?;
        self.keks.rewrap(record, &context, record.usage).await
    }

    /// Resolves the KEKs that wrap for a context, once per job. A recently moved alias is a common reason to
    /// rewrap.
    async fn ask_names(&self, context: &EncryptionContext) -> Result<(), Error> {
        // Before the lock: the KEK rule may be a caller's closure.
        let choice = self.keks.choose(context)?;
        let mut asked = self.asked.lock().await;
        for kek in choice.wraps() {
            if asked.contains(kek) {
                continue;
            }
            match self.keks.name_now(kek).await {
                Err(error) if error.is_retryable() => return Err(error),
                // A refusal repeats when the key is moved.
                _ => asked.insert(kek.clone()),
            };
        }
        Ok(())
    }

    /// Has the KMS move keys and writes the results. Returns keys that other processes changed in between.
    async fn pass(
        &self,
        records: Vec<KeyRecord>,
        raced: bool,
        outcomes: &mut Vec<WalkOutcome<KeyRecord>>,
    ) -> Vec<KeyRecord> {
        let deciding = records.into_iter().map(|record| self.decide(record, raced));
        let mut decided = stream::iter(deciding).buffer_unordered(self.concurrency);
        let (mut records, mut changes) = (Vec::new(), Vec::new());
        while let Some(decided) = decided.next().await {
            match decided {
                Decided::Change(record, change) => {
                    records.push(record);
                    changes.push(change);
                }
                Decided::Outcome(outcome) => outcomes.push(outcome),
            }
        }
        let mut results = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH) {
            match self.store.replace_wraps(batch).await {
                Ok(written) => results.extend(written.into_iter().map(|one| one.result.map(|_| ()))),
                Err(error) => results.extend(batch.iter().map(|_| Err(error.clone()))),
            }
        }
        let mut lost = Vec::new();
        for (record, result) in records.into_iter().zip(results) {
            match result {
                Ok(()) => outcomes.push(WalkOutcome::Changed),
                Err(error) if is_overtaken(&error) => lost.push(record),
                Err(error) => outcomes.push(not_now_or_never(record, error.into())),
            }
        }
        lost
    }
}

#[async_trait]
impl Walk for RewrapAll {
    type Item = KeyRecord;

    fn plan(&self) -> String {
        let usage = self.usage.map(KeyUsage::name);
        // A changed rule invalidates finished ranges.
        format!(
            "rewrap from {:?} usage {usage:?} by {:?}",
            self.from,
            self.keks.rule()
        )
    }

    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<KeyRecord>, JobError> {
        let query = self.query(limit).await?;
        page(&*self.store, query, after, upto).await
    }

    fn weight(&self, _: &KeyRecord) -> u64 {
        // A record is small and already in the page.
        0
    }

    async fn work(&self, records: Vec<KeyRecord>) -> Vec<WalkOutcome<KeyRecord>> {
        let mut outcomes = Vec::with_capacity(records.len());
        let mut lost = self.pass(records, false, &mut outcomes).await;
        for _ in 0..MAX_RACES {
            if lost.is_empty() {
                return outcomes;
            }
            let ids: Vec<_> = lost.iter().map(|record| record.id).collect();
            match self.store.get(&ids).await {
                Ok(records) => {
                    let gone = lost.len().saturating_sub(records.len());
                    outcomes.extend((0..gone).map(|_| WalkOutcome::Overtaken));
                    lost = self.pass(records, true, &mut outcomes).await;
                }
                Err(error) => {
                    let again = lost
                        .into_iter()
                        .map(|record| not_now_or_never(record, error.clone().into()));
                    outcomes.extend(again);
                    return outcomes;
                }
            }
        }
        let again = lost.into_iter().map(|record| WalkOutcome::Retry {
            what: name(&record),
            item: record,
            error: Error::from(StoreError::unavailable(Busy)).into(),
        });
        outcomes.extend(again);
        outcomes
    }

    async fn inspect(&self, records: Vec<KeyRecord>) -> Vec<WalkOutcome<KeyRecord>> {
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            let would_move = match record.verified_context() {
                Ok(context) => match self.ask_names(&context).await {
                    Ok(()) => self.keks.would_rewrap(&record, &context).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.into()),
            };
            outcomes.push(match would_move {
                Ok(true) => WalkOutcome::Changed,
                Ok(false) => WalkOutcome::Unchanged,
                Err(error) => not_now_or_never(record, error),
            });
        }
        outcomes
    }
}

/// Other processes changed a key on every attempt to move it.
#[derive(Debug, thiserror::Error)]
#[error("other processes change this key all the time")]
struct Busy;

/// Tells whether a key was changed, destroyed or removed since it was read.
fn is_overtaken(error: &StoreError) -> bool {
    error.is_lost_race() || matches!(error, StoreError::NotFound { .. })
}
