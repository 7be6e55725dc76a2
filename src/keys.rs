//! Key lifecycle: create, rotate, rewrap, change state, destroy.

mod check_version;
mod destroy;
mod import;
mod maintenance;
mod processes;
mod quarantine;
mod rewrap_all;
mod rotate_all;
mod shred;
mod walked;
mod wraps;

use std::sync::Arc;
use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::DataKey;
use encx_core::kms::KeyManagementService;
use encx_core::store::{
    KeyCensus, KeyRecord, KeyStore, NewKey, StateChange, StoreError, StoredWrap, WrapChange, are_shredded,
    load_all_usages,
};

use self::quarantine::Quarantine;
use crate::clock::Clock;
use crate::crypto::{Crypto, CryptoBuilder, Parts};
use crate::error::{Error, Location};
use crate::kek::{KekChoice, KekRef, Keks};
use crate::keyring::Core;

pub use self::destroy::Destruction;
pub use self::maintenance::{
    DuePage, DueReport, DueVersion, FailedRotation, Maintenance, MaintenanceReport, MaintenanceTask,
    RotationPeriod,
};
pub use self::processes::{ProcessReport, SilentProcess};
pub use self::rewrap_all::RewrapAll;
pub use self::rotate_all::RotateAll;
pub use self::shred::{DestroyedVersion, ShredReceipt};
pub use self::wraps::{FailedWraps, WrapsReport};
pub use encx_core::key::{
    DataKeyId, DataKeyIdError, KeyCheck, KeyState, KeyUsage, KeyVersion, NewIdError, Scope,
};

/// Attempts of an operation that loses races.
const MAX_ATTEMPTS: usize = 8;

/// Manages the versions of a context's data key.
///
/// [`Crypto::key_manager`] returns one whose changes that `Crypto` sees at once. [`KeyManager::new`] builds
/// one for a tool or job with its own permissions. Other processes see a change within their `state_ttl`.
///
/// Manages keys for data unless [`for_usage`](Self::for_usage) selects another usage.
#[derive(Clone, Debug)]
pub struct KeyManager {
    keks: Arc<Keks>,
    store: Arc<dyn KeyStore>,
    clock: Arc<dyn Clock>,
    usage: KeyUsage,
    reason: Option<String>,
    census: Option<Arc<dyn KeyCensus>>,
    quarantine: Quarantine,
    /// The `Crypto` that sees every change.
    core: Option<Core>,
}

impl Crypto {
    /// Returns the manager of the keys that this `Crypto` uses.
    #[must_use]
    pub fn key_manager(&self) -> KeyManager {
        let cache = self.core().cache();
        KeyManager {
            keks: Arc::clone(&cache.keks),
            store: Arc::clone(&cache.store),
            clock: Arc::clone(&cache.clock),
            usage: KeyUsage::Data,
            reason: None,
            census: self.census().cloned(),
            quarantine: Quarantine::default(),
            core: Some(self.core().clone()),
        }
    }
}

/// The KEKs named by a KEK rule. From [`KeyManager::named_keks`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedKeks {
    /// KEKs that wrap new keys, in any context.
    pub wrapping: Vec<KekRef>,
    /// KEKs that only unwrap.
    pub unwrapping: Vec<KekRef>,
    /// Whether a closure decides before these. The KEKs that it returns are unknown.
    pub by_closure: bool,
}

impl CryptoBuilder {
    /// Builds only a key manager, with the same KMSs and KEK rule. Cache limits do not apply.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] and [`Error::UnknownKms`] for invalid settings.
    pub fn build_key_manager(self) -> Result<KeyManager, Error> {
        let Parts {
            keks,
            store,
            clock,
            census,
        } = self.into_parts()?;
        Ok(KeyManager {
            keks,
            store,
            clock,
            usage: KeyUsage::Data,
            reason: None,
            census,
            quarantine: Quarantine::default(),
            core: None,
        })
    }
}

impl KeyManager {
    /// Builds a key manager from a KMS, with its default KEK, and a key store.
    ///
    /// For a KEK rule or several KMSs, use [`CryptoBuilder::build_key_manager`].
    ///
    /// ```
    /// use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// use encx::keys::KeyManager;
    ///
    /// // For a job that manages keys and encrypts nothing.
    /// let manager = KeyManager::new(MemoryKms::new(), MemoryKeyStore::new())?;
    /// # Ok::<(), encx::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an unusable KMS.
    pub fn new(kms: impl KeyManagementService, store: impl KeyStore) -> Result<Self, Error> {
        Crypto::builder(kms, store).build_key_manager()
    }

