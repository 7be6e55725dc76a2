//! Crypto-shredding: destroying every key of a context, everywhere.

use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyState, KeyUsage, KeyVersion};
use encx_core::store::{KeyRecord, NewKey, StoreError, Timestamp, load_all_usages};

use super::KeyManager;
use crate::error::Error;
use crate::keys::ProcessReport;

/// Rounds over the keys, which other processes may change.
const MAX_ROUNDS: usize = 64;

/// The result of [`KeyManager::shred`]: proof that a tenant's data is unreadable.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "processes that may still read stand here and nowhere else"]
pub struct ShredReceipt {
    /// The context whose keys were destroyed.
    pub context: EncryptionContext,
    /// Every version of every usage, by id, as stored after waiting for the processes. Tombstones, which
    /// stand for usages without keys, are left out.
    pub versions: Vec<DestroyedVersion>,
    /// When the last version was destroyed, by the key store's clock.
    pub at: Timestamp,
    /// Which processes have dropped the keys, and how long the others may still read at most. An error if
    /// that is unknown: [`StoreError::Unsupported`] if the key store has no process registry. Each process
    /// then drops the keys within its `state_ttl`; if it cannot reach the key store, within its `ttl` plus
    /// how long it lets keys serve beyond.
    pub processes: Result<ProcessReport, Error>,
}

/// A destroyed version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestroyedVersion {
    /// The version's id.
    pub id: DataKeyId,
    /// Its usage.
    pub usage: KeyUsage,
    /// Its number within the usage.
    pub version: KeyVersion,
    /// When it was destroyed, by the key store's clock.
    pub destroyed_at: Timestamp,
}

impl ShredReceipt {
    /// Tells whether every registered process has dropped the keys.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.processes.as_ref().is_ok_and(ProcessReport::is_complete)
    }
}

impl KeyManager {
    /// Destroys every version of a context's keys, for every usage and from any state.
    ///
    /// Waits at most `patience` until every process has dropped the keys.
    ///
    /// Afterwards every ciphertext, blind index and pepper of the context is useless: here at once, in every
    /// other process when the receipt says so. Calls fail with [`Error::Shredded`], also for usages that had
    /// no key. Each usage without a version gets a [tombstone](KeyRecord::is_tombstone), so an operation that
    /// began earlier cannot add a key: a first use in another process loses its race against the tombstone.
    ///
    /// No census is asked. Only [`revive`](Self::revive) starts again, per usage, with new keys. A repeated
    /// call, such as after an error or to wait longer, returns a receipt of the same versions.
    ///
    /// <div class="warning">
    ///
    /// This is irreversible, but backups limit it: a database backup plus permission to unwrap with a KEK
    /// that wrapped these keys restores them. Shredding is complete when the last such backup is gone. If
    /// each tenant has its own KEK, deleting that KEK in the KMS is final despite backups.
    ///
    /// A missing row shows as a gap in the version numbers, unless it is the row of a usage's greatest
    /// version. If that row was deleted, only a process that encrypted under the version knows. Elsewhere the
    /// receipt leaves it out, and a backup of the row restores the version.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use std::time::Duration;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// let receipt = manager
    ///     .because("contract 4711 ended")
    ///     .shred(&context, Duration::from_secs(60))
    ///     .await?;
    /// for version in &receipt.versions {
    ///     println!("{} was destroyed at {:?}", version.id, version.destroyed_at);
    /// }
    /// if !receipt.is_complete() {
    ///     println!("some processes may still read: {:?}", receipt.processes);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoKeys`] if the context has no key of any usage; nothing is done, and a concurrent first use
    /// may still create one. [`StoreError::Corrupt`] if a row was edited, a version's row is missing, or a
    /// destroyed version still has wraps. Key store errors. Versions destroyed before an error stay
    /// destroyed. An error after all were destroyed is in the receipt.
    ///
    /// # Cancellation
    ///
    /// Destroyed versions stay destroyed; the next call continues.
    pub async fn shred(
        &self,
        context: &EncryptionContext,
        patience: Duration,
    ) -> Result<ShredReceipt, Error> {
        let began = self.clock.elapsed();
        let destroyed = self.destroy_all(context).await;
        // Also after an error: some may be destroyed.
        self.all_seen(context).await;
        let mut destroyed = destroyed?;
        let mut rounds = 1..MAX_ROUNDS;
        let processes = loop {
            let waited = self.clock.elapsed().saturating_sub(began);
            let processes = self.await_processes(patience.saturating_sub(waited)).await;
            // Read after the fence: a receipt shows the state when no process holds a key. A key added since,
            // such as by `revive`, is destroyed too and must leave the processes in turn.
            let now = self.destroy_all(context).await;
            if now.as_ref().is_ok_and(|now| *now == destroyed) {
                break processes;
            }
            self.all_seen(context).await;
            match now {
                Ok(now) => destroyed = now,
                Err(error) => break Err(error),
            }
            if rounds.next().is_none() {
                break Err(StoreError::Conflict.into());
            }
        };
        destroyed.sort_by_key(|record| record.id);
        let keys = destroyed.iter().filter(|record| !record.is_tombstone());
        let versions: Vec<_> = keys.map(DestroyedVersion::of).collect();
        let at = versions.iter().map(|version| version.destroyed_at).max();
        Ok(ShredReceipt {
            context: context.clone(),
            versions,
            at: at.ok_or(Error::NoKeys)?,
            processes,
        })
    }

