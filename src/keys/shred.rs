//! Crypto-shredding: destroying every key of a context, everywhere.

use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyState, KeyUsage, KeyVersion};
use encx_core::store::{KeyRecord, NewKey, StoreError, Timestamp, load_all_usages};

use super::KeyManager;
use crate::error::Error;
use crate::keys::ProcessReport;

/// How often the keys are looked at again, because others change them meanwhile.
const MAX_ROUNDS: usize = 64;

/// What [`KeyManager::shred`] did: proof that a tenant's data was made unreadable.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "processes that may still read stand here and nowhere else"]
pub struct ShredReceipt {
    /// Whose keys were destroyed.
    pub context: EncryptionContext,
    /// Every version that there was, of every usage, in the order of their ids, as the rows had it after the processes were
    /// waited for. Usages that had no key are left out, although their tombstones are destroyed versions too.
    pub versions: Vec<DestroyedVersion>,
    /// When the last of them was destroyed, by the key store's clock.
    pub at: Timestamp,
    /// Which processes have dropped them, and until when the others may still read at most. An error if that is not known,
    /// [`StoreError::Unsupported`] where the key store has no registry of processes: each then drops them within its
    /// `state_ttl`, or, if it does not reach the key store, its `ttl` and how long it lets keys serve beyond.
    pub processes: Result<ProcessReport, Error>,
}

/// A version that was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestroyedVersion {
    /// The version.
    pub id: DataKeyId,
    /// What it was for.
    pub usage: KeyUsage,
    /// Its number within its usage.
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
    /// Destroys every version of a context's keys, for every usage and from any state, and waits, for at most `patience`,
    /// until every process has dropped them.
    ///
    /// Afterwards every ciphertext, blind index and pepper of the context is useless, here at once and in every other process once
    /// the receipt says so; calls fail with [`Error::Shredded`], also of usages that had no key. No operation that began before can
    /// bring a key into the context: for each usage without a version a [tombstone](KeyRecord::is_tombstone) is left, and the first
    /// use that is under way in another process loses its race against it. No census is asked. Only
    /// [`revive`](Self::revive) starts anew, usage by usage, under other keys. A call that is repeated, as after an error or to
    /// wait for longer, gives a receipt of the same versions.
    ///
    /// <div class="warning">
    ///
    /// This cannot be taken back, and it is not as final as it may seem: any backup of the database, together with the
    /// permission to unwrap with a KEK that wrapped these keys, brings them back. So it is complete only when the last such
    /// backup is gone. Where each tenant has a KEK of its own, deleting that KEK in the KMS is final, whatever backups there are.
    ///
    /// A version's row that is missing shows by the gap in the numbers, but not if it is that of the greatest version of its usage. If
    /// such a row was deleted, only a process that encrypted under the version knows; elsewhere the receipt leaves it out,
    /// and a backup of the row brings it back.
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
    /// [`Error::NoKeys`] if the context has no key of any usage: nothing is done then, and a first use that is under way may still make
    /// one. [`StoreError::Corrupt`] if a row was edited, a version's row is
    /// missing, or one that is destroyed has wraps all the same; and those of the key store. What was destroyed before an error
    /// stays so. An error after all was destroyed stands in the receipt.
    ///
    /// # Cancellation
    ///
    /// What was destroyed stays so; the next call goes on from there.
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
            // Read after the fence: a receipt says what is there when no process holds a key any more. What came
            // nevertheless, as from `revive`, is destroyed too, and its key has to leave the processes in turn.
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

    /// Lets this process's own cache see it.
    async fn all_seen(&self, context: &EncryptionContext) {
        if let Some(core) = &self.core {
            for usage in KeyUsage::ALL {
                core.cache().refresh(context, usage).await;
            }
        }
    }

    /// Destroys all versions, also those that are made meanwhile, and returns them with the tombstones.
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
                    // Another process was faster: see what it did.
                    Err(Error::Store(error)) if error.is_lost_race() => {}
                    destroyed => destroyed?,
                }
            }
            if !is_done {
                continue;
            }
            check_all_is_gone(&versions)?;
            // Last: if this process dies before, every usage is refused, because all that there is is destroyed.
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

    /// Leaves a tombstone for a usage that has no key.
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

/// Refuses to say that all is destroyed where the rows do not show it. What can be destroyed was before.
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
            // As every insert has it, which counts up from the last.
            if Some(number) != expected {
                let what = format!(
                    "the versions of usage {usage} have a gap before {number}: a row was deleted, and nobody can say that its \
                     key is destroyed; restore the row from a backup, then shred again"
                );
                return Err(StoreError::Corrupt { what });
            }
            expected = number.next();
        }
    }
    Ok(())
}

/// Says through which states a version comes to be destroyed.
fn way_to_destruction(version: &KeyRecord) -> impl Iterator<Item = KeyState> + use<> {
    let (state, from) = (version.state, version.suspended_from);
    let via = (!state.may_become(KeyState::Destroyed, from)).then(|| {
        // A key that is not to be trusted is another thing than one that is to be gone.
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
