//! The conformance suite detects KMSs with realistic faults, and every case detects one.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use encx::EncryptionContext;
use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{
    DataKey, GeneratedDataKey, KekDescription, KekId, KekState, KeyManagementService, KmsContext, KmsError,
    KmsErrorKind, KmsOperation, WrappedKey,
};
use encx_testkit::{KmsFixture, MemoryKms, block_on, kms_suite};

/// A fault of a KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    AcceptsExcess,
    AcceptsMissingEnd,
    ConfusesConcurrentCalls,
    DefaultKekUnknown,
    DescribesAsEnabled,
    DescribesOtherMaterial,
    DescribesOtherName,
    DisabledIsUnavailable,
    ForgetsItsLockWhenCancelled,
    IgnoresAllPairs,
    IgnoresCase,
    IgnoresEncxPairs,
    IgnoresForeignKek,
    IgnoresLastBit,
    IgnoresPairsAfterTheFirst,
    JoinsPairs,
    NamesTheAlias,
    None,
    PrintsKeys,
    RepeatsKeys,
    RepeatsWraps,
    RewrapIgnoresTheContext,
    RewrapMakesANewKey,
    SwapsKeysAndValues,
    UnknownIsConfiguration,
    UnwrapsToAnotherKey,
}

/// Every fault, and one case that must detect it.
const CAUGHT: &[(Fault, &str)] = &[
    (Fault::AcceptsExcess, "a_wrap_with_excess_bytes_fails"),
    (Fault::AcceptsMissingEnd, "every_truncation_of_a_wrap_fails"),
    (
        Fault::ConfusesConcurrentCalls,
        "many_concurrent_calls_are_all_right",
    ),
    (Fault::DefaultKekUnknown, "the_default_kek_can_be_used"),
    (Fault::DescribesAsEnabled, "a_disabled_kek_is_a_key_state_error"),
    (
        Fault::DescribesOtherMaterial,
        "describing_a_kek_tells_its_id_state_and_material",
    ),
    (Fault::DescribesOtherName, "a_wrap_names_its_kek_for_good"),
    (
        Fault::DisabledIsUnavailable,
        "a_disabled_kek_is_a_key_state_error",
    ),
    (
        Fault::ForgetsItsLockWhenCancelled,
        "a_cancelled_call_harms_no_other",
    ),
    (Fault::IgnoresAllPairs, "a_wrong_pair_fails"),
    (Fault::IgnoresCase, "a_wrong_pair_fails"),
    (Fault::IgnoresEncxPairs, "another_key_id_or_usage_fails"),
    (Fault::IgnoresForeignKek, "a_foreign_kek_unwraps_nothing"),
    (Fault::IgnoresLastBit, "every_bit_flip_of_a_wrap_fails"),
    (Fault::IgnoresPairsAfterTheFirst, "a_missing_or_extra_pair_fails"),
    (Fault::JoinsPairs, "a_context_is_not_confused_by_its_framing"),
    (Fault::NamesTheAlias, "an_alias_resolves_to_its_kek"),
    (Fault::PrintsKeys, "debug_output_shows_no_key"),
    (Fault::RepeatsKeys, "a_generated_key_is_new_each_time"),
    (Fault::RepeatsWraps, "a_given_key_wraps_and_unwraps"),
    (
        Fault::RewrapIgnoresTheContext,
        "rewrapping_under_another_context_fails",
    ),
    (Fault::RewrapMakesANewKey, "rewrapping_keeps_the_key"),
    (Fault::SwapsKeysAndValues, "a_wrong_pair_fails"),
    (
        Fault::UnknownIsConfiguration,
        "an_unknown_kek_is_a_not_found_error",
    ),
    (Fault::UnwrapsToAnotherKey, "a_key_unwraps_under_its_context"),
];

