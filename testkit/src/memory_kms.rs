//! An in-memory KMS with injected faults, counted calls and a gate that holds calls in flight.

mod answers;
mod calls;
mod faults;
mod material;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use encx_core::clock::Clock;
use encx_core::key::{DataKey, KekId, WrappedKey};
use encx_core::kms::{
    GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
    KmsOperation,
};
use tokio::sync::watch;

pub use self::calls::{KmsCall, KmsCalls};

use self::calls::CallLog;
use self::faults::{Faults, Throttle};
use self::material::Material;
use crate::clock::MachineClock;

const PROVIDER: &str = "memory";

/// Wraps data keys under KEKs that exist only in this process.
///
/// Clones share everything. A new one has the KEK [`MemoryKms::DEFAULT_KEK`]. Its wraps are opaque bytes that
/// authenticate the KEK, its material and every pair of the context, like those of a real KMS.
///
/// A test injects faults with [`fail_next`](Self::fail_next), [`fail_until_cleared`](Self::fail_until_cleared),
/// [`set_kek_fault`](Self::set_kek_fault) and [`throttle`](Self::throttle). It counts calls with [`calls`](Self::calls)
/// and lists them with [`last_calls`](Self::last_calls). It keeps calls in flight with [`hold`](Self::hold),
/// [`until_in_flight`](Self::until_in_flight) and [`release`](Self::release), so it never needs to sleep.
///
/// Setup methods panic if they name a KEK that does not exist, because such a test is wrong.
///
/// ```
/// use encx_testkit::MemoryKms;
/// use encx_core::context::EncryptionContext;
/// use encx_core::key::{DataKeyId, KeyUsage};
/// use encx_core::kms::{KeyManagementService, KmsContext};
///
/// # encx_testkit::block_on(async {
/// let kms = MemoryKms::new().with_kek("memory/eu").with_alias("alias/app", "memory/eu");
/// let context = EncryptionContext::builder().pair("tenantId", 1).build()?;
/// let context = KmsContext::new(&context, KeyUsage::Data, DataKeyId::generate(1, None)?);
/// let made = kms.generate_data_key(&"alias/app".parse()?, &context).await?;
/// assert_eq!(made.wrapped.kek.as_str(), "memory/eu");
/// assert_eq!(kms.calls().generate, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct MemoryKms {
    default_kek: Option<KekId>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    held: watch::Sender<bool>,
    in_flight: watch::Sender<usize>,
}

struct State {
    keks: BTreeMap<KekId, Kek>,
    aliases: BTreeMap<KekId, KekId>,
    clock: Arc<dyn Clock>,
    latency: Duration,
    faults: Faults,
    calls: CallLog,
    max_in_flight: usize,
}

struct Kek {
    state: KekState,
    fault: Option<KmsErrorKind>,
    /// Never empty. The last one wraps; all of them unwrap.
    materials: Vec<Material>,
}

impl MemoryKms {
    /// The KEK of a new instance, and its [`default_kek`](KeyManagementService::default_kek).
    pub const DEFAULT_KEK: &'static str = "memory/default";

