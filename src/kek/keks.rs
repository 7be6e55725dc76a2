//! Calls to the KMSs under the KEK rule. The rest of encx reaches a KMS only through this.

mod check;
mod missing;
mod open_all;
mod probe;
mod rewrap;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, DataKeyId, KekId, KeyUsage, KmsName, MAX_WRAPS, WrappedKey};
use encx_core::kms::{
    KekDescription, KeyManagementService, KmsContext, KmsError, KmsOperation, RequestCounter,
};
use encx_core::store::{KeyRecord, StoredWrap};
use tokio::sync::Semaphore;

pub(crate) use self::missing::Unreachable;
use crate::calls::CallMemory;
use crate::clock::Clock;
use crate::error::{Error, Location};
use crate::kek::breaker::{Breaker, CircuitState};
use crate::kek::calls::{CallCounters, KmsStats};
use crate::kek::names::Names;
use crate::kek::{KekChoice, KekRef, KekRule};

/// The registered KMSs and the KEK rule.
pub(crate) struct Keks {
    kms: BTreeMap<KmsName, Registered>,
    rule: KekRule,
    clock: Arc<dyn Clock>,
    pub(crate) max_concurrent_calls: usize,
    /// The time-out of one call.
    timeout: Duration,
    calls: AtomicU64,
    names: Names,
}

/// A KMS, and its own limit on calls in flight: one that hangs does not block the others.
struct Registered {
    service: Arc<dyn KeyManagementService>,
    permits: Semaphore,
    breaker: Breaker,
    calls: CallCounters,
}

/// What is known about a KMS without a call.
#[derive(Clone, Debug)]
pub(crate) struct KnownKms {
    pub(crate) name: KmsName,
    pub(crate) provider: &'static str,
    /// The first of its KEKs that the rule names.
    pub(crate) kek: Option<KekId>,
    /// Whether it wraps keys of this process: by the rule, or if a closure decides, as calls to it show.
    pub(crate) wraps: bool,
    /// Whether several of its KEKs wrap by the rule or may wrap by a closure, so that refusing one leaves others.
    pub(crate) has_several_keks: bool,
    pub(crate) circuit: CircuitState,
    pub(crate) calls: CallMemory,
}

/// A call: the KMS, the operation and its time-out.
struct Call<'a> {
    kms: &'a KmsName,
    operation: KmsOperation,
    timeout: Duration,
    /// Whether a refusal is the expected outcome, and does not count against the KMS.
    refusal_expected: bool,
}

impl<'a> Call<'a> {
    fn new(kms: &'a KmsName, operation: KmsOperation, timeout: Duration) -> Self {
        Self {
            kms,
            operation,
            timeout,
            refusal_expected: false,
        }
    }
}

impl Keks {
    pub(crate) fn new(
        kms: BTreeMap<KmsName, Arc<dyn KeyManagementService>>,
        mut rule: KekRule,
        clock: Arc<dyn Clock>,
        max_concurrent_calls: usize,
        timeout: Duration,
    ) -> Result<Self, Error> {
        if rule.default.is_none() {
            let own = kms
                .get(&KmsName::default())
                .and_then(|kms| kms.default_kek().cloned());
            rule.default = own.map(KekChoice::new);
        }
        if let Some(kek) = rule
            .named()
            .chain(&rule.target)
            .find(|kek| !kms.contains_key(&kek.kms))
        {
            return Err(Error::UnknownKms { kms: kek.kms.clone() });
        }
        let max_concurrent_calls = max_concurrent_calls.clamp(1, Semaphore::MAX_PERMITS);
        let register = |name: &KmsName, service| Registered {
            service,
            permits: Semaphore::new(max_concurrent_calls),
            breaker: Breaker::new(name.clone(), Arc::clone(&clock)),
            calls: CallCounters::default(),
        };
        let kms = kms
            .into_iter()
            .map(|(name, service)| {
                let registered = register(&name, service);
                (name, registered)
            })
            .collect();
        Ok(Self {
            kms,
            rule,
            clock,
            max_concurrent_calls,
            timeout,
            calls: AtomicU64::new(0),
            names: Names::default(),
        })
    }

