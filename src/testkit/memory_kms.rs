//! A KMS in memory, with faults to order, counted calls and a gate that holds them in flight.

mod material;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hmac::Mac as _;
use tokio::sync::watch;

use self::material::Material;
use crate::clock::Clock;
use crate::key::{DataKey, KekId, WrappedKey, fill_from_os};
use crate::kms::{
    GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
    KmsOperation,
};

const PROVIDER: &str = "memory";

/// Wraps data keys under KEKs that live in this process and die with it.
///
/// Clones share everything. A new one has the KEK [`MemoryKms::DEFAULT_KEK`]. Its wraps are opaque bytes that
/// authenticate the KEK, its material and every pair of the context, as those of a real KMS do.
///
/// A test orders faults with [`fail_next`](Self::fail_next), [`set_kek_fault`](Self::set_kek_fault) and
/// [`set_unavailable`](Self::set_unavailable); counts calls with [`calls`](Self::calls); and keeps calls in
/// flight with [`hold`](Self::hold), [`until_in_flight`](Self::until_in_flight) and
/// [`release`](Self::release), so that nothing needs to sleep.
///
/// Methods that set it up panic when they name a KEK that does not exist: such a test is wrong.
///
/// ```
/// use encx::testkit::MemoryKms;
/// use encx::{DataKeyId, EncryptionContext, KeyManagementService, KeyUsage, KmsContext};
///
/// # encx::testkit::block_on(async {
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

#[derive(Default)]
struct State {
    keks: BTreeMap<KekId, Kek>,
    aliases: BTreeMap<KekId, KekId>,
    faults: VecDeque<KmsErrorKind>,
    unavailable: bool,
    latency: Option<(Arc<dyn Clock>, Duration)>,
    calls: KmsCalls,
    max_in_flight: usize,
}

struct Kek {
    state: KekState,
    fault: Option<KmsErrorKind>,
    /// Never empty. The last one wraps; all of them unwrap.
    materials: Vec<Material>,
}

/// How often each method of a [`MemoryKms`] was called, whatever came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KmsCalls {
    /// Calls of `describe_kek`.
    pub describe: u64,
    /// Calls of `generate_data_key`.
    pub generate: u64,
    /// Calls of `rewrap_key`.
    pub rewrap: u64,
    /// Calls of `unwrap_key`.
    pub unwrap: u64,
    /// Calls of `wrap_key`.
    pub wrap: u64,
}

impl KmsCalls {
    /// Returns the number of calls of any method.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.describe + self.generate + self.rewrap + self.unwrap + self.wrap
    }
}

impl MemoryKms {
    /// The KEK that a new one has, and its [`default_kek`](KeyManagementService::default_kek).
    pub const DEFAULT_KEK: &'static str = "memory/default";

    /// Creates a KMS that has one KEK, [`MemoryKms::DEFAULT_KEK`].
    #[must_use]
    pub fn new() -> Self {
        let kms = Self {
            default_kek: Some(kek_id(Self::DEFAULT_KEK)),
            shared: Arc::new(Shared {
                state: Mutex::default(),
                held: watch::Sender::new(false),
                in_flight: watch::Sender::new(0),
            }),
        };
        kms.with_kek(Self::DEFAULT_KEK)
    }

    /// Answers `None` to [`default_kek`](KeyManagementService::default_kek). The KEK itself stays.
    #[must_use]
    pub fn without_default_kek(mut self) -> Self {
        self.default_kek = None;
        self
    }

    /// Adds a KEK; one that exists stays as it is.
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

    /// Makes every call take `latency` of a clock's time, such as a [`ManualClock`](crate::testkit::ManualClock)'s.
    #[must_use]
    pub fn with_latency(self, clock: impl Clock, latency: Duration) -> Self {
        self.state().latency = Some((Arc::new(clock), latency));
        self
    }

    /// Adds a KEK; one that exists stays as it is.
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