    /// Creates a KMS with one KEK, [`MemoryKms::DEFAULT_KEK`].
    #[must_use]
    pub fn new() -> Self {
        let kms = Self {
            default_kek: Some(kek_id(Self::DEFAULT_KEK)),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    keks: BTreeMap::new(),
                    aliases: BTreeMap::new(),
                    clock: Arc::new(MachineClock),
                    latency: Duration::ZERO,
                    faults: Faults::default(),
                    calls: CallLog::default(),
                    max_in_flight: 0,
                }),
                held: watch::Sender::new(false),
                in_flight: watch::Sender::new(0),
            }),
        };
        kms.with_kek(Self::DEFAULT_KEK)
    }

    /// Makes [`default_kek`](KeyManagementService::default_kek) return `None`. The KEK itself stays.
    #[must_use]
    pub fn without_default_kek(mut self) -> Self {
        self.default_kek = None;
        self
    }

    /// Adds a KEK; does not change an existing one.
    #[must_use]
    pub fn with_kek(self, kek: &str) -> Self {
        self.create_kek(kek);
        self
    }

    /// Adds an alias of a KEK, or points an existing alias to it.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    #[must_use]
    pub fn with_alias(self, alias: &str, kek: &str) -> Self {
        self.set_alias(alias, kek);
        self
    }

    /// Uses another clock, such as a [`ManualClock`](crate::ManualClock). Default: the machine's.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        let before = std::mem::replace(&mut self.state().clock, Arc::new(clock));
        // Dropped outside the lock, because the clock is the test's code.
        drop(before);
        self
    }

    /// Makes every call take `latency` by a clock, such as a [`ManualClock`](crate::ManualClock).
    #[must_use]
    pub fn with_latency(self, clock: impl Clock, latency: Duration) -> Self {
        let kms = self.with_clock(clock);
        kms.set_latency(latency);
        kms
    }

    /// Adds a KEK; does not change an existing one.
    pub fn create_kek(&self, kek: &str) {
        self.state().keks.entry(kek_id(kek)).or_insert_with(|| Kek {
            state: KekState::Enabled,
            fault: None,
            materials: vec![Material::generate()],
        });
    }

    /// Points an alias to a KEK.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn set_alias(&self, alias: &str, kek: &str) {
        let mut state = self.state();
        let id = kek_id(kek);
        assert!(state.keks.contains_key(&id), "there is no KEK `{kek}`");
        state.aliases.insert(kek_id(alias), id);
    }

    /// Disables a KEK: calls that need it fail with [`KmsErrorKind::KeyState`].
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn disable_kek(&self, kek: &str) {
        self.with(kek, |kek| kek.state = KekState::Disabled);
    }

    /// Enables a KEK again.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn enable_kek(&self, kek: &str) {
        self.with(kek, |kek| kek.state = KekState::Enabled);
    }

    /// Deletes a KEK at once: calls that need it fail with [`KmsErrorKind::NotFound`].
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn delete_kek(&self, kek: &str) {
        let removed = self.state().keks.remove(&kek_id(kek));
        assert!(removed.is_some(), "the KEK exists");
    }

    /// Gives a KEK new material. Wraps by the old material still unwrap.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn rotate_kek(&self, kek: &str) {
        self.with(kek, |kek| kek.materials.push(Material::generate()));
    }

    /// Makes every call that needs this KEK fail, such as with [`KmsErrorKind::AccessDenied`], until called with `None`.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn set_kek_fault(&self, kek: &str, fault: Option<KmsErrorKind>) {
        self.with(kek, |kek| kek.fault = fault);
    }

    /// Makes the next `calls` calls fail. A second call adds to the first.
    pub fn fail_next(&self, calls: usize, kind: KmsErrorKind) {
        self.state().faults.next.extend(std::iter::repeat_n(kind, calls));
    }

    /// Makes every call fail, until [`clear_faults`](Self::clear_faults).
    pub fn fail_until_cleared(&self, kind: KmsErrorKind) {
        self.state().faults.lasting = Some(kind);
    }

    /// Makes every call fail with [`KmsErrorKind::Unavailable`] until called with `false`.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state().faults.lasting = unavailable.then_some(KmsErrorKind::Unavailable);
    }

    /// Lets at most `calls` calls through in any `period` of its clock. Others fail with [`KmsErrorKind::Throttled`],
    /// until [`clear_faults`](Self::clear_faults).
    pub fn throttle(&self, calls: usize, period: Duration) {
        self.state().faults.throttle = Some(Throttle::new(calls, period));
    }

    /// Removes every fault and the throttle, but not the faults of single KEKs.
    pub fn clear_faults(&self) {
        self.state().faults = Faults::default();
    }

    /// Makes every call take `latency` by its clock. Default: none.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Returns how often each method was called. A call counts when it is first polled.
    #[must_use]
    pub fn calls(&self) -> KmsCalls {
        self.state().calls.counts()
    }

    /// Returns the last 100 calls, or those since [`reset_calls`](Self::reset_calls), in the order in which they began.
    #[must_use]
    pub fn last_calls(&self) -> Vec<KmsCall> {
        self.state().calls.last()
    }

    /// Asserts the number of calls of any method, since the KMS was created or since [`reset_calls`](Self::reset_calls).
    ///
    /// `CryptoBuilder::build` of `encx` describes each KEK that the rule names. Reset the calls after it, or build with
    /// `connect_lazily()`, as the `Harness` does.
    ///
    /// # Panics
    ///
    /// If there were more or fewer. The message lists the calls.
    #[track_caller]
    pub fn assert_calls(&self, expected: u64) {
        let (counts, last) = {
            let state = self.state();
            (state.calls.counts(), state.calls.last())
        };
        let found = counts.total();
        if found == expected {
            return;
        }
        let mut list = match last.len() as u64 {
            0 => String::new(),
            listed if listed < found => format!(", of which these are the last {listed}:"),
            _ => ":".to_owned(),
        };
        for call in &last {
            list.push_str("\n  ");
            list.push_str(&call.to_string());
        }
        panic!("expected {expected} KMS calls and found {found}{list}");
    }

    /// Resets all counts to zero, and the high-water mark to the calls in flight now.
    pub fn reset_calls(&self) {
        let mut state = self.state();
        state.calls.reset();
        state.max_in_flight = self.in_flight();
    }

    /// Holds every call, including later ones, until [`release`](Self::release).
    ///
    /// A held call is already counted. Whether it fails is decided once it is released.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Releases all held calls.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Returns how many calls have begun and neither ended nor been cancelled.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.shared.in_flight.borrow()
    }

    /// Returns the greatest number of calls in flight at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.state().max_in_flight
    }

    /// Waits until exactly `n` calls are in flight. Held calls are in flight.
    ///
    /// # Cancellation
    ///
    /// The future may be dropped at any time.
    pub async fn until_in_flight(&self, n: usize) {
        let mut in_flight = self.shared.in_flight.subscribe();
        // `self` owns the sender, so the channel is open.
        let _ = in_flight.wait_for(|now| *now == n).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic in a test cannot leave the state half changed.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, kek: &str, change: impl FnOnce(&mut Kek)) {
        let mut state = self.state();
        change(state.keks.get_mut(&kek_id(kek)).expect("the KEK exists"));
    }

    /// Returns the number of calls so far, regardless of resets.
    #[cfg(feature = "harness")]
    pub(crate) fn calls_ever(&self) -> u64 {
        self.state().calls.ever()
    }

    /// Counts a call, holds it at the gate, and answers it or returns an injected fault.
    async fn call<T>(
        &self,
        (operation, kek): (KmsOperation, &KekId),
        context: Option<&KmsContext>,
        answer: impl FnOnce(&State) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        let _flight = InFlight::new(&self.shared);
        let number = {
            let mut state = self.state();
            state.max_in_flight = state.max_in_flight.max(self.in_flight());
            state.calls.begin(operation, kek, context)
        };
        let mut held = self.shared.held.subscribe();
        // `self` owns the sender, so the channel is open.
        let _ = held.wait_for(|held| !held).await;
        // The clock is the test's code and may call back here, so it is not called under the lock.
        let (clock, latency) = {
            let state = self.state();
            (Arc::clone(&state.clock), state.latency)
        };
        if !latency.is_zero() {
            clock.sleep(latency).await;
        }
        let now = clock.elapsed();
        let mut state = self.state();
        let answered = match state.faults.take(now) {
            Some(kind) => Err(KmsError::new(kind, PROVIDER, operation, kek).with_advice("a test ordered it")),
            None => answer(&state),
        };
        let outcome = answered.as_ref().map(|_| ()).map_err(KmsError::kind);
        state.calls.end(number, outcome);
        answered
    }
}

