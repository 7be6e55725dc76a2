//! An environment for a service's own tests: processes, an in-memory KMS and key store, and the clock that drives them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use encx::keys::KeyManager;
use encx::{Crypto, CryptoBuilder, Error};
use encx_core::clock::Clock;
use encx_core::key::KeyState;
use encx_core::store::NewKey;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{ManualClock, MemoryKeyStore, MemoryKms};

/// How many turns without activity mean that background work is done.
const QUIET_TURNS: usize = 32;

/// More turns than this mean an endless loop. The longest background work takes a few thousand.
const MAX_TURNS: usize = 1_000_000;

/// A [`Crypto`] on an in-memory KMS and key store, with a clock that stands still until the test moves it.
///
/// The code under test gets [`crypto`](Self::crypto) and nothing else. The test can make the KMS fail, slow or throttled
/// ([`kms`](Self::kms)), do the same to the key store ([`store`](Self::store)), move time ([`clock`](Self::clock)), count
/// KMS calls ([`assert_kms_calls`](Self::assert_kms_calls)), and start further processes on the same keys
/// ([`process`](Self::process)).
///
/// Its key store pushes no hints. A process sees another's changes at the latest after
/// [`state_ttl`](CryptoBuilder::state_ttl), a minute by default, and seldom sooner. A passing test therefore does not
/// rely on hints, which only some databases push.
///
/// A test as a service developer would write it; `docs/testing.md` has more:
///
/// ```
/// use encx_testkit::Harness;
/// use encx::{Ciphertext, Crypto, EncryptionContext, Error, Field};
/// use encx::kms::KmsErrorKind;
/// use std::time::Duration;
///
/// /// The code under test: a part of the service.
/// struct Patients(Crypto);
///
/// const DIAGNOSIS: Field = Field::new("patients", "diagnosis");
///
/// impl Patients {
///     fn context(&self, tenant: &str) -> Result<EncryptionContext, Error> {
///         Ok(EncryptionContext::builder().pair("tenantId", tenant).build()?)
///     }
///     async fn seal(&self, tenant: &str, id: i64, diagnosis: &str) -> Result<Ciphertext, Error> {
///         self.0.encrypt(&self.context(tenant)?, diagnosis, DIAGNOSIS.row(id)).await
///     }
///     async fn open(&self, tenant: &str, id: i64, sealed: &Ciphertext) -> Result<String, Error> {
///         let opened = self.0.decrypt(&self.context(tenant)?, sealed, DIAGNOSIS.row(id)).await?;
///         opened.into_string()
///     }
/// }
///
/// // In a test: `#[tokio::test]`.
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let harness = Harness::new().await;
/// let patients = Patients(harness.crypto().clone());
/// let sealed = patients.seal("acme", 1, "measles").await?;
///
/// // Another process has to ask the KMS, but only once.
/// let elsewhere = Patients(harness.process().await);
/// harness.kms().reset_calls();
/// elsewhere.open("acme", 1, &sealed).await?;
/// elsewhere.open("acme", 1, &sealed).await?;
/// harness.assert_kms_calls(1);
///
/// // An hour later the KMS is down, and the cached key has expired.
/// harness.kms().fail_until_cleared(KmsErrorKind::Unavailable);
/// harness.clock().advance(Duration::from_secs(3600)).await;
/// let error = elsewhere.open("acme", 1, &sealed).await.unwrap_err();
/// assert!(error.is_retryable());
/// # Ok(())
/// # }
/// ```
pub struct Harness {
    clock: HarnessClock,
    crypto: Crypto,
    settings: Arc<Settings>,
}

type Settings = dyn Fn(CryptoBuilder) -> CryptoBuilder + Send + Sync;

impl Harness {
    /// Starts a process with the default settings, on an empty key store.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// Starts a process with the test's own settings, such as the service's `ttl`. Each further
    /// [`process`](Self::process) has them too. The clock is always the harness's.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use encx_testkit::Harness;
    /// use std::time::Duration;
    ///
    /// let outage = Duration::from_secs(4 * 3600);
    /// let harness = Harness::with(move |settings| settings.stale_if_unavailable(outage)).await;
    /// # assert_eq!(harness.crypto().stats().keys, 0);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, and with settings that [`CryptoBuilder::build`] refuses.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn with(settings: impl Fn(CryptoBuilder) -> CryptoBuilder + Send + Sync + 'static) -> Self {
        let manual = ManualClock::new();
        let clock = HarnessClock {
            kms: MemoryKms::new().with_clock(manual.clone()),
            store: MemoryKeyStore::with_clock(manual.clone()).without_hints(),
            manual,
        };
        let settings: Arc<Settings> = Arc::new(settings);
        let crypto = start(&clock, &*settings).await;
        Self {
            clock,
            crypto,
            settings,
        }
    }

    /// Returns the process under test.
    #[must_use]
    pub fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    /// Starts another process with the same KMS, key store, clock and settings, and an empty cache.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn process(&self) -> Crypto {
        start(&self.clock, &*self.settings).await
    }

    /// Returns the KMS, to count its calls and to make it fail, slow or throttled.
    #[must_use]
    pub fn kms(&self) -> &MemoryKms {
        &self.clock.kms
    }

    /// Returns the key store, to make it fail and to look at its rows.
    ///
    /// Until the [`clock`](Self::clock) moves, only requests call it. When it moves, polls for changes call it too and
    /// consume the errors of [`MemoryKeyStore::fail_next`].
    #[must_use]
    pub fn store(&self) -> &MemoryKeyStore {
        &self.clock.store
    }

    /// Returns the clock of all processes, of the KMS and of the key store.
    #[must_use]
    pub fn clock(&self) -> &HarnessClock {
        &self.clock
    }

    /// Asserts the number of KMS calls by all processes, since the beginning or since [`MemoryKms::reset_calls`].
    ///
    /// # Panics
    ///
    /// If there were more or fewer. The message lists the calls.
    #[track_caller]
    pub fn assert_kms_calls(&self, expected: u64) {
        self.kms().assert_calls(expected);
    }

    /// Makes another process add a key just before the next one is added in the same scope, so that the next one
    /// loses the race. This happens in production when two processes see a new tenant at once. The other
    /// process's KMS calls count too.
    ///
    /// # Panics
    ///
    /// With settings that [`CryptoBuilder::build`] refuses.
    pub fn lose_next_race(&self) {
        let rival = (self.settings)(self.clock.builder());
        let rival = rival.build_key_manager().expect("settings that can work");
        self.store()
            .before_next_insert(move |new| async move { win(rival, new).await });
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("clock", &self.clock)
            .field("crypto", &self.crypto)
            .finish_non_exhaustive()
    }
}

