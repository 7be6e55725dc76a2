//! The settings of a `Crypto`, and their defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use encx_core::ciphertext::Suite;
use encx_core::context::EncryptionContext;
use encx_core::key::{KmsName, NameError};
use encx_core::kms::KeyManagementService;
use encx_core::store::{KeyCensus, KeyStore};
use encx_suite::{Backend, NonceSource, SuiteOptions};
use tokio::runtime::Handle;

use crate::cache::{Cache, CacheHandle, Limits, MAX_NAME_LEN};
use crate::clock::{Clock, SystemClock};
use crate::crypto::{Crypto, check};
use crate::error::Error;
use crate::kek::{KekChoice, KekRef, KekRule, Keks};
use crate::keyring::Core;

/// Builds a [`Crypto`]. Every setting has a safe default.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use std::time::Duration;
///
/// use encx::Crypto;
///
/// # encx_testkit::block_on(async {
/// # let (kms, store) = (MemoryKms::new(), MemoryKeyStore::new());
/// let crypto = Crypto::builder(kms, store)
///     .ttl(Duration::from_secs(15 * 60))
///     .stale_if_unavailable(Duration::from_secs(4 * 3600))
///     .build()
///     .await?;
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct CryptoBuilder {
    kms: BTreeMap<KmsName, Arc<dyn KeyManagementService>>,
    store: Arc<dyn KeyStore>,
    rule: KekRule,
    clock: Arc<dyn Clock>,
    limits: Limits,
    max_concurrent_kms_calls: usize,
    suite: Suite,
    accept_uncommitted: bool,
    census: Option<Arc<dyn KeyCensus>>,
    #[cfg(feature = "password")]
    pub(super) passwords: crate::password::Settings,
    process_name: Option<String>,
    connect_lazily: bool,
    require_kms: bool,
    /// The first name that could not be parsed, which `build` reports.
    refused: Option<Error>,
}

impl Crypto {
    /// Starts to build a `Crypto` on a KMS and a key store.
    pub fn builder(kms: impl KeyManagementService, store: impl KeyStore) -> CryptoBuilder {
        CryptoBuilder::new(kms, store)
    }
}

impl CryptoBuilder {
    pub(super) fn new(kms: impl KeyManagementService, store: impl KeyStore) -> Self {
        let kms: Arc<dyn KeyManagementService> = Arc::new(kms);
        Self {
            kms: BTreeMap::from([(KmsName::default(), kms)]),
            store: Arc::new(store),
            rule: KekRule::default(),
            clock: Arc::new(SystemClock::new()),
            limits: Limits {
                ttl: Duration::from_secs(60 * 60),
                refresh_ahead: 0.1,
                stale_encrypt: Duration::ZERO,
                stale_decrypt: Duration::ZERO,
                state_ttl: Duration::from_secs(60),
                max_keyrings: 10_000,
                load_timeout: Duration::from_secs(30),
                fail_closed_on_stale_state: false,
                create_on_first_use: true,
                accept_compromised: false,
                suite: SuiteOptions::default(),
            },
            max_concurrent_kms_calls: 32,
            suite: Suite::KcXaes256Gcm,
            accept_uncommitted: false,
            census: None,
            #[cfg(feature = "password")]
            passwords: crate::password::Settings::default(),
            process_name: None,
            connect_lazily: false,
            require_kms: false,
            refused: None,
        }
    }

    /// Registers another KMS under a name, such as `eu`.
    ///
    /// Every wrap that the KMS makes is stored with this name. It must mean the same KMS for as long as the data exists.
    pub fn kms_named(
        mut self,
        name: impl TryInto<KmsName, Error: Into<NameError>>,
        kms: impl KeyManagementService,
    ) -> Self {
        if let Some(name) = self.parse(name)
            && self.kms.insert(name.clone(), Arc::new(kms)).is_some()
        {
            let what = format!("two KMSs are registered under the name `{name}`; rename one");
            self.refused.get_or_insert(Error::Config { what });
        }
        self
    }

