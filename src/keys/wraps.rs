//! Wraps that are missing, as when a KMS was down while a key was made: finding them and filling them in.

use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::{KeyQuery, KeyRecord};

use super::KeyManager;
use crate::error::Error;
use crate::kek::{KekRef, Unreachable};

/// How many records a job reads at once.
const PAGE: u32 = 500;

/// What [`KeyManager::complete_wraps`] did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "versions whose wraps could not be completed stand here and nowhere else"]
pub struct WrapsReport {
    /// How many versions had all wraps already.
    pub already_complete: u64,
    /// The versions that have all wraps now and had not before.
    pub completed: Vec<DataKeyId>,
    /// The versions that lack a wrap still.
    pub failed: Vec<FailedWraps>,
}

/// A version that lacks a wrap still.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedWraps {
    /// The version.
    pub id: DataKeyId,
    /// Why, or the first reason of several.
    pub error: Error,
}

impl KeyManager {
    /// Lists the KEKs that the KEK rule demands for a version, such as one just created, and that it has no wrap by.
    ///
    /// An alias of a KEK that is out of reach counts as missing if nobody told lately what it stands for.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// let version = manager.create(&context).await?;
    /// for kek in manager.missing_wraps(&version).await? {
    ///     println!("no wrap by {} yet", kek.kek);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`](crate::store::StoreError::Corrupt) if the row was edited; those of the KEK rule; and those of the KMS, which is asked only what an alias stands for.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn missing_wraps(&self, version: &KeyRecord) -> Result<Vec<KekRef>, Error> {
        if version.state == KeyState::Destroyed {
            return Ok(Vec::new());
        }
        let context = version.verified_context()?;
        self.keks.missing(version, &context).await
    }

    /// Adds the wraps that the KEK rule demands now to all versions, of all contexts and usages, that lack one.
    ///
    /// For after an outage in which keys were made, and after the rule got a further KEK. Wraps that the rule does not
    /// demand stay: [`rewrap`](Self::rewrap) drops them. Each version that lacks something costs one call to unwrap it
    /// and one for each wrap, and each KEK one a minute to learn its lasting name. One that fails holds up no other; a KEK that is unavailable is soon not asked any more.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// let report = manager.complete_wraps().await?;
    /// println!("{} versions got a wrap that they lacked", report.completed.len());
    /// for failed in &report.failed {
    ///     println!("{}: {}", failed.id, failed.error);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the key store when it is read. All others are in the report.
    ///
    /// # Cancellation
    ///
    /// What was completed stays so; the next call goes on from there.
    pub async fn complete_wraps(&self) -> Result<WrapsReport, Error> {
        let (mut report, mut unreachable) = (WrapsReport::default(), Unreachable::default());
        let all = KeyState::ALL
            .into_iter()
            .filter(|state| *state != KeyState::Destroyed)
            .fold(KeyQuery::new(PAGE), KeyQuery::state);
        let mut query = all.clone();
        loop {
            let page = self.store.page(&query).await?;
            for record in &page.records {
                match self.complete_one(record, &mut unreachable).await {
                    Ok(true) => report.completed.push(record.id),
                    Ok(false) => report.already_complete += 1,
                    Err(error) => report.failed.push(FailedWraps { id: record.id, error }),
                }
            }
            let Some(next) = page.next else {
                return Ok(report);
            };
            query = all.clone().after(next);
        }
    }

    /// Completes one version. `false` if it was complete, or is by now.
    async fn complete_one(&self, record: &KeyRecord, unreachable: &mut Unreachable) -> Result<bool, Error> {
        match self.complete_once(record, unreachable).await {
            // Somebody was faster: see what they did.
            Err(Error::Store(error)) if error.is_lost_race() => {
                let found = self.store.get(&[record.id]).await?;
                let now = found
                    .iter()
                    .find(|now| now.id == record.id && now.state != KeyState::Destroyed);
                match now {
                    Some(now) => self.complete_once(now, unreachable).await,
                    None => Ok(false),
                }
            }
            done => done,
        }
    }

    async fn complete_once(&self, record: &KeyRecord, unreachable: &mut Unreachable) -> Result<bool, Error> {
        // The row says what it is for, and has to agree with its own scope.
        let (context, usage) = (record.verified_context()?, record.usage);
        let completed = self.keks.complete(record, &context, usage, unreachable).await?;
        let more = completed.wraps.is_some();
        if let Some(wraps) = completed.wraps {
            let change = self.wrap_change(record, wraps);
            for outcome in self.store.replace_wraps(&[change]).await? {
                outcome.result?;
            }
            if let Some(core) = &self.core {
                core.cache().refresh(&context, usage).await;
            }
        }
        completed.failed.map_or(Ok(more), Err)
    }
}