/// Builds a process and waits for its first poll, so that none is in flight when the test continues.
async fn start(clock: &HarnessClock, settings: &Settings) -> Crypto {
    let polls = clock.store.polls();
    let crypto = settings(clock.builder())
        .clock(clock.manual.clone())
        // The KMS and the store exist, and a test wants to count only its own calls.
        .connect_lazily()
        .build()
        .await;
    let crypto = crypto.expect("settings that can work, in a tokio runtime");
    while clock.store.polls() == polls {
        tokio::task::yield_now().await;
    }
    clock.settle().await;
    crypto
}

/// Adds the key that the process under test was about to add.
async fn win(rival: KeyManager, new: NewKey) {
    let rival = rival
        .for_usage(new.usage)
        .because("a test lets its process lose a race");
    let won = async {
        let versions = rival.list(&new.context).await?;
        let mut states = versions.iter().map(|version| version.state);
        match versions.is_empty() {
            true => rival.create(&new.context).await,
            false if states.all(|state| state == KeyState::Destroyed) => rival.revive(&new.context).await,
            false => rival.rotate(&new.context).await,
        }
    };
    let won: Result<_, Error> = won.await;
    won.expect("the rival that the test ordered wins its race");
}

/// The clock of a [`Harness`]. It stands still until [`advance`](Self::advance) moves it, and begins at
/// 2026-01-01T00:00:00Z.
#[derive(Clone)]
pub struct HarnessClock {
    manual: ManualClock,
    kms: MemoryKms,
    store: MemoryKeyStore,
}

impl HarnessClock {
    /// Moves time as a running process experiences it: every event that becomes due happens in order, at its moment,
    /// and is done when this returns. Polls follow the key store, keys in use are unwrapped again, expired keys are
    /// dropped, and calls of a slow KMS are answered.
    ///
    /// An hour takes some milliseconds, a year about a minute. A call that a test [holds](MemoryKms::hold) stays held.
    ///
    /// # Panics
    ///
    /// Unless it runs in a single-threaded runtime, such as that of `#[tokio::test]`: only there can it tell that
    /// background work is done.
    ///
    /// # Cancellation
    ///
    /// Leaves the clock somewhere in between.
    pub async fn advance(&self, time: Duration) {
        let flavor = Handle::current().runtime_flavor();
        assert!(
            flavor == RuntimeFlavor::CurrentThread,
            "`advance` needs a runtime of one thread, as `#[tokio::test]` has, to tell that background work is done"
        );
        let until = self.elapsed().saturating_add(time);
        loop {
            // Earlier work first, so that its sleeps are registered.
            self.settle().await;
            let now = self.elapsed();
            if now >= until {
                return;
            }
            let next = self.manual.next_wake().unwrap_or(until).min(until);
            self.manual.advance(next.saturating_sub(now));
        }
    }

    fn builder(&self) -> CryptoBuilder {
        Crypto::builder(self.kms.clone(), self.store.clone()).clock(self.manual.clone())
    }

    /// Runs every task until it waits for an event that only the test can cause.
    async fn settle(&self) {
        let seen = || {
            (
                self.manual.sleeps_ever(),
                self.kms.calls_ever(),
                self.store.calls_ever(),
            )
        };
        let (mut before, mut quiet) = (seen(), 0);
        for _ in 0..MAX_TURNS {
            tokio::task::yield_now().await;
            let now = seen();
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
            if quiet == QUIET_TURNS {
                return;
            }
        }
        panic!("background work does not end: does something retry without a pause?");
    }
}

impl Clock for HarnessClock {
    fn elapsed(&self) -> Duration {
        self.manual.elapsed()
    }

    fn elapsed_coarsely(&self) -> Duration {
        self.manual.elapsed_coarsely()
    }

    fn unix_millis(&self) -> u64 {
        self.manual.unix_millis()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.manual.sleep(duration)
    }
}

impl fmt::Debug for HarnessClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HarnessClock").field(&self.elapsed()).finish()
    }
}