    /// Gives a KEK new material. What the old material wrapped still unwraps.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn rotate_kek(&self, kek: &str) {
        self.with(kek, |kek| kek.materials.push(Material::generate()));
    }

    /// Makes every call that needs this KEK fail, such as with [`KmsErrorKind::AccessDenied`], until `None` is set.
    ///
    /// # Panics
    ///
    /// If the KEK does not exist.
    pub fn set_kek_fault(&self, kek: &str, fault: Option<KmsErrorKind>) {
        self.with(kek, |kek| kek.fault = fault);
    }

    /// Makes the next call fail. Repeated, it makes that many calls fail, in this order.
    pub fn fail_next(&self, kind: KmsErrorKind) {
        self.fail_next_n(1, kind);
    }

    /// Makes the next `n` calls fail.
    pub fn fail_next_n(&self, n: usize, kind: KmsErrorKind) {
        self.state().faults.extend(std::iter::repeat_n(kind, n));
    }

    /// Makes every call fail with [`KmsErrorKind::Unavailable`] until `false` is set.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state().unavailable = unavailable;
    }

    /// Returns how often each method was called. A call counts from the moment that it is first polled.
    #[must_use]
    pub fn calls(&self) -> KmsCalls {
        self.state().calls
    }

    /// Sets all counts back to zero, and the high-water mark to what is in flight now.
    pub fn reset_calls(&self) {
        let mut state = self.state();
        state.calls = KmsCalls::default();
        state.max_in_flight = self.in_flight();
    }

    /// Holds every call, also those to come, until [`release`](Self::release).
    ///
    /// A held call has been counted; whether it fails is decided once it is released.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets all held calls go on.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Returns how many calls have begun and neither ended nor been cancelled.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.shared.in_flight.borrow()
    }

    /// Returns the most calls that were ever in flight at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.state().max_in_flight
    }

    /// Waits until exactly `n` calls are in flight: held, or none with 0.
    ///
    /// # Cancellation
    ///
    /// The future may be dropped at any time.
    pub async fn until_in_flight(&self, n: usize) {
        let mut in_flight = self.shared.in_flight.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        let _ = in_flight.wait_for(|now| *now == n).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a test that panicked inside left nothing half done.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, kek: &str, change: impl FnOnce(&mut Kek)) {
        let mut state = self.state();
        change(state.keks.get_mut(&kek_id(kek)).expect("the KEK exists"));
    }

    /// Counts a call, holds it at the gate, and fails it if a fault was ordered.
    async fn begin(&self, operation: KmsOperation, kek: &KekId) -> Result<InFlight, KmsError> {
        let flight = InFlight::new(&self.shared);
        {
            let mut state = self.state();
            state.max_in_flight = state.max_in_flight.max(self.in_flight());
            *match operation {
                KmsOperation::DescribeKek => &mut state.calls.describe,
                KmsOperation::GenerateDataKey => &mut state.calls.generate,
                KmsOperation::RewrapKey => &mut state.calls.rewrap,
                KmsOperation::UnwrapKey => &mut state.calls.unwrap,
                KmsOperation::WrapKey => &mut state.calls.wrap,
            } += 1;
        }
        let mut held = self.shared.held.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        let _ = held.wait_for(|held| !held).await;
        let sleep = self
            .state()
            .latency
            .as_ref()
            .map(|(clock, latency)| clock.sleep(*latency));
        if let Some(sleep) = sleep {
            sleep.await;
        }
        let mut state = self.state();
        let fault = match state.unavailable {
            true => Some(KmsErrorKind::Unavailable),
            false => state.faults.pop_front(),
        };
        match fault {
            Some(kind) => Err(KmsError::new(kind, PROVIDER, operation, kek).with_advice("a test ordered it")),
            None => Ok(flight),
        }
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
        let _flight = self.begin(operation, kek).await?;
        let key = DataKey::generate().map_err(|error| {
            KmsError::new(KmsErrorKind::Unavailable, PROVIDER, operation, kek).with_source(error)
        })?;
        let wrapped = self.state().wrap(operation, kek, &key, context)?;
        Ok(GeneratedDataKey::new(key, wrapped))
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        let _flight = self.begin(KmsOperation::WrapKey, kek).await?;
        self.state().wrap(KmsOperation::WrapKey, kek, key, context)
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        let _flight = self.begin(KmsOperation::UnwrapKey, &wrapped.kek).await?;
        self.state().unwrap(KmsOperation::UnwrapKey, wrapped, context)
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        let _flight = self.begin(KmsOperation::RewrapKey, to).await?;
        let state = self.state();
        let key = state.unwrap(KmsOperation::RewrapKey, wrapped, context)?;
        state.wrap(KmsOperation::RewrapKey, to, &key, context)
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        let _flight = self.begin(KmsOperation::DescribeKek, kek).await?;
        let state = self.state();
        let (id, found) = state.find(KmsOperation::DescribeKek, kek)?;
        let mut description = KekDescription::new(id.clone(), found.state);
        description.current_material = found.materials.last().map(|material| material.id.to_string());
        Ok(description)
    }
}

