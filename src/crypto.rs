//! The entry point: `Crypto`.

mod batch;
mod builder;
mod check;
#[cfg(feature = "password")]
mod password;
mod places;
mod search;
mod warm_up;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use encx_core::aad::{Aad, AsAad};
use encx_core::ciphertext::Ciphertext;
use encx_core::context::EncryptionContext;
use encx_core::key::KeyUsage;
use encx_core::store::{KeyCensus, KeyStore};

use crate::cache::{Entry, Stats};
use crate::clock::Clock;
use crate::error::{Boxed, Error};
use crate::keyring::{Batch, Core, Decrypt, Encrypt, Keyring, Place, TryFirst};
use crate::plaintext::Plaintext;

pub use builder::CryptoBuilder;
pub(crate) use builder::Parts;
pub use warm_up::{FailedWarmUp, WarmUpReport};

/// Encrypts and decrypts fields.
///
/// Build one per process and clone it freely: a clone is a handle on the same cache. Data keys are made on first use,
/// unwrapped by the KMS once, cached for a bounded time and then zeroised.
///
/// ```
/// use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext, Field};
///
/// const SSN: Field = Field::new("users", "ssn");
///
/// # encx_testkit::block_on(async {
/// // In a service: a KMS such as that of `encx-local`, and a key store of `encx-sqlx`.
/// let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
///
/// let context = EncryptionContext::builder().pair("tenantId", "t-42").pair("purpose", "pii").build()?;
/// let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await?;
/// let ssn = crypto.decrypt(&context, &sealed, SSN.row(7)).await?.into_string()?;
/// assert_eq!(ssn, "123-45-6789");
///
/// // The same bytes in another row are refused.
/// assert!(crypto.decrypt(&context, &sealed, SSN.row(8)).await.is_err());
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Crypto {
    core: Core,
    census: Option<Arc<dyn KeyCensus>>,
    #[cfg(feature = "password")]
    passwords: Arc<crate::password::Workers>,
}

impl Crypto {
    /// Encrypts a value of at most 64 MiB under the context's active key, and binds it to its place.
    ///
    /// The ciphertext is 90 bytes longer than the value. If the context has no key yet, this makes the first one,
    /// unless the builder forbids it.
    ///
    /// # Errors
    ///
    /// - [`Error::Aad`], [`Error::PlaintextTooLong`]: the input cannot be used. No key was loaded.
    /// - [`Error::NoActiveKey`], [`Error::NoKeys`], [`Error::Shredded`], [`Error::RolledBack`]: there is no key to
    ///   encrypt with.
    /// - [`Error::NoKek`], [`Error::UnknownKms`], [`Error::Config`], [`Error::KekNotAllowed`]: the KEK rule does not cover this.
    /// - [`Error::Kms`], [`Error::KmsCircuitOpen`], [`Error::Store`], [`Error::KeyMismatch`], [`Error::TimedOut`],
    ///   [`Error::Interrupted`], [`Error::StaleState`]: the key could not be loaded.
    /// - [`Error::Random`], [`Error::NoRuntime`], [`Error::ShutDown`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time. A key that is being loaded still loads, for other callers that wait for it.
    pub fn encrypt<'a, 'c, P: AsRef<[u8]>, A: AsAad>(
        &'a self,
        context: &'c EncryptionContext,
        plaintext: P,
        aad: A,
    ) -> TryFirst<Ciphertext, Encrypt<InContext<'a, 'c>, P>> {
        TryFirst::new(Encrypt {
            place: self.place(context),
            plaintext,
            aad: aad.into_aad(),
        })
    }