    /// Returns the rule. A closure's choices are not known in advance.
    pub(crate) fn rule(&self) -> &KekRule {
        &self.rule
    }

    /// Returns the number of calls to all KMSs so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns the counts of the calls to each KMS so far.
    pub(crate) fn stats(&self) -> Vec<KmsStats> {
        let stats = self.kms.iter().map(|(name, kms)| KmsStats {
            kms: name.clone(),
            provider: kms.service.provider(),
            circuit: kms.breaker.circuit(),
            circuit_openings: kms.breaker.openings(),
            operations: kms.calls.read(),
        });
        stats.collect()
    }

    /// Returns what is known about each KMS without a call.
    pub(crate) fn known(&self) -> Vec<KnownKms> {
        let known = self.kms.iter().map(|(name, kms)| {
            let calls = kms.calls.last.read();
            KnownKms {
                name: name.clone(),
                provider: kms.service.provider(),
                kek: self
                    .rule
                    .named()
                    .find(|kek| kek.kms == *name)
                    .map(|kek| self.last_name(kek)),
                wraps: match self.rule.by_closure {
                    Some(_) => calls.has_any(),
                    None => self.rule.wrapping().any(|kek| kek.kms == *name),
                },
                has_several_keks: self.rule.by_closure.is_some() || {
                    let mut there = self.rule.wrapping().filter(|kek| kek.kms == *name);
                    let first = there.next();
                    there.any(|kek| Some(kek) != first)
                },
                circuit: kms.breaker.circuit(),
                calls,
            }
        });
        known.collect()
    }

    /// Returns how often circuit breakers of KMSs opened.
    pub(crate) fn circuit_openings(&self) -> u64 {
        self.kms.values().map(|kms| kms.breaker.openings()).sum()
    }

    /// Tells whether every KMS that wraps a record's key did not answer its last call, so that asking
    /// for this key is useless.
    pub(crate) fn are_failing(&self, record: &KeyRecord) -> bool {
        let mut breakers = self.breakers(record).peekable();
        breakers.peek().is_some() && breakers.all(Breaker::is_failing)
    }

    /// Returns why no KMS can be called now to unwrap a record's key; `None` if one can be.
    pub(crate) fn circuits_open(&self, record: &KeyRecord) -> Option<Error> {
        let mut first = None;
        for breaker in self.breakers(record) {
            first = Some(first.unwrap_or(breaker.check().err()?));
        }
        first
    }

    fn breakers(&self, record: &KeyRecord) -> impl Iterator<Item = &Breaker> {
        let registered = record.wraps.iter().filter_map(|wrap| self.kms.get(&wrap.kms));
        registered.map(|kms| &kms.breaker)
    }

    /// Generates a data key under the KEKs that the rule chooses.
    ///
    /// A KEK that cannot be reached now is left out, as long as one can; `complete_wraps` adds its wrap later.
    pub(crate) async fn generate(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        id: DataKeyId,
    ) -> Result<(DataKey, Vec<StoredWrap>), Error> {
        self.wrap(context, usage, id, None).await
    }

    /// Wraps a given data key in the same way, or one that the first KMS generates.
    pub(crate) async fn wrap(
        &self,
        context: &EncryptionContext,
        usage: KeyUsage,
        id: DataKeyId,
        given: Option<DataKey>,
    ) -> Result<(DataKey, Vec<StoredWrap>), Error> {
        let choice = self.choose(context)?;
        let pairs = KmsContext::new(context, usage, id);
        let timeout = self.share_of_time(choice.wraps().len());
        let (mut made, mut wraps, mut missing) = (given, Vec::new(), Vec::new());
        for kek in choice.wraps() {
            let wrapped = match &made {
                None => {
                    let first = self
                        .call(
                            Call::new(&kek.kms, KmsOperation::GenerateDataKey, timeout),
                            |kms| kms.generate_data_key(&kek.kek, &pairs),
                        )
                        .await;
                    first.map(|first| {
                        made = Some(first.key);
                        first.wrapped
                    })
                }
                Some(key) => {
                    self.call(Call::new(&kek.kms, KmsOperation::WrapKey, timeout), |kms| {
                        kms.wrap_key(&kek.kek, key, &pairs)
                    })
                    .await
                }
            };
            match wrapped {
                Ok(wrapped) => push_new(&mut wraps, self.stored(kek, wrapped)),
                Err(error) if error.is_retryable() => missing.push((kek, error)),
                Err(error) => return Err(error),
            }
        }
        match made {
            Some(key) if !wraps.is_empty() => {
                report_missing(id, &missing);
                Ok((key, wraps))
            }
            _ => Err(missing
                .into_iter()
                .next()
                .map_or(Error::NoKek, |(_, error)| error)),
        }
    }