impl State {
    /// Finds a KEK by its id or an alias.
    fn find(&self, operation: KmsOperation, kek: &KekId) -> Result<(&KekId, &Kek), KmsError> {
        let id = self.aliases.get(kek).unwrap_or(kek);
        let found = self.keks.get_key_value(id);
        let (id, found) =
            found.ok_or_else(|| KmsError::new(KmsErrorKind::NotFound, PROVIDER, operation, kek))?;
        match found.fault {
            Some(kind) => Err(KmsError::new(kind, PROVIDER, operation, kek).with_advice("a test ordered it")),
            None => Ok((id, found)),
        }
    }

    fn find_enabled(&self, operation: KmsOperation, kek: &KekId) -> Result<(&KekId, &Kek), KmsError> {
        match self.find(operation, kek)? {
            found if found.1.state == KekState::Enabled => Ok(found),
            _ => Err(KmsError::new(KmsErrorKind::KeyState, PROVIDER, operation, kek)),
        }
    }

    /// Wraps as `16 material id ‖ 16 nonce ‖ 32 body ‖ 32 tag`: a test's cipher, not one to keep data under.
    fn wrap(
        &self,
        operation: KmsOperation,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        let (id, found) = self.find_enabled(operation, kek)?;
        let fault = |kind| KmsError::new(kind, PROVIDER, operation, kek);
        let material = found
            .materials
            .last()
            .ok_or_else(|| fault(KmsErrorKind::Unavailable))?;
        let mut nonce = [0; 16];
        fill_from_os(&mut nonce).map_err(|error| fault(KmsErrorKind::Unavailable).with_source(error))?;
        let mut blob = [material.id.into_bytes(), nonce].concat();
        blob.extend_from_slice(material.mask(&nonce, key.expose()).as_slice());
        let tag = material.tag(id, &blob, context).finalize().into_bytes();
        blob.extend_from_slice(&tag);
        Ok(WrappedKey::new(id.clone(), blob).with_material(material.id))
    }

    fn unwrap(
        &self,
        operation: KmsOperation,
        wrapped: &WrappedKey,
        context: &KmsContext,
    ) -> Result<DataKey, KmsError> {
        let integrity = || KmsError::new(KmsErrorKind::Integrity, PROVIDER, operation, &wrapped.kek);
        let (id, found) = self.find_enabled(operation, &wrapped.kek)?;
        let (body, tag) = wrapped.ciphertext.split_at_checked(64).ok_or_else(integrity)?;
        let material = found
            .materials
            .iter()
            .find(|material| material.id.as_bytes() == &body[..16])
            .ok_or_else(integrity)?;
        material
            .tag(id, body, context)
            .verify_slice(tag)
            .map_err(|_| integrity())?;
        DataKey::copy_from(material.mask(&body[16..32], &body[32..]).as_slice()).map_err(|_| integrity())
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
