//! Finding missing wraps and adding them, such as after a key was created during a KMS outage.

use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::{KeyQuery, KeyRecord};

use super::KeyManager;
use crate::error::Error;
use crate::kek::{KekRef, Unreachable};

/// Records per read.
const PAGE: u32 = 500;

/// The result of [`KeyManager::complete_wraps`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "versions whose wraps could not be completed stand here and nowhere else"]
pub struct WrapsReport {
    /// How many versions already had all wraps.
    pub already_complete: u64,
    /// Versions that now have all wraps and did not before.
    pub completed: Vec<DataKeyId>,
    /// Versions that still lack a wrap.
    pub failed: Vec<FailedWraps>,
}

/// A version that still lacks a wrap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedWraps {
    /// The version's id.
    pub id: DataKeyId,
    /// The reason, or the first of several.
    pub error: Error,
}

impl KeyManager {
    /// Lists the KEKs that the KEK rule requires for a version and that have no wrap of it.
    ///
    /// The alias of an unreachable KEK counts as missing unless it was resolved recently.
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
    /// [`StoreError::Corrupt`](crate::store::StoreError::Corrupt) if the row was edited; KEK rule errors; KMS
    /// errors. The KMS is only called to resolve aliases.
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

    /// Adds missing wraps that the KEK rule now requires, to all versions of all contexts and usages.
    ///
    /// For use after an outage during which keys were created, and after a KEK was added to the rule. Wraps
    /// that the rule does not require stay; [`rewrap`](Self::rewrap) drops them.
    ///
    /// Each incomplete version costs one call to unwrap it and one per wrap. Each KEK costs one call a minute
    /// to resolve its lasting name. A failed version does not stop the others; an unavailable KEK is soon no
    /// longer called.
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
    /// Key store errors while reading. All other errors are in the report.
    ///
    /// # Cancellation
    ///
    /// Completed versions stay complete; the next call continues.
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

    /// Completes one version; `false` if it is already complete.
    async fn complete_one(&self, record: &KeyRecord, unreachable: &mut Unreachable) -> Result<bool, Error> {
        match self.complete_once(record, unreachable).await {
            // Another process was faster: look at the result.
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
        // The row's context must match its scope.
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