impl Default for MemoryKms {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKms")
            .field("default_kek", &self.default_kek)
            .field("keks", &self.state().keks.keys())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyManagementService for MemoryKms {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.default_kek.as_ref()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let operation = KmsOperation::GenerateDataKey;
        let answer = |state: &State| {
            let key = DataKey::generate().map_err(|error| {
                KmsError::new(KmsErrorKind::Unavailable, PROVIDER, operation, kek).with_source(error)
            })?;
            let wrapped = state.wrap(operation, kek, &key, context)?;
            Ok(GeneratedDataKey::new(key, wrapped))
        };
        self.call((operation, kek), Some(context), answer).await
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        let operation = KmsOperation::WrapKey;
        let answer = |state: &State| state.wrap(operation, kek, key, context);
        self.call((operation, kek), Some(context), answer).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        let operation = KmsOperation::UnwrapKey;
        let answer = |state: &State| state.unwrap(operation, wrapped, context);
        self.call((operation, &wrapped.kek), Some(context), answer).await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        let operation = KmsOperation::RewrapKey;
        let answer = |state: &State| {
            let key = state.unwrap(operation, wrapped, context)?;
            state.wrap(operation, to, &key, context)
        };
        self.call((operation, to), Some(context), answer).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        let operation = KmsOperation::DescribeKek;
        let answer = |state: &State| {
            let (id, found) = state.find(operation, kek)?;
            let mut description = KekDescription::new(id.clone(), found.state);
            description.current_material = found.materials.last().map(|material| material.id.to_string());
            Ok(description)
        };
        self.call((operation, kek), None, answer).await
    }
}

/// Counts a call as in flight until it ends or is cancelled.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.send_modify(|calls| *calls += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|calls| *calls -= 1);
    }
}

fn kek_id(name: &str) -> KekId {
    KekId::new(name).expect("a test names its KEKs properly")
}
