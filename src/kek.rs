//! Which KEK wraps a data key, which may unwrap it, and the calls to the KMSs that do so.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::context::EncryptionContext;
use crate::error::Error;
use crate::key::{DataKey, DataKeyId, KekId, KeyUsage, KmsName, MAX_WRAPS, NameError, WrappedKey};
use crate::kms::{KeyManagementService, KmsContext, KmsError};
use crate::store::{KeyRecord, StoredWrap};

/// Names a KEK and the KMS that holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct KekRef {
    /// The name under which the KMS is registered.
    pub kms: KmsName,
    /// The KEK's name there: an id, an ARN or an alias.
    pub kek: KekId,
}

impl KekRef {
    /// Names a KEK of a KMS that was registered with `kms_named`.
    #[must_use]
    pub fn new(kms: KmsName, kek: KekId) -> Self {
        Self { kms, kek }
    }
}

/// A KEK of the KMS that `Crypto::builder` was given.
impl From<KekId> for KekRef {
    fn from(kek: KekId) -> Self {
        Self::new(KmsName::default(), kek)
    }
}

impl TryFrom<&str> for KekRef {
    type Error = NameError;

    fn try_from(kek: &str) -> Result<Self, NameError> {
        KekId::new(kek).map(Self::from)
    }
}

impl TryFrom<String> for KekRef {
    type Error = NameError;

    fn try_from(kek: String) -> Result<Self, NameError> {
        KekId::new(kek).map(Self::from)
    }
}

/// A KMS's name and the name of its KEK.
impl TryFrom<(&str, &str)> for KekRef {
    type Error = NameError;

    fn try_from((kms, kek): (&str, &str)) -> Result<Self, NameError> {
        Ok(Self::new(KmsName::new(kms)?, KekId::new(kek)?))
    }
}

/// What the KEK rule gives for one encryption context: the KEKs that wrap, and those that may unwrap.
///
/// A key store's row may choose among them and never add to them. Otherwise whoever can write a row could plant
/// a data key that they know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekChoice {
    wrap: Vec<KekRef>,
    unwrap: Vec<KekRef>,
}

impl KekChoice {
    /// Wraps new data keys under one KEK, and unwraps with it.
    pub fn new(wrap: impl Into<KekRef>) -> Self {
        Self {
            wrap: vec![wrap.into()],
            unwrap: Vec::new(),
        }
    }

    /// Wraps new data keys under a further KEK too; any one that answers is enough to unwrap. At most 8 in all.
    #[must_use]
    pub fn also_wrap(mut self, kek: impl Into<KekRef>) -> Self {
        self.wrap.push(kek.into());
        self
    }

    /// Allows a KEK to unwrap, such as one that wrapped earlier.
    #[must_use]
    pub fn also_unwrap(mut self, kek: impl Into<KekRef>) -> Self {
        self.unwrap.push(kek.into());
        self
    }

    /// Lists the KEKs that wrap new data keys, the first of which makes them.
    #[must_use]
    pub fn wraps(&self) -> &[KekRef] {
        &self.wrap
    }

    /// Lists the KEKs that may unwrap, in the order in which they are tried.
    pub fn allowed(&self) -> impl Iterator<Item = &KekRef> {
        self.wrap.iter().chain(&self.unwrap)
    }
}

type RuleFn = Arc<dyn Fn(&EncryptionContext) -> Option<KekChoice> + Send + Sync>;

/// The KEK rule, as a builder collects it: a closure, then pairs, then a default, then the KMS's own.
#[derive(Clone, Default)]
pub(crate) struct KekRule {
    pub(crate) by_closure: Option<RuleFn>,
    pub(crate) by_pair: Vec<(String, String, KekRef)>,
    pub(crate) default: Option<KekRef>,
    pub(crate) retired: Vec<KekRef>,
}

impl KekRule {
    fn choose(&self, context: &EncryptionContext) -> Option<KekChoice> {
        let by_closure = self.by_closure.as_ref().and_then(|rule| rule(context));
        let by_pair = || {
            let matching = self
                .by_pair
                .iter()
                .find(|(key, value, _)| context.get(key) == Some(value));
            matching.map(|(_, _, kek)| KekChoice::new(kek.clone()))
        };
        let choice = by_closure
            .or_else(by_pair)
            .or_else(|| self.default.clone().map(KekChoice::new))?;
        Some(
            self.retired
                .iter()
                .fold(choice, |choice, kek| choice.also_unwrap(kek.clone())),
        )
    }
}

impl fmt::Debug for KekRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KekRule")
            .field("by_closure", &self.by_closure.is_some())
            .field("by_pair", &self.by_pair)
            .field("default", &self.default)
            .field("retired", &self.retired)
            .finish()
    }
}