    /// Unwraps a record's key with any wrap that the rule allows, and checks that it is the right key.
    pub(crate) async fn unwrap(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        usage: KeyUsage,
    ) -> Result<DataKey, Error> {
        let choice = self.choose(context)?;
        let pairs = KmsContext::new(context, usage, record.id);
        let mut untried: Vec<&StoredWrap> = record.wraps.iter().collect();
        let mut failed = None;
        // First the wraps that are known to match without a call. Then, if the rule names KEKs by aliases, asks what
        // these stand for. Only the rule's own KEKs are asked about, never a KEK that only a row names.
        for ask in [false, true] {
            for kek in choice.allowed() {
                if !untried.iter().any(|wrap| wrap.kms == kek.kms) {
                    continue;
                }
                let asked = if ask {
                    self.name(kek).await
                } else {
                    Ok(self.known_name(kek))
                };
                let name = match asked {
                    Ok(name) => name,
                    Err(error) => {
                        keep_most_hopeful(&mut failed, error);
                        continue;
                    }
                };
                while let Some(at) = untried.iter().position(|wrap| is_by(wrap, kek, &name)) {
                    match self.open(record, untried.swap_remove(at), &pairs).await {
                        Ok(key) => return Ok(key),
                        Err(error) => keep_most_hopeful(&mut failed, error),
                    }
                }
            }
        }
        match record.wraps.first() {
            None if record.lacks_wraps() => Err(Error::RolledBack {
                found: Some(record.id),
                used: record.id,
            }),
            None => Err(Error::Destroyed {
                id: record.id,
                at: Location::default(),
            }),
            // No wrap was tried: none is allowed, unless the name of a KEK in the rule is unknown. Then the error is
            // about that KEK, because the row's may be the same.
            Some(first) if untried.len() == record.wraps.len() => {
                Err(failed.unwrap_or_else(|| not_allowed(record, first)))
            }
            Some(_) => Err(failed.unwrap_or(Error::Interrupted)),
        }
    }

    /// Asks what the KEKs that wrap for a context stand for now: an alias that was just moved is a
    /// common reason to rewrap.
    pub(crate) async fn ask_names(&self, context: &EncryptionContext) -> Result<(), Error> {
        for kek in self.choose(context)?.wraps() {
            self.name_now(kek).await?;
        }
        Ok(())
    }

    /// Checks that the rule has a KEK for a context, without calling a KMS.
    pub(crate) fn choose(&self, context: &EncryptionContext) -> Result<KekChoice, Error> {
        let choice = self.rule.choose(context).ok_or(Error::NoKek)?;
        let found = choice.wraps().len();
        if found > MAX_WRAPS {
            let what = format!("the KEK rule names {found} KEKs to wrap with, more than {MAX_WRAPS}");
            return Err(Error::Config { what });
        }
        let Some(target) = &self.rule.target else {
            return Ok(choice);
        };
        choice.wrapped_with(target).ok_or_else(|| Error::KekNotInRule {
            kms: target.kms.clone(),
            kek: target.kek.clone(),
        })
    }

