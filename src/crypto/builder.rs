//! What a `Crypto` is built from, and the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use encx_core::ciphertext::Suite;
use encx_core::context::EncryptionContext;
use encx_core::key::{KmsName, NameError};
use encx_core::kms::KeyManagementService;
use encx_core::memory;
use encx_core::store::{KeyCensus, KeyStore};
use encx_suite::NonceSource;
use tokio::runtime::Handle;

use crate::cache::{Cache, CacheHandle, Limits, MAX_NAME_LEN};
use crate::clock::{Clock, SystemClock, forks_are_noticed};
use crate::crypto::{Crypto, check};
use crate::error::Error;
use crate::kek::{KekChoice, KekRef, KekRule, Keks};
use crate::keyring::Core;

/// Builds a [`Crypto`]. Every setting has a default that is safe.
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
    /// The first name that could not be parsed; `build` reports it.
    refused: Option<Error>,
}

impl Crypto {
    /// Begins to build a `Crypto` on a KMS and a key store.
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
                nonces: NonceSource::Thread,
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

    /// Registers a further KMS under a name, such as `eu`.
    ///
    /// The name is kept with every wrap that the KMS makes; it must mean the same KMS for as long as the data
    /// lives.
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

    /// Names the KEK for contexts that no other rule covers. Default: the KMS's own, such as from
    /// `AWS_KMS_KEY_ID`.
    ///
    /// A KEK is named by an id, an ARN or an alias of the KMS that [`Crypto::builder`] was given, or by a pair of
    /// a registered KMS's name and the KEK's name there.
    pub fn kek(mut self, kek: impl TryInto<KekRef, Error: Into<NameError>>) -> Self {
        if let Some(kek) = self.parse::<KekRef>(kek) {
            self.rule.default = Some(KekChoice::new(kek));
        }
        self
    }

    /// Names all KEKs for contexts that no other rule covers: several that wrap, and those that may unwrap besides.
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

    /// Names the KEK for contexts that have this pair. Of several that match, the first counts.
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

    /// Names all KEKs for contexts that have this pair: several that wrap, and those that may unwrap besides. Of several
    /// pairs that match, those of [`kek_for`](Self::kek_for) too, the first counts.
    pub fn kek_choice_for(
        mut self,
        key: impl Into<String>,
        value: impl fmt::Display,
        choice: KekChoice,
    ) -> Self {
        self.rule.by_pair.push((key.into(), value.to_string(), choice));
        self
    }

    /// Chooses KEKs by a function of the context, before every other rule. Where it gives `None` the others decide.
    ///
    /// It is asked whenever a key is made or unwrapped, and must always give the same answer for a context.
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

    /// Wraps with this KEK alone, in place of those that the KEK rule chooses: for a tool that moves keys before services
    /// are told to.
    ///
    /// The rule must allow it for each context, under this very name ([`also_unwrap`](Self::also_unwrap) will do); elsewhere calls
    /// are [`Error::KekNotInRule`].
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

    /// Decrypts ciphertexts without a key commitment too. Default: they are refused.
    ///
    /// <div class="warning">
    ///
    /// Whoever can both write ciphertexts and plant keys can then make one that reads differently to two readers,
    /// whatever suite you write yourself.
    ///
    /// </div>
    pub fn accept_uncommitted(mut self) -> Self {
        self.accept_uncommitted = true;
        self
    }

    /// Decrypts with compromised keys too, so that their data can be read and encrypted anew. Default: refused.
    ///
    /// <div class="warning">
    ///
    /// Whoever holds a compromised key can forge what it decrypts.
    ///
    /// </div>
    pub fn accept_compromised(mut self) -> Self {
        self.limits.accept_compromised = true;
        self
    }

    /// Draws every byte of every nonce from the operating system. Default: the second half of a nonce comes from a generator of
    /// the thread, which the operating system seeds, and which notices forks.
    ///
    /// For a process that may be copied while it runs without noticing, such as a virtual machine that is restored from a
    /// snapshot, if [`reseed`](crate::reseed) cannot be called in time. A call of the operating system takes longer than
    /// encrypting a field.
    pub fn os_nonces(mut self) -> Self {
        self.limits.nonces = NonceSource::OperatingSystem;
        self
    }

    /// Sets whether a context's first key is made by its first encryption. Default: true.
    ///
    /// Switch it off where contexts come from outside, so that nobody can have keys made at will.
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

    /// Sets in which last part of [`ttl`](Self::ttl) a key is refreshed: unwrapped again in the background, so that no request
    /// waits for the KMS when its time is over. Default: 0.1, the last 10 %. From 0.01 up to less than 1; 0 switches it off.
    ///
    /// Only keys that were used since they were unwrapped are refreshed, each at a moment that is drawn for it, and at most
    /// half as many at once as [`max_concurrent_kms_calls`](Self::max_concurrent_kms_calls). A key that nobody uses
    /// costs no call and leaves memory at its `ttl`. While a key is refreshed the old one serves. If the KMS refuses, the key is
    /// dropped at once, before its `ttl` is over.
    pub fn refresh_ahead(mut self, part: f64) -> Self {
        self.limits.refresh_ahead = part;
        self
    }

    /// Sets how long past [`ttl`](Self::ttl) a key in memory may serve while the KMS is unavailable, to encrypt and to
    /// decrypt. Default: not at all.
    ///
    /// Unavailable is a KMS that does not answer, answers with a fault of its own, or throttles. A refusal is an answer:
    /// where the permission was withdrawn, the KEK disabled or the wrapped key changed, the key is dropped at once. A key
    /// serves past its time only after the KMS was asked about it, in vain; it is asked again in the background until it answers.
    /// Such uses are counted in [`Stats::stale_key_serves`](crate::Stats::stale_key_serves). Keys that are not in
    /// memory cannot be served.
    ///
    /// <div class="warning">
    ///
    /// Whoever can cut this process off from its KMS can so delay the effect of a withdrawn permission, for this long.
    ///
    /// </div>
    pub fn stale_if_unavailable(self, limit: Duration) -> Self {
        self.stale_encrypt_if_unavailable(limit)
            .stale_decrypt_if_unavailable(limit)
    }