/// How long the lasting name behind an alias is believed when a row does not match it.
const NAME_TTL: Duration = Duration::from_secs(60);

/// The registered KMSs under the KEK rule: the only way from the rest of encx to a KMS.
#[derive(Debug)]
pub(crate) struct Keks {
    kms: BTreeMap<KmsName, Arc<dyn KeyManagementService>>,
    rule: KekRule,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    calls: AtomicU64,
    /// What aliases stand for, and since when that is known.
    names: Mutex<HashMap<KekRef, (KekId, Duration)>>,
}

impl Keks {
    pub(crate) fn new(
        kms: BTreeMap<KmsName, Arc<dyn KeyManagementService>>,
        mut rule: KekRule,
        clock: Arc<dyn Clock>,
        max_concurrent_calls: usize,
    ) -> Result<Self, Error> {
        if rule.default.is_none() {
            let own = kms
                .get(&KmsName::default())
                .and_then(|kms| kms.default_kek().cloned());
            rule.default = own.map(KekRef::from);
        }
        let named = rule
            .by_pair
            .iter()
            .map(|(_, _, kek)| kek)
            .chain(&rule.default)
            .chain(&rule.retired);
        for kek in named {
            if !kms.contains_key(&kek.kms) {
                return Err(Error::UnknownKms { kms: kek.kms.clone() });
            }
        }
        let permits = Semaphore::new(max_concurrent_calls.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self {
            kms,
            rule,
            clock,
            permits,
            calls: AtomicU64::new(0),
            names: Mutex::default(),
        })
    }

    /// Returns the number of calls to all KMSs so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Makes a data key under the KEKs that the rule chooses.
    pub(crate) async fn generate(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        id: DataKeyId,
    ) -> Result<(DataKey, Vec<StoredWrap>), Error> {
        let choice = self.choose(context)?;
        let pairs = KmsContext::new(context, usage, id);
        let (first, others) = choice.wraps().split_first().ok_or(Error::NoKek)?;
        let made = self
            .call(&first.kms, |kms| kms.generate_data_key(&first.kek, &pairs))
            .await?;
        let mut wraps = vec![self.stored(first, made.wrapped)];
        for kek in others {
            let wrapped = self
                .call(&kek.kms, |kms| kms.wrap_key(&kek.kek, &made.key, &pairs))
                .await?;
            wraps.push(self.stored(kek, wrapped));
        }
        Ok((made.key, wraps))
    }

    /// Unwraps a record's key with any wrap that the rule allows, and checks that it is the right key.
    pub(crate) async fn unwrap(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        usage: KeyUsage,
    ) -> Result<DataKey, Error> {
        // From what the caller asked for, never from the row's columns.
        let pairs = KmsContext::new(context, usage, record.id);
        let mut error = None;
        for wrap in self.allowed_wraps(record, context).await? {
            let unwrapped = self
                .call(&wrap.kms, |kms| kms.unwrap_key(&wrap.wrapped, &pairs))
                .await;
            match unwrapped {
                Ok(key) if key.check(record.id) == record.key_check => return Ok(key),
                Ok(_) => keep_most_hopeful(&mut error, Error::KeyMismatch { id: record.id }),
                Err(failed) => keep_most_hopeful(&mut error, failed),
            }
        }
        Err(error.unwrap_or(Error::Destroyed { id: record.id }))
    }

    /// Moves a record's key to the KEKs that the rule chooses now. `None` if it is there already.
    pub(crate) async fn rewrap(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        usage: KeyUsage,
    ) -> Result<Option<Vec<StoredWrap>>, Error> {
        let choice = self.choose(context)?;
        let pairs = KmsContext::new(context, usage, record.id);
        let sources = self.allowed_wraps(record, context).await?;
        let mut wraps = Vec::new();
        for target in choice.wraps() {
            self.resolve(target).await?;
            let name = self.known_name(target);
            let there = |wrap: &&StoredWrap| {
                wrap.kms == target.kms && is_named(&wrap.wrapped, &target.kek, name.as_ref())
            };
            if let Some(wrap) = record.wraps.iter().find(there) {
                wraps.push(wrap.clone());
                continue;
            }
            let wrapped = if let Some(source) = sources.iter().find(|source| source.kms == target.kms) {
                self.call(&target.kms, |kms| {
                    kms.rewrap_key(&source.wrapped, &pairs, &target.kek)
                })
                .await?
            } else {
                // Across providers the key passes through this process.
                let key = self.unwrap(record, context, usage).await?;
                self.call(&target.kms, |kms| kms.wrap_key(&target.kek, &key, &pairs))
                    .await?
            };
            wraps.push(self.stored(target, wrapped));
        }
        wraps.sort_by(|a, b| (&a.kms, &a.wrapped.kek).cmp(&(&b.kms, &b.wrapped.kek)));
        Ok((wraps != record.wraps).then_some(wraps))
    }