    /// Refreshes this process's own cache.
    async fn all_seen(&self, context: &EncryptionContext) {
        if let Some(core) = &self.core {
            for usage in KeyUsage::ALL {
                core.cache().refresh(context, usage).await;
            }
        }
    }

    /// Destroys all versions, including those created during the call. Returns them with the tombstones.
    async fn destroy_all(&self, context: &EncryptionContext) -> Result<Vec<KeyRecord>, Error> {
        for _ in 0..MAX_ROUNDS {
            let versions = load_all_usages(&*self.store, context).await?;
            if versions.is_empty() {
                return Err(Error::NoKeys);
            }
            let mut is_done = true;
            for version in &versions {
                if version.state == KeyState::Destroyed {
                    continue;
                }
                is_done = false;
                match self.destroy_one(version).await {
                    // Another process was faster: look at the result.
                    Err(Error::Store(error)) if error.is_lost_race() => {}
                    destroyed => destroyed?,
                }
            }
            if !is_done {
                continue;
            }
            check_all_is_gone(&versions)?;
            // Last: if this process dies earlier, every usage is refused, because all existing versions are
            // destroyed.
            for usage in KeyUsage::ALL {
                if versions.iter().any(|version| version.usage == usage) {
                    continue;
                }
                is_done = false;
                match self.bury(context, usage).await {
                    // A first use was faster: destroy its key.
                    Err(Error::Store(error)) if error.is_lost_race() => {}
                    buried => buried?,
                }
            }
            if is_done {
                return Ok(versions);
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Adds a tombstone for a usage without a key.
    async fn bury(&self, context: &EncryptionContext, usage: KeyUsage) -> Result<(), Error> {
        let id = DataKeyId::generate(self.clock.unix_millis(), None)?;
        let mut tombstone = NewKey::tombstone(id, usage, context);
        tombstone.reason.clone_from(&self.reason);
        self.store.insert(&tombstone).await?;
        Ok(())
    }

    async fn destroy_one(&self, version: &KeyRecord) -> Result<(), Error> {
        let mut version = version.clone();
        for to in way_to_destruction(&version) {
            version = self.apply(&version, to).await?;
        }
        Ok(())
    }
}

/// Refuses a receipt that the rows do not support. Runs after destroying all that can be destroyed.
fn check_all_is_gone(versions: &[KeyRecord]) -> Result<(), StoreError> {
    if let Some(version) = versions.iter().find(|version| !version.wraps.is_empty()) {
        let what = format!(
            "key {} is destroyed and has wraps all the same: delete its wraps and find out how they came there, then shred again",
            version.id
        );
        return Err(StoreError::Corrupt { what });
    }
    for usage in KeyUsage::ALL {
        let of_usage = versions.iter().filter(|version| version.usage == usage);
        let mut numbers: Vec<_> = of_usage.map(|version| version.version).collect();
        numbers.sort_unstable();
        let mut expected = Some(KeyVersion::FIRST);
        for number in numbers {
            // Inserts number versions consecutively.
            if Some(number) != expected {
                let what = format!(
                    "the versions of usage {usage} have a gap before {number}: a row was deleted, and its \
                     key may still exist; restore the row from a backup, then shred again"
                );
                return Err(StoreError::Corrupt { what });
            }
            expected = number.next();
        }
    }
    Ok(())
}

/// Lists the states from this one to `Destroyed`.
fn way_to_destruction(version: &KeyRecord) -> impl Iterator<Item = KeyState> + use<> {
    let (state, from) = (version.state, version.suspended_from);
    let via = (!state.may_become(KeyState::Destroyed, from)).then(|| {
        // Prefer `Suspended`: `Compromised` says that a key is not trusted.
        let ways = [KeyState::Suspended, KeyState::Compromised];
        ways.into_iter().find(|via| state.may_become(*via, from))
    });
    via.flatten().into_iter().chain([KeyState::Destroyed])
}

impl DestroyedVersion {
    fn of(record: &KeyRecord) -> Self {
        Self {
            id: record.id,
            usage: record.usage,
            version: record.version,
            destroyed_at: record.destroyed_at.unwrap_or(record.changed_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encx_core::key::{DataKey, Scope};

    #[test]
    fn every_state_has_a_way_to_destruction() {
        let id = DataKeyId::generate(1, None).unwrap();
        let check = DataKey::generate().unwrap().check(id);
        let context = EncryptionContext::builder().pair("a", "b").build().unwrap();
        let (scope, at) = (Scope::of(KeyUsage::Data, &context), Timestamp::from_micros(0));
        for state in KeyState::ALL
            .into_iter()
            .filter(|state| *state != KeyState::Destroyed)
        {
            let mut record = KeyRecord::new(id, scope, KeyUsage::Data, KeyVersion::FIRST, check, at);
            record.state = state;
            let mut last = state;
            for next in way_to_destruction(&record) {
                assert!(last.may_become(next, None), "{last} to {next}");
                last = next;
            }
            assert_eq!(last, KeyState::Destroyed);
        }
    }
}