    /// Lists the KEKs that the KEK rule names: the default, those of pairs, and those that only unwrap.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::keys::KeyManager;
    /// # let manager = KeyManager::new(MemoryKms::new(), MemoryKeyStore::new())?;
    /// for kek in manager.named_keks().wrapping {
    ///     println!("new keys are wrapped by {} of KMS {}", kek.kek, kek.kms);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// ```
    #[must_use]
    pub fn named_keks(&self) -> NamedKeks {
        let rule = self.keks.rule();
        let mut named = NamedKeks {
            by_closure: rule.by_closure.is_some(),
            ..NamedKeks::default()
        };
        for kek in rule.choices().flat_map(KekChoice::wraps) {
            if !named.wrapping.contains(kek) {
                named.wrapping.push(kek.clone());
            }
        }
        for kek in rule.named() {
            if !named.wrapping.contains(kek) && !named.unwrapping.contains(kek) {
                named.unwrapping.push(kek.clone());
            }
        }
        named
    }

    /// Selects the usage whose keys are managed.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::keys::KeyUsage;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// let peppers = manager.for_usage(KeyUsage::Pepper);
    /// for pepper in peppers.list(&context).await? {
    ///     println!("version {} is {}", pepper.version, pepper.state);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn for_usage(mut self, usage: KeyUsage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the reason for the audit log: at most 1024 bytes, never a secret.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// manager.because("ticket 4711: a laptop was lost").rotate(&context).await?;
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Sets the census that [`destroy`](Self::destroy) asks, in place of the builder's.
    ///
    /// ```
    /// # use encx::Error;
    /// # use encx::keys::{Destruction, KeyManager};
    /// # use encx::{EncryptionContext, keys::DataKeyId, store::KeyCensus};
    /// # async fn example(
    /// #     manager: KeyManager, census: impl KeyCensus, context: EncryptionContext, old: DataKeyId,
    /// # ) -> Result<(), Error> {
    /// // `census` comes from `Rows::census` of encx-tables, for the columns that hold ciphertexts.
    /// let manager = manager.with_census(census);
    /// match manager.destroy(&context, old).await {
    ///     Err(Error::StillInUse { .. }) => println!("rows are still encrypted under it"),
    ///     other => println!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_census(mut self, census: impl KeyCensus) -> Self {
        self.census = Some(Arc::new(census));
        self
    }

    /// Creates the first version of a context's key, active at once.
    ///
    /// If the KEK rule requires several wraps, one must succeed; wraps by unavailable KEKs are left out. See
    /// [`missing_wraps`](Self::missing_wraps) and [`complete_wraps`](Self::complete_wraps).
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::keys::KeyState;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// let version = manager.create(&context).await?;
    /// assert_eq!(version.state, KeyState::Active);
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] if the key exists. [`Error::Shredded`] if all its versions were destroyed, or
    /// if it has none and all keys of the context's other usages were destroyed: see
    /// [`revive`](Self::revive). KEK rule, KMS and key store errors.
    ///
    /// # Cancellation
    ///
    /// The key is either stored or not.
    pub async fn create(&self, context: &EncryptionContext) -> Result<KeyRecord, Error> {
        let versions = self.load(context).await?;
        if self.is_shredded(context, &versions).await? {
            return Err(Error::Shredded);
        }
        if !versions.is_empty() {
            return Err(Error::AlreadyExists);
        }
        match self.create_active(context, &[], false).await {
            Err(Error::AlreadyExists) => Err(self.lost_race(context, Error::AlreadyExists).await),
            created => created,
        }
    }

    /// Creates a new version and promotes it: it encrypts, and the previous version only decrypts.
    ///
    /// A pre-active version is promoted instead if there is one. If another process rotates at the same time,
    /// both return the version that won. Nothing is re-encrypted; see
    /// [`Crypto::needs_reencryption`](crate::Crypto::needs_reencryption).
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// let version = manager.rotate(&context).await?;
    /// println!("version {} encrypts from now on", version.version);
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
    /// Between the two writes a harmless pre-active version remains. The next call promotes it.
    pub async fn rotate(&self, context: &EncryptionContext) -> Result<KeyRecord, Error> {
        let versions = self.load(context).await?;
        self.rotate_from(context, versions).await
    }

    /// Rotates, unless another process has rotated since these versions were read.
    pub(crate) async fn rotate_from(
        &self,
        context: &EncryptionContext,
        mut versions: Vec<KeyRecord>,
    ) -> Result<KeyRecord, Error> {
        let before = newest_activated(&versions);
        for _ in 0..MAX_ATTEMPTS {
            if versions.is_empty() {
                return Err(Error::NoKeys);
            }
            if are_shredded(&versions) {
                return Err(Error::Shredded);
            }
            let newest = newest_activated(&versions);
            let active = versions.iter().find(|version| version.state == KeyState::Active);
            if let Some(active) = active.filter(|_| newest > before) {
                return self.seen(context, Ok(active.clone())).await;
            }
            let next = self.next_version(context, &versions, waiting(&versions)).await;
            let promoted = match &next {
                Ok(next) => self.apply(&next.record, KeyState::Active).await,
                Err(error) => Err(error.clone()),
            };
            match promoted {
                // Another process was faster: look at the result.
                Err(Error::Store(error)) if error.is_lost_race() || is_overtaken(&error) => {
                    versions = self.load(context).await?;
                }
                promoted => {
                    let promoted = self.seen(context, promoted).await?;
                    self.adopted(context, next.as_ref().ok());
                    return Ok(promoted);
                }
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Creates the next version, pre-active.
    pub(crate) async fn publish_next(
        &self,
        context: &EncryptionContext,
        versions: &[KeyRecord],
    ) -> Result<KeyRecord, Error> {
        let made = self.mint(context, versions, KeyState::PreActive).await?;
        let record = self.seen(context, Ok(made.record.clone())).await?;
        self.adopted(context, Some(&made));
        Ok(record)
    }

    /// Lists the versions of a context's key, oldest first. May be empty.
    ///
    /// A usage that had no key when its context was shredded has a [tombstone](KeyRecord::is_tombstone) as
    /// version 1.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// for version in manager.list(&context).await? {
    ///     println!("version {} is {}", version.version, version.state);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Key store errors; [`StoreError::Corrupt`] if a row was edited or moved here from another scope.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn list(&self, context: &EncryptionContext) -> Result<Vec<KeyRecord>, Error> {
        self.load(context).await
    }

    /// Changes a version's state: promotes a pre-active version, suspends, resumes, or marks as compromised.
    ///
    /// [`KeyState`] lists the allowed transitions. To destroy a version, use [`destroy`](Self::destroy).
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::keys::KeyState;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # let version = manager.create(&context).await?;
    /// // This tenant's requests fail with `Error::Suspended` until the version is resumed.
    /// manager.set_state(&context, version.id, KeyState::Suspended).await?;
    /// manager.set_state(&context, version.id, KeyState::Active).await?;
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`] if the context has no such version; [`StoreError::IllegalTransition`] and
    /// [`StoreError::Superseded`] if the transition is not allowed; [`StoreError::StaleRevision`] if another
    /// process changed the version during the call; key store errors. [`Error::Config`] for
    /// [`KeyState::Destroyed`].
    ///
    /// # Cancellation
    ///
    /// The change is either applied or not.
    pub async fn set_state(
        &self,
        context: &EncryptionContext,
        id: DataKeyId,
        state: KeyState,
    ) -> Result<KeyRecord, Error> {
        if state == KeyState::Destroyed {
            let what = "destroying a key loses its data; ask for it by name, with `destroy`".to_owned();
            return Err(Error::Config { what });
        }
        let version = self.find(context, id).await?;
        let changed = self.apply(&version, state).await;
        self.seen(context, changed).await
    }

    /// Creates a new active version for a context whose versions were all destroyed.
    ///
    /// Data that the destroyed versions encrypted stays unreadable. Revives one usage; every other usage,
    /// including those that had no key at the shredding, returns [`Error::Shredded`] until it is revived too.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use std::time::Duration;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// # let _receipt = manager.shred(&context, Duration::ZERO).await?;
    /// // A shredded tenant signs up again. Its old data stays unreadable.
    /// let version = manager.revive(&context).await?;
    /// # assert_eq!(version.state, encx::keys::KeyState::Active);
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoKeys`] if the context never had a key, or if only other usages have keys and one of them is
    /// not destroyed; [`Error::AlreadyExists`] if a version of this usage is not destroyed; KEK rule, KMS and
    /// key store errors.
    ///
    /// # Cancellation
    ///
    /// The key is either stored or not.
    pub async fn revive(&self, context: &EncryptionContext) -> Result<KeyRecord, Error> {
        let versions = self.load(context).await?;
        if !self.is_shredded(context, &versions).await? {
            let is_none = versions.is_empty();
            return Err(if is_none {
                Error::NoKeys
            } else {
                Error::AlreadyExists
            });
        }
        self.create_active(context, &versions, true).await
    }

    /// Moves every version of a context's key to the KEKs that the KEK rule now chooses.
    ///
    /// No ciphertext changes. Allow the current KEKs with [`also_unwrap`](CryptoBuilder::also_unwrap).
    /// Returns the moved versions.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # manager.create(&context).await?;
    /// // The KEK rule now chooses another KEK, and `also_unwrap` names the old one.
    /// let moved = manager.rewrap(&context).await?;
    /// println!("{} versions moved", moved.len());
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// KEK rule, KMS and key store errors. Versions moved before the error stay moved; the next call
    /// continues.
    ///
    /// # Cancellation
    ///
    /// As after an error.
    pub async fn rewrap(&self, context: &EncryptionContext) -> Result<Vec<KeyRecord>, Error> {
        let mut moved = Vec::new();
        self.keks.ask_names(context).await?;
        for version in self.load(context).await? {
            if version.state == KeyState::Destroyed {
                continue;
            }
            let Some(wraps) = self.keks.rewrap(&version, context, self.usage).await? else {
                continue;
            };
            let change = self.wrap_change(&version, wraps);
            for outcome in self.ask(self.store.replace_wraps(&[change])).await? {
                moved.push(outcome.result?);
            }
        }
        self.seen(context, Ok(moved)).await
    }

    /// Calls the key store and reports the outcome to the health of the manager's `Crypto`, if it has one.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match &self.core {
            Some(core) => core.cache().ask(call).await,
            None => call.await,
        }
    }

    pub(crate) async fn load(&self, context: &EncryptionContext) -> Result<Vec<KeyRecord>, Error> {
        let scope = [Scope::of(self.usage, context)];
        let mut versions = self.ask(self.store.load(&scope)).await?;
        for version in &versions {
            version.check_belongs(context, self.usage)?;
        }
        versions.sort_by_key(|version| version.version);
        Ok(versions)
    }

    /// Tells whether all versions of this usage are destroyed, or, if it has none, those of all other usages.
    async fn is_shredded(&self, context: &EncryptionContext, versions: &[KeyRecord]) -> Result<bool, Error> {
        if versions.is_empty() {
            let all = self.ask(load_all_usages(&*self.store, context)).await?;
            return Ok(are_shredded(&all));
        }
        Ok(are_shredded(versions))
    }

    async fn find(&self, context: &EncryptionContext, id: DataKeyId) -> Result<KeyRecord, Error> {
        let versions = self.load(context).await?;
        versions
            .into_iter()
            .find(|version| version.id == id)
            .ok_or(Error::UnknownKey {
                id,
                at: Location::default(),
            })
    }

    /// Returns the error of a lost race: `Shredded` if the context was shredded since the operation began.
    async fn lost_race(&self, context: &EncryptionContext, otherwise: Error) -> Error {
        let is_shredded = match self.load(context).await {
            Ok(versions) => self.is_shredded(context, &versions).await,
            Err(error) => Err(error),
        };
        match is_shredded {
            Ok(true) => Error::Shredded,
            Ok(false) => otherwise,
            Err(error) => error,
        }
    }

    /// Creates a version that is active at once, for a scope without an active version.
    async fn create_active(
        &self,
        context: &EncryptionContext,
        versions: &[KeyRecord],
        revives: bool,
    ) -> Result<KeyRecord, Error> {
        let made = self
            .mint_from(context, versions, KeyState::Active, None, revives)
            .await;
        match made {
            Err(Error::Store(error)) if error.is_lost_race() => Err(Error::AlreadyExists),
            Err(error) => Err(error),
            Ok(made) => {
                let record = self.seen(context, Ok(made.record.clone())).await?;
                self.adopted(context, Some(&made));
                Ok(record)
            }
        }
    }

    /// Adds a new key to this process's cache, which saves an unwrap.
    fn adopted(&self, context: &EncryptionContext, made: Option<&Made>) {
        if let (Some(core), Some(made)) = (&self.core, made) {
            core.cache()
                .adopt(context, self.usage, made.record.id, &made.key, made.began);
        }
    }

    /// Returns the version to promote: the waiting one if it opens, otherwise a new one.
    async fn next_version(
        &self,
        context: &EncryptionContext,
        versions: &[KeyRecord],
        waiting: Option<&KeyRecord>,
    ) -> Result<Made, Error> {
        if let Some(version) = waiting {
            let (record, began) = (version.clone(), self.clock.elapsed());
            match self.keks.unwrap(version, context, self.usage).await {
                Ok(key) => return Ok(Made { record, key, began }),
                Err(error) if error.is_retryable() => return Err(error),
                // Promoting it would stop all encryption.
                Err(error) => {
                    tracing::warn!(target: "encx::refused", key = %version.id, %error, "waiting version does not open");
                }
            }
        }
        self.mint(context, versions, KeyState::PreActive).await
    }

    /// Creates the next version. Calls the KMS before writing.
    async fn mint(
        &self,
        context: &EncryptionContext,
        versions: &[KeyRecord],
        state: KeyState,
    ) -> Result<Made, Error> {
        self.mint_from(context, versions, state, None, false).await
    }

    /// Like [`mint`](Self::mint), from a given key or one that the KMS generates.
    async fn mint_from(
        &self,
        context: &EncryptionContext,
        versions: &[KeyRecord],
        state: KeyState,
        given: Option<DataKey>,
        revives: bool,
    ) -> Result<Made, Error> {
        let began = self.clock.elapsed();
        let greatest = versions.iter().map(|version| version.id).max();
        let id = DataKeyId::generate(self.clock.unix_millis(), greatest)?;
        let version = match versions.iter().map(|version| version.version).max() {
            None => KeyVersion::FIRST,
            Some(last) => last.next().ok_or(StoreError::Conflict)?,
        };
        let (key, wraps) = self.keks.wrap(context, self.usage, id, given).await?;
        let mut new = NewKey::new(id, self.usage, context, key.check(id))
            .with_version(version)
            .with_state(state);
        new.wraps = wraps;
        new.revives = revives;
        new.reason.clone_from(&self.reason);
        let record = self.ask(self.store.insert(&new)).await?;
        Ok(Made { record, key, began })
    }

    pub(crate) async fn apply(&self, version: &KeyRecord, to: KeyState) -> Result<KeyRecord, Error> {
        self.change(version, to, self.reason.clone()).await
    }

    async fn change(
        &self,
        version: &KeyRecord,
        to: KeyState,
        reason: Option<String>,
    ) -> Result<KeyRecord, Error> {
        let mut change = StateChange::new(version, to);
        change.reason = reason;
        Ok(self.ask(self.store.apply(&change)).await?)
    }

    fn wrap_change(&self, version: &KeyRecord, wraps: Vec<StoredWrap>) -> WrapChange {
        let mut change = WrapChange::new(version, wraps);
        change.reason.clone_from(&self.reason);
        change
    }

    /// Refreshes this process's own cache before the caller sees the change.
    pub(crate) async fn seen<T>(
        &self,
        context: &EncryptionContext,
        changed: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(core) = self.core.as_ref().filter(|_| changed.is_ok()) {
            core.cache().refresh(context, self.usage).await;
        }
        changed
    }
}

/// A stored version and its key.
struct Made {
    record: KeyRecord,
    key: DataKey,
    began: Duration,
}

fn newest_activated(versions: &[KeyRecord]) -> Option<DataKeyId> {
    versions
        .iter()
        .filter(|version| version.activated_at.is_some())
        .map(|version| version.id)
        .max()
}

/// Returns the version waiting for promotion.
pub(crate) fn waiting(versions: &[KeyRecord]) -> Option<&KeyRecord> {
    let newest = newest_activated(versions);
    versions
        .iter()
        .filter(|version| version.state == KeyState::PreActive && Some(version.id) > newest)
        .max_by_key(|version| version.id)
}

/// Tells whether a promotion failed because this version or a later one is already active.
fn is_overtaken(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Superseded { .. } | StoreError::IllegalTransition { .. }
    )
}