    /// Makes sure that the rule has a KEK for a context, without calling a KMS.
    pub(crate) fn choose(&self, context: &EncryptionContext) -> Result<KekChoice, Error> {
        let choice = self.rule.choose(context).ok_or(Error::NoKek)?;
        if choice.wraps().len() > MAX_WRAPS {
            let what = format!(
                "the KEK rule names {} KEKs to wrap with, at most {MAX_WRAPS}",
                choice.wraps().len()
            );
            return Err(Error::Config { what });
        }
        Ok(choice)
    }

    /// Picks the record's wraps that the rule allows, in the rule's order.
    async fn allowed_wraps<'a>(
        &self,
        record: &'a KeyRecord,
        context: &EncryptionContext,
    ) -> Result<Vec<&'a StoredWrap>, Error> {
        let choice = self.choose(context)?;
        let pick = || {
            let mut picked: Vec<&'a StoredWrap> = Vec::new();
            for kek in choice.allowed() {
                let name = self.known_name(kek);
                for wrap in &record.wraps {
                    let named = wrap.kms == kek.kms && is_named(&wrap.wrapped, &kek.kek, name.as_ref());
                    if named && !picked.iter().any(|seen| std::ptr::eq(*seen, wrap)) {
                        picked.push(wrap);
                    }
                }
            }
            picked
        };
        let Some(first) = record.wraps.first() else {
            return Ok(Vec::new());
        };
        let picked = pick();
        if !picked.is_empty() {
            return Ok(picked);
        }
        // The rule may name a KEK by an alias, which a row never does. Only the rule's own KEKs are asked
        // about: a row that names another makes us ask nobody anything.
        let mut unavailable = None;
        for kek in choice
            .allowed()
            .filter(|kek| record.wraps.iter().any(|wrap| wrap.kms == kek.kms))
        {
            if let Err(error) = self.resolve(kek).await
                && error.is_retryable()
            {
                unavailable = Some(error);
            }
        }
        let picked = pick();
        match unavailable {
            _ if !picked.is_empty() => Ok(picked),
            Some(error) => Err(error),
            None => {
                let (kms, kek) = (first.kms.clone(), first.wrapped.kek.clone());
                tracing::warn!(target: "encx::refused", key = %record.id, %kms, %kek, "KEK not allowed");
                Err(Error::KekNotAllowed {
                    id: record.id,
                    kms,
                    kek,
                })
            }
        }
    }

    fn known_name(&self, kek: &KekRef) -> Option<KekId> {
        self.names().get(kek).map(|(name, _)| name.clone())
    }

    /// Asks what an alias stands for, unless that is known since a moment ago.
    async fn resolve(&self, kek: &KekRef) -> Result<(), Error> {
        let now = self.clock.elapsed();
        let known = self
            .names()
            .get(kek)
            .is_some_and(|(_, at)| now.saturating_sub(*at) < NAME_TTL);
        if !known {
            let described = self.call(&kek.kms, |kms| kms.describe_kek(&kek.kek)).await?;
            self.names().insert(kek.clone(), (described.kek, now));
        }
        Ok(())
    }

    /// Takes a new wrap over, and learns from it what the KEK's alias stands for.
    fn stored(&self, kek: &KekRef, wrapped: WrappedKey) -> StoredWrap {
        self.names()
            .insert(kek.clone(), (wrapped.kek.clone(), self.clock.elapsed()));
        StoredWrap::new(kek.kms.clone(), wrapped)
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<KekRef, (KekId, Duration)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<'a, T, F>(
        &'a self,
        kms: &KmsName,
        call: impl FnOnce(&'a dyn KeyManagementService) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, KmsError>>,
    {
        let service = self
            .kms
            .get(kms)
            .ok_or_else(|| Error::UnknownKms { kms: kms.clone() })?;
        // The semaphore is never closed, so waiting for a permit cannot fail.
        let _permit = self.permits.acquire().await.map_err(|_| Error::ShutDown)?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(call(service.as_ref()).await?)
    }
}

fn is_named(wrapped: &WrappedKey, kek: &KekId, name: Option<&KekId>) -> bool {
    wrapped.kek == *kek || Some(&wrapped.kek) == name
}

/// Of several wraps that failed, one that may answer later says more than one that never will.
fn keep_most_hopeful(kept: &mut Option<Error>, error: Error) {
    if kept
        .as_ref()
        .is_none_or(|kept| error.is_retryable() && !kept.is_retryable())
    {
        *kept = Some(error);
    }
}