    /// Decrypts a value that was encrypted under this context and bound to this place.
    ///
    /// Never makes a key.
    ///
    /// # Errors
    ///
    /// - [`Error::Decrypt`]: the value was changed, or belongs to another row or column.
    /// - [`Error::UnknownKey`]: the context has no such key; most likely, the value belongs to another context.
    /// - [`Error::Suspended`], [`Error::Compromised`], [`Error::Destroyed`], [`Error::Shredded`]: the key's state forbids it.
    /// - [`Error::SuiteNotAccepted`], [`Error::Aad`]: the input cannot be used. No key was loaded.
    /// - otherwise as [`encrypt`](Self::encrypt).
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub fn decrypt<'a, 'c, A: AsAad>(
        &'a self,
        context: &'c EncryptionContext,
        ciphertext: &'c Ciphertext,
        aad: A,
    ) -> TryFirst<Plaintext, Decrypt<'c, InContext<'a, 'c>>> {
        TryFirst::new(Decrypt {
            place: self.place(context),
            ciphertext,
            aad: aad.into_aad(),
        })
    }

    /// Encrypts many values, each under its own context and bound to its own place.
    ///
    /// The results are in the order of the items, and each may fail separately. Missing keys are loaded together: one
    /// query for all of them, and concurrent KMS calls. Adjacent items of one context, such as the fields of a record,
    /// are faster than separate calls of [`encrypt`](Self::encrypt).
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext, Field};
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// # let context = EncryptionContext::builder().pair("tenantId", "t-42").build()?;
    /// const NAME: Field = Field::new("users", "name");
    /// const SSN: Field = Field::new("users", "ssn");
    ///
    /// let items = [(&context, "Ada", NAME.row(7)), (&context, "123-45-6789", SSN.row(7))];
    /// let sealed = crypto.encrypt_many(items).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// # assert_eq!(sealed.len(), 2);
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`encrypt`](Self::encrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; keys that are being loaded still load.
    pub fn encrypt_many<'a, P, A>(
        &'a self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, P, A)>,
    ) -> Batch<'a, Self, (&'a EncryptionContext, P, A), Ciphertext>
    where
        P: AsRef<[u8]> + Send + Sync + 'a,
        A: AsAad + 'a,
    {
        let try_now =
            |crypto: &Self, items: &[_], done: &mut _| batch::try_encrypt_many(&crypto.core, items, done);
        Batch::new(self, items, try_now, |crypto, items, mut done| {
            Box::pin(async move {
                batch::encrypt_rest(&crypto.core, &items, &mut done).await;
                done
            })
        })
    }

    /// Decrypts many values, each under its own context and bound to its own place.
    ///
    /// The results are in the order of the items, and each may fail separately. Missing keys are loaded together: one
    /// query for all of them, and concurrent KMS calls.
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`decrypt`](Self::decrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; keys that are being loaded still load.
    pub fn decrypt_many<'a, A: AsAad + 'a>(
        &'a self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, &'a Ciphertext, A)>,
    ) -> Batch<'a, Self, (&'a EncryptionContext, &'a Ciphertext, A), Plaintext> {
        let try_now =
            |crypto: &Self, items: &[_], done: &mut _| batch::try_decrypt_many(&crypto.core, items, done);
        Batch::new(self, items, try_now, |crypto, items, mut done| {
            Box::pin(async move {
                batch::decrypt_rest(&crypto.core, &items, &mut done).await;
                done
            })
        })
    }

    /// Returns the hot handle for a context, and loads its active key if there is one.
    ///
    /// A context without keys is not an error: the first encryption makes one.
    ///
    /// # Errors
    ///
    /// As [`encrypt`](Self::encrypt), without those about the input.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn keyring(&self, context: &EncryptionContext) -> Result<Keyring, Error> {
        let entry = self.entry(context);
        let cache = self.core.cache();
        if !self.core.is_ready(&entry) {
            let records = cache.current_records(&entry).await?;
            if records.active()?.is_some() {
                cache.active_key(&entry).await?;
            }
        }
        Ok(Keyring::new(self.core.clone(), entry))
    }

    /// Tells whether encrypting the same value again would use a newer key or another suite.
    ///
    /// Only reads the header. Authenticates nothing and calls no KMS.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`] if the context has no such key, [`Error::NoActiveKey`] or [`Error::Shredded`] if it has none
    /// to encrypt with; and those of [`encrypt`](Self::encrypt) that concern the key store.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn needs_reencryption(
        &self,
        context: &EncryptionContext,
        ciphertext: &Ciphertext,
    ) -> Result<bool, Error> {
        let entry = self.entry(context);
        self.core.needs_reencryption(&entry, ciphertext).await
    }

    /// Loads the active keys of many contexts, so that the first requests after a start need not wait.
    ///
    /// It costs one query for a thousand contexts, and one KMS call for each key that is not cached, of which
    /// [`max_concurrent_kms_calls`](crate::CryptoBuilder::max_concurrent_kms_calls) run at once. More contexts than
    /// [`max_keyrings`](crate::CryptoBuilder::max_keyrings) evict each other. A key that is not used is not refreshed.
    ///
    /// # Errors
    ///
    /// None as a whole: the report lists failures, and a failure does not stop the others from loading.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; keys that are being loaded still load.
    pub async fn warm_up<C: Borrow<EncryptionContext>>(
        &self,
        contexts: impl IntoIterator<Item = C>,
    ) -> WarmUpReport {
        let entries: Vec<_> = contexts
            .into_iter()
            .map(|context| self.entry(context.borrow()))
            .collect();
        warm_up::warm_up(self.core.cache(), &entries).await
    }

    /// Returns the clock with which this `Crypto` was built. For walks.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.core.cache().clock)
    }

    /// Returns the key store with which this `Crypto` was built. For walks.
    #[must_use]
    pub fn key_store(&self) -> Arc<dyn KeyStore> {
        Arc::clone(&self.core.cache().store)
    }

    /// Returns what this `Crypto` has done and what it holds. All clones share the counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.cache.stats()
    }

    /// Stops all background work, drops and zeroises every key, and waits until that is done. Then deregisters from the
    /// registry of processes, if the key store has one, within at most five seconds.
    ///
    /// Every later call on any clone or keyring is [`Error::ShutDown`]. Dropping the last clone and keyring does
    /// the same without waiting.
    ///
    /// # Cancellation
    ///
    /// May be dropped; everything still stops.
    pub async fn shutdown(&self) {
        self.core.cache.shutdown().await;
    }

    fn place<'a, 'c>(&'a self, context: &'c EncryptionContext) -> InContext<'a, 'c> {
        InContext {
            core: &self.core,
            context,
        }
    }

    pub(crate) fn entry(&self, context: &EncryptionContext) -> Arc<Entry> {
        self.place(context).entry()
    }

    pub(crate) fn census(&self) -> Option<&Arc<dyn KeyCensus>> {
        self.census.as_ref()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }
}