    /// Sets [`stale_if_unavailable`](Self::stale_if_unavailable) for decryption alone: to go on reading costs less
    /// secrecy than to go on writing under a key that the KMS may have withdrawn.
    pub fn stale_decrypt_if_unavailable(mut self, limit: Duration) -> Self {
        self.limits.stale_decrypt = limit;
        self
    }

    /// Sets [`stale_if_unavailable`](Self::stale_if_unavailable) for encryption alone.
    pub fn stale_encrypt_if_unavailable(mut self, limit: Duration) -> Self {
        self.limits.stale_encrypt = limit;
        self
    }

    /// Sets how old a key's known state may be. Default: 60 seconds.
    ///
    /// A change by another process is seen within this time, at the price of two small queries per process in it. So is the
    /// loss of a key that is in memory, as after a restored backup, at the price of one query for a thousand such keys.
    /// While the key store is unreachable, states that are older are used all the same, until
    /// [`ttl`](Self::ttl), and counted in [`Stats::stale_serves`](crate::Stats::stale_serves).
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

    /// Sets how many contexts' keys are kept in memory. Default: 10 000. The least recently used are dropped.
    pub fn max_keyrings(mut self, keyrings: u64) -> Self {
        self.limits.max_keyrings = keyrings;
        self
    }

    /// Sets how many calls to one KMS may be under way at once. Default: 32.
    pub fn max_concurrent_kms_calls(mut self, calls: usize) -> Self {
        self.max_concurrent_kms_calls = calls;
        self
    }

    /// Sets how long one load of a key may take, from the first query to the KMS's answer, and one KMS call of a
    /// key manager. Default: 30 seconds.
    ///
    /// It is a backstop against a KMS or a key store that hangs; each should have a shorter time-out of its own.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.limits.load_timeout = timeout;
        self
    }

    /// Has a census asked before a version of a key is destroyed, for rows and for open transactions. Default: none is asked.
    ///
    /// See [`KeyManager::destroy`](crate::keys::KeyManager::destroy).
    pub fn census(mut self, census: impl KeyCensus) -> Self {
        self.census = Some(Arc::new(census));
        self
    }

    /// Sets what people call this process, in at most 200 bytes. Default: the program's name and the process's number, such as
    /// `billing-4711`.
    ///
    /// Where the key store has a registry of processes, the `Crypto` stands there under this name and says every ten
    /// seconds, at least twice in each [`state_ttl`](Self::state_ttl), that it is there. So others can wait until every
    /// process has followed a change: [`KeyManager::await_processes`](crate::keys::KeyManager::await_processes).
    pub fn process_name(mut self, name: impl Into<String>) -> Self {
        self.process_name = Some(name.into());
        self
    }

    /// Builds without asking the key store or a KMS. Default: [`build`](Self::build) asks both, and fails if they cannot
    /// serve as configured.
    ///
    /// For processes that must come up before their database does. What is wrong is then told by the first call that needs
    /// it.
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

    /// Takes the time from another clock, in tests. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds the `Crypto` and starts its background work, after it has asked whether the key store and the KMSs can serve.
    ///
    /// - *The key store* must answer within [`load_timeout`](Self::load_timeout), and have its tables.
    /// - *Each KEK that the rule names* is described once by its KMS, at the same time and within 5 seconds. What a
    ///   [`kek_rule`](Self::kek_rule) gives is not known until it is asked. The process needs the right to describe
    ///   KEKs.
    /// - *A KMS that does not answer* is no error unless [`require_kms`](Self::require_kms) says so, because a process that is
    ///   restarted in an outage must come up: an event at level warn says so, and calls fail until it answers. So does an event
    ///   for a KEK of
    ///   [`also_unwrap`](Self::also_unwrap) that the KMS refuses.
    /// - *The keys and the rule* must belong together: if the key store has keys, and none of them is wrapped by a KEK of the
    ///   rule, this is another KEK file or another database.
    ///
    /// [`connect_lazily`](Self::connect_lazily) leaves all of that to the first calls.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] and [`Error::UnknownKms`] for settings that cannot work, and for a key store whose keys are all of other
    /// KEKs; [`Error::Store`] with [`StoreError::NotMigrated`](crate::store::StoreError::NotMigrated) if there are no tables, with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) or [`StoreError::Database`](crate::store::StoreError::Database)
    /// if the database cannot be used; [`Error::Kms`] if a KMS refuses: access is denied, the KEK does not exist, is disabled
    /// or is wrongly configured, or a KMS does not answer and [`require_kms`](Self::require_kms) is set; [`Error::NoRuntime`] outside a tokio runtime.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn build(self) -> Result<Crypto, Error> {
        let (suite, accept_uncommitted) = (self.suite, self.accept_uncommitted);
        if suite == Suite::Xaes256Gcm && !accept_uncommitted {
            return Err(config(
                "what suite 2 encrypts is refused on decryption; add `accept_uncommitted()`",
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
        if memory::fork_count().is_some() {
            forks_are_noticed();
            // Has whatever keeps the time start now, and not in the first hot call.
            let _ = clock.elapsed_coarsely();
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

    /// Checks what a key manager needs too: the KMSs under their rule, the store and the clock.
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

/// What a `Crypto` and a key manager have in common.
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
