//! Importing keys, and preparing versions before their use.

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, KeyState};
use encx_core::store::{KeyRecord, StoreError, are_shredded};

use super::{KeyManager, MAX_ATTEMPTS, waiting};
use crate::error::Error;

impl KeyManager {
    /// Imports a 32-byte key: wraps it, stores it as the context's next version and promotes it.
    ///
    /// For a pepper from a secrets manager, or the key of an index that moves here:
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::keys::KeyUsage;
    /// # use encx::kms::DataKey;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// # let context = EncryptionContext::builder().pair("purpose", "login").build()?;
    /// # let bytes = [7; 32];
    /// let pepper = DataKey::copy_from(&bytes).expect("32 bytes");
    /// crypto.key_manager().for_usage(KeyUsage::Pepper).import(&context, pepper).await?;
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// <div class="warning">
    ///
    /// encx cannot know where else an imported key is known. Do not import keys for data; have them
    /// generated. Import each key once, for one context and one usage.
    ///
    /// It must be 32 random bytes. The key store keeps a check value of every key, which tests a guess as
    /// fast as a hash. An attacker with a copy of the database finds a typed pepper, or a padded or hashed
    /// text.
    ///
    /// </div>
    ///
    /// # Errors
    ///
    /// [`Error::Shredded`] as for [`create`](Self::create), also if the context is shredded during the call.
    /// [`Error::Store`] with [`StoreError::Conflict`] or [`StoreError::Superseded`] if another process made a
    /// version at the same time: check with [`list`](Self::list) whether the import is stored. KEK rule, KMS
    /// and key store errors.
    ///
    /// # Cancellation
    ///
    /// The key is stored or not. Between the two writes of a later version it is stored pre-active, and
    /// [`rotate`](Self::rotate) promotes it.
    pub async fn import(&self, context: &EncryptionContext, key: DataKey) -> Result<KeyRecord, Error> {
        let versions = self.load(context).await?;
        if self.is_shredded(context, &versions).await? {
            return Err(Error::Shredded);
        }
        let state = if versions.is_empty() {
            KeyState::Active
        } else {
            KeyState::PreActive
        };
        let made = match self.mint_from(context, &versions, state, Some(key), false).await {
            Ok(made) => made,
            Err(error) => return Err(self.import_lost(context, error).await),
        };
        let record = match state {
            KeyState::Active => Ok(made.record.clone()),
            _ => self.apply(&made.record, KeyState::Active).await,
        };
        let record = match record {
            Ok(record) => self.seen(context, Ok(record)).await?,
            Err(error) => return Err(self.import_lost(context, error).await),
        };
        self.adopted(context, Some(&made));
        Ok(record)
    }

    /// Distinguishes a shredding from a race with another version.
    async fn import_lost(&self, context: &EncryptionContext, error: Error) -> Error {
        match &error {
            Error::Store(lost) if lost.is_lost_race() => self.lost_race(context, error).await,
            _ => error,
        }
    }

    /// Creates the next version of a context's key and leaves it pre-active.
    ///
    /// It decrypts and gives index terms in every process before [`rotate`](Self::rotate) promotes it.
    /// Returns the existing pre-active version if there is one.
    ///
    /// Processes that use the context unwrap it in the background, so that no request waits for the KMS after
    /// the promotion: wait with [`await_processes`](Self::await_processes), then rotate. To fill a column
    /// before a rotation, see [`Crypto::blind_index_under`](crate::Crypto::blind_index_under).
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use std::time::Duration;
    /// # use encx::keys::KeyState;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// let next = manager.prepare(&context).await?;
    /// assert_eq!(next.state, KeyState::PreActive);
    /// // Every process has unwrapped it, so no request waits for the KMS after the promotion.
    /// if manager.await_processes(Duration::from_secs(60)).await?.is_complete() {
    ///     manager.rotate(&context).await?;
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoKeys`] if there is no version; [`Error::Shredded`] if all were destroyed; KEK rule, KMS and
    /// key store errors.
    ///
    /// # Cancellation
    ///
    /// The key is either stored or not.
    pub async fn prepare(&self, context: &EncryptionContext) -> Result<KeyRecord, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let versions = self.load(context).await?;
            if versions.is_empty() {
                return Err(Error::NoKeys);
            }
            if are_shredded(&versions) {
                return Err(Error::Shredded);
            }
            match self.next_version(context, &versions, waiting(&versions)).await {
                // Another process was faster: look at the result.
                Err(Error::Store(error)) if error.is_lost_race() => {}
                next => {
                    let next = next?;
                    let record = self.seen(context, Ok(next.record.clone())).await?;
                    self.adopted(context, Some(&next));
                    return Ok(record);
                }
            }
        }
        Err(StoreError::Conflict.into())
    }
}