/// Locates the key of a context for `Crypto`.
pub struct InContext<'a, 'c> {
    core: &'a Core,
    context: &'c EncryptionContext,
}

/// Separate functions, as those of a keyring.
impl Place for InContext<'_, '_> {
    fn core(&self) -> &Core {
        self.core
    }

    fn entry(&self) -> Arc<Entry> {
        self.core.cache.nearby_entry(self.context, KeyUsage::Data)
    }

    #[inline(never)]
    fn try_encrypt_into(&self, plaintext: &[u8], aad: &mut Aad, buffer: &mut Vec<u8>) -> Option<Boxed<()>> {
        let mut done = None;
        let call = |entry: &Arc<Entry>| done = self.core.try_encrypt_into(entry, plaintext, aad, buffer);
        if !self.core.cache.with_entry(self.context, KeyUsage::Data, call) {
            return self.encrypt_at_the_end(plaintext, aad, buffer);
        }
        done
    }

    #[inline(never)]
    fn try_decrypt(&self, ciphertext: &Ciphertext, aad: &mut Aad) -> Option<Boxed<Plaintext>> {
        let mut done = None;
        let call = |entry: &Arc<Entry>| done = self.core.try_decrypt(entry, ciphertext, aad);
        if !self.core.cache.with_entry(self.context, KeyUsage::Data, call) {
            return self.decrypt_at_the_end(ciphertext, aad);
        }
        done
    }
}

impl InContext<'_, '_> {
    /// Encrypts while the thread exits and its nearby entries are gone.
    #[cold]
    #[inline(never)]
    fn encrypt_at_the_end(&self, plaintext: &[u8], aad: &mut Aad, buffer: &mut Vec<u8>) -> Option<Boxed<()>> {
        let entry = self.entry();
        self.core.try_encrypt_into(&entry, plaintext, aad, buffer)
    }

    /// Decrypts while the thread exits and its nearby entries are gone.
    #[cold]
    #[inline(never)]
    fn decrypt_at_the_end(&self, ciphertext: &Ciphertext, aad: &mut Aad) -> Option<Boxed<Plaintext>> {
        self.core.try_decrypt(&self.entry(), ciphertext, aad)
    }
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypto").field("core", &self.core).finish()
    }
}
