//! Checking that a version unwraps to the key it was created with.

use encx_core::key::KeyState;
use encx_core::store::KeyRecord;

use super::KeyManager;
use crate::error::{Error, Location};

impl KeyManager {
    /// Unwraps a version, in any state, and compares the key with its check value.
    ///
    /// Makes one KMS call for each wrap that the KEK rule allows. Neither keeps nor returns a key, and writes
    /// nothing.
    ///
    /// A [`Keyring`](crate::Keyring) uses the first wrap that opens. This finds a broken wrap before it is
    /// the last one.
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
    /// [`StoreError::Corrupt`](crate::store::StoreError::Corrupt) if the row's encryption context does not
    /// match its scope; [`Error::RolledBack`] if its wraps are gone; [`Error::Destroyed`] if it is destroyed;
    /// [`Error::KekNotAllowed`] if the KEK rule allows none of its wraps; [`Error::KeyMismatch`] if a wrap
    /// holds another key; KEK rule and KMS errors.
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