    /// Unwraps one wrap, and checks that it contains the record's key.
    async fn open(
        &self,
        record: &KeyRecord,
        wrap: &StoredWrap,
        pairs: &KmsContext,
    ) -> Result<DataKey, Error> {
        let began = self.clock.elapsed();
        let timeout = self.share_of_time(record.wraps.len());
        let unwrapped = self
            .call(Call::new(&wrap.kms, KmsOperation::UnwrapKey, timeout), |kms| {
                kms.unwrap_key(&wrap.wrapped, pairs)
            })
            .await;
        let opened = match unwrapped {
            Ok(key) if key.check(record.id) == record.key_check => Ok(key),
            Ok(_) => {
                // The clearest sign of tampering, even if another wrap opens.
                tracing::warn!(target: "encx::refused", key = %record.id, kek = %wrap.wrapped.kek, "a wrap holds another key");
                Err(Error::KeyMismatch { id: record.id })
            }
            Err(error) => Err(error),
        };
        self.trace_unwrap(record, wrap, &opened, began);
        opened
    }

    /// Logs that a key was unwrapped, or was not.
    fn trace_unwrap(
        &self,
        record: &KeyRecord,
        wrap: &StoredWrap,
        opened: &Result<DataKey, Error>,
        began: Duration,
    ) {
        let provider = self.kms.get(&wrap.kms).map_or("", |kms| kms.service.provider());
        let took = self.clock.elapsed().saturating_sub(began).as_micros();
        let duration_us = u64::try_from(took).unwrap_or(u64::MAX);
        let (kms, kek) = (&wrap.kms, &wrap.wrapped.kek);
        let (key, usage) = (record.id, record.usage.name());
        match opened {
            Ok(_) => tracing::info!(
                target: "encx::unwrap", %key, usage, provider, %kms, %kek, duration_us, outcome = "ok", "data key unwrapped"
            ),
            Err(error) => tracing::warn!(
                target: "encx::unwrap", %key, usage, provider, %kms, %kek, duration_us, outcome = "failed", %error,
                "data key not unwrapped"
            ),
        }
    }

    /// Returns the time-out of each of several calls, so that one that hangs does not use up the time of all.
    fn share_of_time(&self, calls: usize) -> Duration {
        if calls > 1 { self.timeout / 3 } else { self.timeout }
    }

    /// Returns the permanent name of a KEK if it is known; otherwise its name in the rule.
    fn known_name(&self, kek: &KekRef) -> KekId {
        self.names
            .fresh(kek, self.clock.elapsed())
            .unwrap_or_else(|| kek.kek.clone())
    }

    /// Returns the last known permanent name of a KEK; otherwise its name in the rule.
    fn last_name(&self, kek: &KekRef) -> KekId {
        self.names.last(kek).unwrap_or_else(|| kek.kek.clone())
    }

    /// Returns the permanent name of a KEK. Asks the KMS unless it answered a moment ago.
    pub(crate) async fn name(&self, kek: &KekRef) -> Result<KekId, Error> {
        let now = self.clock.elapsed();
        if let Some(name) = self.names.fresh(kek, now) {
            return Ok(name);
        }
        if let Some(error) = self.names.refused(kek, now) {
            return Err(error);
        }
        match self.name_now(kek).await {
            Err(error) if error.is_retryable() => self.names.stale(kek, now).ok_or(error),
            Err(error) => {
                self.names.refuse(kek, &error, now);
                Err(error)
            }
            named => named,
        }
    }

    /// Asks the KMS for the permanent name of a KEK.
    pub(crate) async fn name_now(&self, kek: &KekRef) -> Result<KekId, Error> {
        let described = self.describe(kek, self.timeout).await?;
        self.names.learn(kek, &described.kek, self.clock.elapsed());
        Ok(described.kek)
    }

    async fn describe(&self, kek: &KekRef, timeout: Duration) -> Result<KekDescription, Error> {
        let call = Call::new(&kek.kms, KmsOperation::DescribeKek, timeout);
        self.call(call, |kms| kms.describe_kek(&kek.kek)).await
    }

    /// Takes a new wrap, and learns from it what the KEK's alias stands for.
    fn stored(&self, kek: &KekRef, wrapped: WrappedKey) -> StoredWrap {
        self.names.learn(kek, &wrapped.kek, self.clock.elapsed());
        StoredWrap::new(kek.kms.clone(), wrapped)
    }

