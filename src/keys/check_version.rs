//! Whether a version can still be unwrapped, and is the key that it was made as.

use encx_core::key::KeyState;
use encx_core::store::KeyRecord;

use super::KeyManager;
use crate::error::{Error, Location};

impl KeyManager {
    /// Unwraps a version, in whatever state it is, and compares the key with the version's check value: each wrap that the KEK
    /// rule allows, by a KMS call each. No key is kept or returned, and nothing is written.
    ///
    /// [`Keyring`](crate::Keyring)s are content with the first wrap that opens. This tells of a second one that does not, before
    /// it is the last.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let manager = crypto.key_manager();
    /// let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// for version in manager.list(&context).await? {
    ///     manager.check_version(&version).await?;
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`](crate::store::StoreError::Corrupt) if the row's encryption context is not the one of its scope;
    /// [`Error::RolledBack`] if its wraps are gone, and [`Error::Destroyed`] if it is destroyed; [`Error::KekNotAllowed`] if the
    /// KEK rule allows none of its wraps; [`Error::KeyMismatch`] if a wrap holds another key; those of the KEK rule and the KMS.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn check_version(&self, version: &KeyRecord) -> Result<(), Error> {
        let context = version.verified_context()?;
        if version.state == KeyState::Destroyed {
            let (id, at) = (version.id, Location::default());
            return Err(Error::Destroyed { id, at });
        }
        self.keks.open_all(version, &context).await
    }
}