fn catches(case: &str, fault: Fault) -> bool {
    let run = || block_on(async { kms_suite::run(case, &Broken::new(fault)).await });
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

#[test]
fn every_fault_is_caught_by_its_case() {
    for (fault, case) in CAUGHT {
        assert!(catches(case, *fault), "{case} does not catch {fault:?}");
    }
}

#[test]
fn the_wrapper_itself_is_not_at_fault() {
    for case in kms_suite::CASES {
        assert!(
            !catches(case, Fault::None),
            "{case} catches a KMS without a fault"
        );
    }
}

#[test]
fn every_case_catches_something() {
    let idle = |case: &&&str| CAUGHT.iter().all(|(_, catching)| catching != *case);
    assert_eq!(
        kms_suite::CASES.iter().filter(idle).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
    let cases: BTreeSet<_> = kms_suite::CASES.iter().collect();
    assert_eq!(cases.len(), kms_suite::CASES.len(), "a case is listed twice");
}

/// A KMS with one fault; its own fixture.
#[derive(Clone)]
struct Broken {
    fault: Fault,
    inner: MemoryKms,
    unknown: KekId,
    memory: Arc<Memory>,
}

/// State that some faults need.
#[derive(Default)]
struct Memory {
    busy: AtomicBool,
    contexts: Mutex<HashMap<Vec<u8>, KmsContext>>,
    key: Mutex<Option<[u8; 32]>>,
    last_context: Mutex<Option<KmsContext>>,
    wraps: Mutex<BTreeMap<(KekId, [u8; 32]), WrappedKey>>,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        let inner = MemoryKms::new()
            .with_kek("memory/other")
            .with_alias("alias/app", MemoryKms::DEFAULT_KEK);
        Self {
            fault,
            inner,
            unknown: KekId::new("memory/unknown").unwrap(),
            memory: Arc::default(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Reduces a context to what a KMS with this fault authenticates.
    async fn seen(&self, context: &KmsContext) -> KmsContext {
        let own = |key: &str| key.starts_with("encx:");
        let all = || {
            context
                .pairs()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        let mut pairs: Vec<_> = match self.fault {
            Fault::ConfusesConcurrentCalls => {
                *self.memory.last_context.lock().unwrap() = Some(context.clone());
                tokio::task::yield_now().await;
                return self.memory.last_context.lock().unwrap().clone().unwrap();
            }
            Fault::IgnoresAllPairs => Vec::new(),
            Fault::IgnoresCase => all()
                .map(|(key, value)| (key.to_lowercase(), value.to_lowercase()))
                .collect(),
            Fault::IgnoresEncxPairs => all().filter(|(key, _)| !own(key)).collect(),
            Fault::IgnoresPairsAfterTheFirst => {
                let first = all().position(|(key, _)| !own(&key)).unwrap();
                let keep = |(at, (key, _)): &(usize, (String, String))| own(key) || *at == first;
                all().enumerate().filter(keep).map(|(_, pair)| pair).collect()
            }
            Fault::JoinsPairs => vec![(all().map(|(key, value)| key + &value).collect(), String::new())],
            Fault::SwapsKeysAndValues => {
                let (mut keys, mut values): (Vec<_>, Vec<_>) = all().unzip();
                keys.sort();
                values.sort();
                keys.into_iter().zip(values).collect()
            }
            _ => return context.clone(),
        };
        pairs.sort();
        // Any short text that is unique for these pairs works.
        let digest = format!("{pairs:?}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let user = EncryptionContext::builder()
            .pair("pairs", digest)
            .build()
            .unwrap();
        let id = DataKeyId::from_bytes(*b"encx!!\x70\0\x80\0\0\0\0\0\0\0").unwrap();
        KmsContext::new(&user, KeyUsage::Data, id)
    }

    async fn enter(&self, operation: KmsOperation, kek: &KekId) -> Result<(), KmsError> {
        if self.is(Fault::ForgetsItsLockWhenCancelled) {
            let mut tries = 0;
            while self.memory.busy.swap(true, Ordering::SeqCst) {
                tries += 1;
                if tries > 10_000 {
                    return Err(KmsError::new(KmsErrorKind::Unavailable, "broken", operation, kek));
                }
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
            self.memory.busy.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Changes a wrap on its way out.
    fn out(&self, mut wrapped: WrappedKey, kek: &KekId, context: &KmsContext) -> WrappedKey {
        if matches!(self.fault, Fault::AcceptsMissingEnd | Fault::IgnoresLastBit) {
            wrapped.ciphertext.push(0);
        }
        if self.is(Fault::NamesTheAlias) {
            wrapped.kek = kek.clone();
        }
        let mut contexts = self.memory.contexts.lock().unwrap();
        contexts.insert(wrapped.ciphertext.clone(), context.clone());
        wrapped
    }

    /// Changes a wrap on its way in, back to the inner KMS's wrap.
    fn back(&self, wrapped: &WrappedKey) -> WrappedKey {
        let mut wrapped = wrapped.clone();
        match self.fault {
            Fault::AcceptsExcess => wrapped.ciphertext.truncate(96),
            Fault::AcceptsMissingEnd if wrapped.ciphertext.len() == 97 && wrapped.ciphertext[96] == 0 => {
                wrapped.ciphertext.truncate(96);
            }
            Fault::IgnoresLastBit if wrapped.ciphertext.len() == 97 => wrapped.ciphertext.truncate(96),
            Fault::IgnoresLastBit => wrapped.ciphertext.clear(),
            Fault::NamesTheAlias if wrapped.kek.as_str() == "alias/app" => wrapped.kek = self.kek(),
            _ => {}
        }
        wrapped
    }

    fn error(&self, error: KmsError) -> KmsError {
        let kind = match (self.fault, error.kind()) {
            (Fault::DisabledIsUnavailable, KmsErrorKind::KeyState) => KmsErrorKind::Unavailable,
            (Fault::UnknownIsConfiguration, KmsErrorKind::NotFound) => KmsErrorKind::Configuration,
            _ => return error,
        };
        KmsError::new(kind, "broken", error.operation(), error.kek())
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.memory.key.lock().unwrap();
        let printed = key.filter(|_| self.is(Fault::PrintsKeys));
        f.debug_struct("Broken")
            .field("key", &printed)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyManagementService for Broken {
    fn provider(&self) -> &'static str {
        "broken"
    }

    fn default_kek(&self) -> Option<&KekId> {
        match self.fault {
            Fault::DefaultKekUnknown => Some(&self.unknown),
            _ => self.inner.default_kek(),
        }
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let key = DataKey::generate().unwrap();
        let first = *self.memory.key.lock().unwrap().get_or_insert(*key.expose());
        let key = match self.fault {
            Fault::RepeatsKeys => DataKey::copy_from(&first).unwrap(),
            _ => key,
        };
        let wrapped = self.wrap_key(kek, &key, context).await?;
        Ok(GeneratedDataKey::new(key, wrapped))
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        self.enter(KmsOperation::WrapKey, kek).await?;
        let seen = self.seen(context).await;
        let wrapped = self.inner.wrap_key(kek, key, &seen).await;
        let wrapped = self.out(wrapped.map_err(|error| self.error(error))?, kek, context);
        let mut wraps = self.memory.wraps.lock().unwrap();
        let first = wraps
            .entry((kek.clone(), *key.expose()))
            .or_insert(wrapped.clone());
        Ok(if self.is(Fault::RepeatsWraps) {
            first.clone()
        } else {
            wrapped
        })
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        self.enter(KmsOperation::UnwrapKey, &wrapped.kek).await?;
        let (seen, mut wrapped) = (self.seen(context).await, self.back(wrapped));
        let mut result = self.inner.unwrap_key(&wrapped, &seen).await;
        if self.is(Fault::IgnoresForeignKek) && result.is_err() && wrapped.kek != self.unknown {
            wrapped.kek = self.kek();
            result = self.inner.unwrap_key(&wrapped, &seen).await;
        }
        let key = result.map_err(|error| self.error(error))?;
        let mut bytes = *key.expose();
        if self.is(Fault::UnwrapsToAnotherKey) {
            bytes[31] ^= 1;
        }
        Ok(DataKey::copy_from(&bytes).unwrap())
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        let wrapped_under = self
            .memory
            .contexts
            .lock()
            .unwrap()
            .get(&wrapped.ciphertext)
            .cloned();
        let context = match wrapped_under {
            Some(right) if self.is(Fault::RewrapIgnoresTheContext) => right,
            _ => context.clone(),
        };
        let mut key = self.unwrap_key(wrapped, &context).await?;
        if self.is(Fault::RewrapMakesANewKey) {
            key = DataKey::generate().unwrap();
        }
        self.wrap_key(to, &key, &context).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        self.enter(KmsOperation::DescribeKek, kek).await?;
        let description = self.inner.describe_kek(kek).await;
        let mut description = description.map_err(|error| self.error(error))?;
        match self.fault {
            Fault::DescribesAsEnabled => description.state = KekState::Enabled,
            Fault::DescribesOtherMaterial => description.current_material = Some("another".to_owned()),
            Fault::DescribesOtherName => description.kek = KekId::new("another").unwrap(),
            _ => {}
        }
        Ok(description)
    }
}

#[async_trait]
impl KmsFixture for Broken {
    fn kms(&self) -> Arc<dyn KeyManagementService> {
        Arc::new(self.clone())
    }

    fn kek(&self) -> KekId {
        KekId::new(MemoryKms::DEFAULT_KEK).unwrap()
    }

    fn other_kek(&self) -> KekId {
        KekId::new("memory/other").unwrap()
    }

    fn unknown_kek(&self) -> KekId {
        self.unknown.clone()
    }

    fn alias(&self) -> Option<KekId> {
        Some(KekId::new("alias/app").unwrap())
    }

    async fn disable(&self, kek: &KekId) {
        self.inner.disable_kek(kek.as_str());
    }
}