    async fn call<'a, T, F>(
        &'a self,
        of: Call<'_>,
        call: impl FnOnce(&'a dyn KeyManagementService) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, KmsError>>,
    {
        let Call {
            kms,
            operation,
            timeout,
            refusal_expected,
        } = of;
        let kms = self
            .kms
            .get(kms)
            .ok_or_else(|| Error::UnknownKms { kms: kms.clone() })?;
        // Before waiting for a permit, because calls that hang may hold them all.
        kms.breaker.check()?;
        // The semaphore is never closed, so waiting for a permit cannot fail.
        let permit = kms.permits.acquire().await.map_err(|_| Error::ShutDown)?;
        // And after it: the calls that held the permits may have opened the breaker. In this order, so that on a drop
        // of both the permit is released before a subscriber hears how the call ended.
        let (admitted, permit) = (kms.breaker.admit(timeout)?, permit);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let requests = Requests::new(&self.calls);
        let counted = kms.calls.begin(operation, &*self.clock, timeout);
        let outcome = tokio::select! {
            answer = requests.counter.during(call(kms.service.as_ref())) => answer.map_err(Error::from),
            () = self.clock.sleep(timeout) => Err(Error::TimedOut { after: timeout }),
        };
        drop(permit);
        counted.ended(&outcome, refusal_expected);
        admitted.ended(&outcome);
        outcome
    }
}

impl fmt::Debug for Keks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.kms.iter().map(|(name, kms)| (name, &kms.service)).collect();
        f.debug_struct("Keks")
            .field("kms", &services)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

/// Corrects the number of requests when a call ends, fails or is dropped: it was counted as one, and took as many
/// as its provider reports.
struct Requests<'a> {
    counter: RequestCounter,
    calls: &'a AtomicU64,
}

impl<'a> Requests<'a> {
    fn new(calls: &'a AtomicU64) -> Self {
        let counter = RequestCounter::new();
        Self { counter, calls }
    }
}

impl Drop for Requests<'_> {
    fn drop(&mut self) {
        if let Some(requests) = self.counter.reported() {
            // For none this adds -1, by wrapping.
            self.calls.fetch_add(requests.wrapping_sub(1), Ordering::Relaxed);
        }
    }
}

/// Tells whether a wrap is by a KEK of the rule with the permanent name `name`.
fn is_by(wrap: &StoredWrap, kek: &KekRef, name: &KekId) -> bool {
    wrap.kms == kek.kms && wrap.wrapped.kek == *name
}

/// Adds a wrap, unless there is one by the same KEK: a rule may contain both an alias and a name of one KEK.
fn push_new(wraps: &mut Vec<StoredWrap>, wrap: StoredWrap) {
    if !wraps
        .iter()
        .any(|known| known.kms == wrap.kms && known.wrapped.kek == wrap.wrapped.kek)
    {
        wraps.push(wrap);
    }
}

fn not_allowed(record: &KeyRecord, wrap: &StoredWrap) -> Error {
    let (id, kms, kek) = (record.id, wrap.kms.clone(), wrap.wrapped.kek.clone());
    tracing::warn!(target: "encx::refused", key = %id, %kms, %kek, "KEK not allowed");
    Error::KekNotAllowed { id, kms, kek }
}

/// Keeps the failure that may pass, rather than one that is permanent.
fn keep_most_hopeful(kept: &mut Option<Error>, error: Error) {
    if kept
        .as_ref()
        .is_none_or(|kept| error.is_retryable() && !kept.is_retryable())
    {
        *kept = Some(error);
    }
}

/// Logs that a new key lacks wraps.
fn report_missing(id: DataKeyId, missing: &[(&KekRef, Error)]) {
    for (kek, error) in missing {
        tracing::warn!(
            target: "encx::wraps", key = %id, kms = %kek.kms, kek = %kek.kek, %error,
            "a new key lacks a wrap, as its KEK is unavailable; `complete_wraps` adds it"
        );
    }
}