    /// Names the KEK for contexts that no other rule covers. Default: the KMS's own, such as that of `AWS_KMS_KEY_ID`.
    ///
    /// Name a KEK by an id, an ARN or an alias of the KMS given to [`Crypto::builder`], or by a pair of a registered
    /// KMS's name and the KEK's name there.
    pub fn kek(mut self, kek: impl TryInto<KekRef, Error: Into<NameError>>) -> Self {
        if let Some(kek) = self.parse::<KekRef>(kek) {
            self.rule.default = Some(KekChoice::new(kek));
        }
        self
    }

    /// Names all KEKs for contexts that no other rule covers: those that wrap, and those that may only unwrap.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// use encx::Crypto;
    /// use encx::kms::{KekChoice, KekRef};
    ///
    /// # encx_testkit::block_on(async {
    /// # let (frankfurt, paris) = (MemoryKms::new(), MemoryKms::new());
    /// let (first, second) = (KekRef::try_from("memory/default")?, KekRef::try_from(("paris", "memory/default"))?);
    /// let crypto = Crypto::builder(frankfurt, MemoryKeyStore::new())
    ///     .kms_named("paris", paris)
    ///     .kek_choice(KekChoice::new(first).also_wrap(second))
    ///     .build()
    ///     .await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn kek_choice(mut self, choice: KekChoice) -> Self {
        self.rule.default = Some(choice);
        self
    }

    /// Names the KEK for contexts that have this pair. The first matching rule wins.
    pub fn kek_for(
        mut self,
        key: impl Into<String>,
        value: impl fmt::Display,
        kek: impl TryInto<KekRef, Error: Into<NameError>>,
    ) -> Self {
        match self.parse::<KekRef>(kek) {
            Some(kek) => self.kek_choice_for(key, value, KekChoice::new(kek)),
            None => self,
        }
    }

    /// Names all KEKs for contexts that have this pair: those that wrap, and those that may only unwrap. The first
    /// matching rule wins, including those of [`kek_for`](Self::kek_for).
    pub fn kek_choice_for(
        mut self,
        key: impl Into<String>,
        value: impl fmt::Display,
        choice: KekChoice,
    ) -> Self {
        self.rule.by_pair.push((key.into(), value.to_string(), choice));
        self
    }

    /// Chooses KEKs with a function of the context, before every other rule. If it returns
    /// `None`, the other rules decide.
    ///
    /// It is called whenever a key is made or unwrapped, and must always return the same choice for a context.
    pub fn kek_rule(
        mut self,
        rule: impl Fn(&EncryptionContext) -> Option<KekChoice> + Send + Sync + 'static,
    ) -> Self {
        self.rule.by_closure = Some(Arc::new(rule));
        self
    }

    /// Allows a retired KEK to unwrap, for every context. New keys are not wrapped with it.
    pub fn also_unwrap(mut self, kek: impl TryInto<KekRef, Error: Into<NameError>>) -> Self {
        if let Some(kek) = self.parse(kek) {
            self.rule.retired.push(kek);
        }
        self
    }

    /// Wraps only with this KEK, instead of those that the KEK rule chooses: for a tool that moves keys before the
    /// services' configuration changes.
    ///
    /// The rule must allow it for each context, under exactly this name ([`also_unwrap`](Self::also_unwrap) suffices);
    /// otherwise calls are [`Error::KekNotInRule`].
    pub fn wrap_with(mut self, kek: impl TryInto<KekRef, Error: Into<NameError>>) -> Self {
        self.rule.target = self.parse(kek).or(self.rule.target);
        self
    }

    /// Sets the suite that encrypts. Default: [`Suite::KcXaes256Gcm`], which commits to its key.
    ///
    /// [`Suite::Xaes256Gcm`] needs [`accept_uncommitted`](Self::accept_uncommitted) too.
    pub fn encrypt_with(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Also decrypts ciphertexts without a key commitment. Default: they are refused.
    ///
    /// <div class="warning">
    ///
    /// An attacker who can both write ciphertexts and plant keys can then craft one that decrypts differently for two
    /// readers, even if you encrypt with another suite.
    ///
    /// </div>
    pub fn accept_uncommitted(mut self) -> Self {
        self.accept_uncommitted = true;
        self
    }

    /// Also decrypts with compromised keys, so that their data can be read and re-encrypted. Default: refused.
    ///
    /// <div class="warning">
    ///
    /// An attacker with a compromised key can forge what it decrypts.
    ///
    /// </div>
    pub fn accept_compromised(mut self) -> Self {
        self.limits.accept_compromised = true;
        self
    }

    /// Draws every byte of every nonce from the operating system. Default: the second half of a nonce comes from a
    /// generator of the thread, which the operating system seeds and which detects forks.
    ///
    /// For a process that may be copied while it runs without noticing, such as a virtual machine that is restored from a
    /// snapshot, if [`reseed`](crate::reseed) cannot be called in time. A call of the operating system takes longer than
    /// encrypting a field.
    pub fn os_nonces(mut self) -> Self {
        self.limits.suite.nonces = NonceSource::OperatingSystem;
        self
    }

    /// Encrypts with this cipher library, instead of the one that [`suite::backend`](crate::suite::backend) returns: the
    /// fastest on this processor of those that were compiled in. All give the same bytes, and what one encrypted, the
    /// others decrypt.
    ///
    /// The local KMS provider and key files keep the default.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.limits.suite.backend = backend;
        self
    }

    /// Sets whether the first encryption under a context makes its first key. Default: true.
    ///
    /// Switch it off if contexts come from outside, so that an attacker cannot make keys at will.
    pub fn create_on_first_use(mut self, create: bool) -> Self {
        self.limits.create_on_first_use = create;
        self
    }

    /// Sets how long an unwrapped key is used before the KMS must unwrap it again. Default: 60 minutes.
    ///
    /// Withdrawing the permission on a KEK takes effect within this time.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.limits.ttl = ttl;
        self
    }

    /// Sets the last part of [`ttl`](Self::ttl) in which a key is refreshed, which means unwrapped again in the
    /// background so that no request waits for the KMS when it expires. Default: 0.1, the last 10 %. From 0.01 up to
    /// less than 1; 0 switches refreshing off.
    ///
    /// Only keys that were used since they were unwrapped are refreshed, each at a random moment, and at most half as
    /// many at once as [`max_concurrent_kms_calls`](Self::max_concurrent_kms_calls). An unused key costs no call and
    /// leaves memory at its `ttl`. The old key serves during a refresh. If the KMS refuses, the key is dropped at once,
    /// before its `ttl` ends.
    pub fn refresh_ahead(mut self, part: f64) -> Self {
        self.limits.refresh_ahead = part;
        self
    }

    /// Sets how long past [`ttl`](Self::ttl) a cached key may serve while the KMS is unavailable, to encrypt and to
    /// decrypt. Default: not at all.
    ///
    /// A KMS is unavailable if it does not answer, fails itself, or throttles. A refusal is an answer: if the
    /// permission was withdrawn, the KEK disabled or the wrapped key changed, the key is dropped at once. A key serves
    /// past its `ttl` only after the KMS was asked about it and did not answer; the background keeps asking until it
    /// does. [`Stats::stale_key_serves`](crate::Stats::stale_key_serves) counts such uses. Keys that are not cached
    /// cannot be served.
    ///
    /// <div class="warning">
    ///
    /// An attacker who can cut this process off from its KMS can delay the effect of a withdrawn permission by this time.
    ///
    /// </div>
    pub fn stale_if_unavailable(self, limit: Duration) -> Self {
        self.stale_encrypt_if_unavailable(limit)
            .stale_decrypt_if_unavailable(limit)
    }

    /// Sets [`stale_if_unavailable`](Self::stale_if_unavailable) only for decryption: continuing to read risks less than
    /// continuing to write under a key that the KMS may have withdrawn.
    pub fn stale_decrypt_if_unavailable(mut self, limit: Duration) -> Self {
        self.limits.stale_decrypt = limit;
        self
    }

    /// Sets [`stale_if_unavailable`](Self::stale_if_unavailable) only for encryption.
    pub fn stale_encrypt_if_unavailable(mut self, limit: Duration) -> Self {
        self.limits.stale_encrypt = limit;
        self
    }

    /// Sets how old a key's known state may be. Default: 60 seconds.
    ///
    /// The process notices a change by another process within this time, at the price of two small queries. Within the
    /// same time it notices the loss of a cached key, as after a restored backup, at the price of one query for a
    /// thousand such keys. While the key store is unreachable, older states are still used until [`ttl`](Self::ttl), and
    /// [`Stats::stale_serves`](crate::Stats::stale_serves) counts such uses.
    pub fn state_ttl(mut self, state_ttl: Duration) -> Self {
        self.limits.state_ttl = state_ttl;
        self
    }

    /// Refuses to use a key whose state is older than [`state_ttl`](Self::state_ttl), even while the key store is
    /// unreachable. Default: it is used.
    pub fn fail_closed_on_stale_state(mut self) -> Self {
        self.limits.fail_closed_on_stale_state = true;
        self
    }

    /// Sets how many contexts' keys are cached. Default: 10 000. The least recently used are dropped.
    pub fn max_keyrings(mut self, keyrings: u64) -> Self {
        self.limits.max_keyrings = keyrings;
        self
    }

    /// Sets how many calls to one KMS may be in flight at once. Default: 32.
    pub fn max_concurrent_kms_calls(mut self, calls: usize) -> Self {
        self.max_concurrent_kms_calls = calls;
        self
    }

    /// Sets how long one load of a key may take, from the first query to the KMS's answer, and one KMS call of a key
    /// manager. Default: 30 seconds.
    ///
    /// It is a backstop against a KMS or a key store that hangs. Give each a shorter time-out of its own.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.limits.load_timeout = timeout;
        self
    }

    /// Sets a census to ask for rows and open transactions before a version of a key is destroyed. Default: none.
    ///
    /// See [`KeyManager::destroy`](crate::keys::KeyManager::destroy).
    pub fn census(mut self, census: impl KeyCensus) -> Self {
        self.census = Some(Arc::new(census));
        self
    }

    /// Sets this process's name for people, in at most 200 bytes. Default: the program's name and the process's number,
    /// such as `billing-4711`.
    ///
    /// If the key store has a registry of processes, the `Crypto` registers under this name and sends a heartbeat every
    /// ten seconds, and at least twice in each [`state_ttl`](Self::state_ttl). Other processes can so wait until every
    /// process has followed a change: [`KeyManager::await_processes`](crate::keys::KeyManager::await_processes).
    pub fn process_name(mut self, name: impl Into<String>) -> Self {
        self.process_name = Some(name.into());
        self
    }

    /// Builds without asking the key store or a KMS. Default: [`build`](Self::build) asks both, and fails if they
    /// cannot serve as configured.
    ///
    /// For processes that must start before their database does. The first call that needs it then reports a fault.
    pub fn connect_lazily(mut self) -> Self {
        self.connect_lazily = true;
        self
    }

    /// Sets whether [`build`](Self::build) fails if the KMS of a KEK that wraps new keys does not answer. Default: `false`.
    ///
    /// For services that an orchestrator starts, which keeps the old processes until the new ones are up.
    /// [`connect_lazily`](Self::connect_lazily) asks no KMS and overrides this.
    pub fn require_kms(mut self, required: bool) -> Self {
        self.require_kms = required;
        self
    }

    /// Uses another clock, in tests. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds the `Crypto` and starts its background work, after checking that the key store and the KMSs can serve.
    ///
    /// - *The key store* must answer within [`load_timeout`](Self::load_timeout), and have its tables.
    /// - *Each KEK that the rule names* is described once by its KMS, all concurrently and within 5 seconds. The KEKs
    ///   of a [`kek_rule`](Self::kek_rule) are not known in advance. The process needs the permission to describe KEKs.
    /// - *A KMS that does not answer* is not an error unless [`require_kms`](Self::require_kms) is set, because a process
    ///   that restarts in an outage must start: it logs an event at level warn, and calls fail until the KMS answers. The same holds for a KEK of
    ///   [`also_unwrap`](Self::also_unwrap) that the KMS refuses.
    /// - *The keys and the rule* must match: if the key store has keys, and none of them is wrapped by a KEK of the
    ///   rule, this is another KEK file or another database.
    ///
    /// [`connect_lazily`](Self::connect_lazily) leaves all of this to the first calls.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] and [`Error::UnknownKms`] for settings that cannot work, and for a key store whose keys all
    /// belong to other KEKs; [`Error::Store`] with [`StoreError::NotMigrated`](crate::store::StoreError::NotMigrated)
    /// if there are no tables, with [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) or
    /// [`StoreError::Database`](crate::store::StoreError::Database) if the database cannot be used; [`Error::Kms`] if a
    /// KMS refuses: access is denied, the KEK does not exist, is disabled or is wrongly configured, or if a KMS does not
    /// answer and [`require_kms`](Self::require_kms) is set;
    /// [`Error::NoRuntime`] outside a tokio runtime.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn build(self) -> Result<Crypto, Error> {
        let (suite, accept_uncommitted) = (self.suite, self.accept_uncommitted);
        if suite == Suite::Xaes256Gcm && !accept_uncommitted {
            return Err(config(
                "ciphertexts of suite 2 would be refused on decryption; add `accept_uncommitted()`",
            ));
        }
        let limits = self.limits.clone();
        if limits.ttl.is_zero() || limits.state_ttl.is_zero() || limits.load_timeout.is_zero() {
            return Err(config(
                "`ttl`, `state_ttl` and `load_timeout` must be longer than nothing",
            ));
        }
        let ahead = limits.refresh_ahead;
        if ahead != 0.0 && !(0.01..1.0).contains(&ahead) {
            return Err(config(
                "`refresh_ahead` is a part of `ttl`: from 0.01 up to less than 1, or 0, which switches it off",
            ));
        }
        if limits.max_keyrings == 0 {
            return Err(config("`max_keyrings` must be at least 1"));
        }
        #[cfg(feature = "password")]
        let passwords = Arc::new(crate::password::Workers::new(&self.passwords));
        let process_name = self.process_name.clone();
        let unfit =
            |name: &String| name.is_empty() || name.len() > MAX_NAME_LEN || name.contains(char::is_control);
        if process_name.as_ref().is_some_and(unfit) {
            return Err(config(
                "`process_name` has 1 to 200 bytes and no control characters",
            ));
        }
        let (connect_lazily, require_kms) = (self.connect_lazily, self.require_kms);
        let Parts {
            keks,
            store,
            clock,
            census,
        } = self.into_parts()?;
        if Handle::try_current().is_err() {
            return Err(Error::NoRuntime);
        }
        if !connect_lazily {
            check::check(&keks, &*store, &*clock, limits.load_timeout, require_kms).await?;
        }
        let cache = CacheHandle::new(Cache::new(keks, store, clock, limits, process_name));
        cache.start()?;
        Ok(Crypto {
            core: Core {
                cache,
                suite,
                accept_uncommitted,
            },
            census,
            #[cfg(feature = "password")]
            passwords,
        })
    }

    /// Checks the parts that a key manager also needs: the KMSs under their rule, the store and the clock.
    pub(crate) fn into_parts(self) -> Result<Parts, Error> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        if self.max_concurrent_kms_calls == 0 {
            return Err(config("`max_concurrent_kms_calls` must be at least 1"));
        }
        let keks = Keks::new(
            self.kms,
            self.rule,
            Arc::clone(&self.clock),
            self.max_concurrent_kms_calls,
            self.limits.load_timeout,
        )?;
        Ok(Parts {
            keks: Arc::new(keks),
            store: self.store,
            clock: self.clock,
            census: self.census,
        })
    }

    fn parse<T>(&mut self, name: impl TryInto<T, Error: Into<NameError>>) -> Option<T> {
        let parsed = name.try_into().map_err(|error| Error::Config {
            what: error.into().to_string(),
        });
        parsed.map_err(|error| self.refused.get_or_insert(error)).ok()
    }
}

/// The common parts of a `Crypto` and a key manager.
pub(crate) struct Parts {
    pub(crate) keks: Arc<Keks>,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) census: Option<Arc<dyn KeyCensus>>,
}

fn config(what: &str) -> Error {
    Error::Config {
        what: what.to_owned(),
    }
}

impl fmt::Debug for CryptoBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptoBuilder")
            .field("kms", &self.kms)
            .field("store", &self.store)
            .field("rule", &self.rule)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
