//! Validation: runs the whole chain with real calls, and leaves nothing behind.

use std::time::Duration;

use encx_core::context::{ContextError, EncryptionContext};
use encx_core::key::{DataKey, DataKeyId, KeyState, KeyUsage};
use encx_core::kms::KmsContext;
use encx_suite::KcXaes256Gcm;

use crate::clock::Clock;
use crate::crypto::Crypto;
use crate::error::Error;
use crate::kek::{KekRef, Keks};
#[cfg(feature = "serde")]
use crate::ops::json::Fields;

/// The outcome and latency of each step of the chain.
///
/// From [`Crypto::validate`](crate::Crypto::validate). Feature `serde` serialises it as
/// `{"overall_status":"PASS","tests":{"generate_data_key":"PASS",..},"latency_ms":{"generate_data_key":8.1,..}}`, with
/// `errors` and `skipped` if there are any. If the KEK rule names several KEKs for the context, a step has the worst
/// status and the greatest latency of all of them, and each KEK is listed beside it, such as
/// `wrap_key:default/alias/pii`.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::{Crypto, EncryptionContext};
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let context = EncryptionContext::from_pairs([("tenantId", "t-42"), ("purpose", "pii")])?;
/// let validation = crypto.validate(&context).await;
/// assert!(validation.passed(), "{validation:?}");
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Validation {
    /// The steps, in order.
    pub tests: Vec<ValidationTest>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ValidationTest {
    /// The step.
    pub step: ValidationStep,
    /// The KEK, for steps that need one.
    pub kek: Option<KekRef>,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took; zero if it was skipped.
    pub latency: Duration,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ValidationStep {
    /// The KMS makes a data key under the context.
    GenerateDataKey,
    /// The KMS unwraps it; the result is compared.
    UnwrapKey,
    /// The KMS wraps it.
    WrapKey,
    /// The KMS unwraps that wrap; the result is compared.
    UnwrapWrapped,
    /// The KMS must refuse to unwrap it under another context.
    WrongContext,
    /// Encrypts with it, in memory.
    Encrypt,
    /// Decrypts the ciphertext and compares, and must fail to decrypt it with other AAD.
    Decrypt,
    /// Reads the context's keys from the key store.
    KeyRetrieval,
    /// Looks up the context's active key in memory.
    CacheHit,
}

/// Runs all steps.
pub(super) async fn validate(crypto: &Crypto, context: &EncryptionContext) -> Validation {
    let cache = crypto.core().cache();
    let mut run = Run {
        clock: &*cache.clock,
        tests: Vec::new(),
    };
    let made = run.all_keks(&cache.keks, context).await;
    run.use_key(made).await;
    run.find_keys(crypto, context).await;
    Validation { tests: run.tests }
}

impl Validation {
    /// Tells whether no step failed. Skipped steps have not failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        let mut tests = self.tests.iter();
        !tests.any(|test| matches!(test.outcome, TestOutcome::Failed { .. }))
    }
}

impl ValidationStep {
    /// All steps, in order.
    pub const ALL: [Self; 9] = [
        Self::GenerateDataKey,
        Self::UnwrapKey,
        Self::WrapKey,
        Self::UnwrapWrapped,
        Self::WrongContext,
        Self::Encrypt,
        Self::Decrypt,
        Self::KeyRetrieval,
        Self::CacheHit,
    ];

    /// Returns the name used in reports, such as `generate_data_key`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "generate_data_key",
            Self::UnwrapKey => "unwrap_key",
            Self::WrapKey => "wrap_key",
            Self::UnwrapWrapped => "unwrap_wrapped",
            Self::WrongContext => "wrong_context",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::KeyRetrieval => "key_retrieval",
            Self::CacheHit => "cache_hit",
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TestOutcome {
    /// It failed.
    Failed {
        /// Why. Never a secret.
        error: String,
    },
    /// It succeeded.
    Passed,
    /// It could not run.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl TestOutcome {
    /// Returns `PASS`, `FAIL` or `SKIPPED`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "FAIL",
            Self::Passed => "PASS",
            Self::Skipped { .. } => "SKIPPED",
        }
    }

    /// Orders outcomes: the worst of several KEKs counts.
    #[cfg(feature = "serde")]
    fn severity(&self) -> u8 {
        match self {
            Self::Failed { .. } => 2,
            Self::Passed => 0,
            Self::Skipped { .. } => 1,
        }
    }
}

/// A running validation.
struct Run<'a> {
    clock: &'a dyn Clock,
    tests: Vec<ValidationTest>,
}

impl Run<'_> {
    /// Runs one step.
    async fn step<T>(
        &mut self,
        step: ValidationStep,
        kek: Option<&KekRef>,
        work: impl Future<Output = Result<T, String>>,
    ) -> Option<T> {
        let began = self.clock.elapsed();
        let result = work.await;
        let latency = self.clock.elapsed().saturating_sub(began);
        let (outcome, value) = match result {
            Ok(value) => (TestOutcome::Passed, Some(value)),
            Err(error) => (TestOutcome::Failed { error }, None),
        };
        self.tests.push(ValidationTest {
            step,
            kek: kek.cloned(),
            outcome,
            latency,
        });
        value
    }

    fn skip(&mut self, step: ValidationStep, kek: Option<&KekRef>, reason: &str) {
        self.tests.push(ValidationTest {
            step,
            kek: kek.cloned(),
            outcome: TestOutcome::Skipped {
                reason: reason.to_owned(),
            },
            latency: Duration::ZERO,
        });
    }

    /// Tries each KEK that wraps for the context, and returns the first data key made.
    async fn all_keks(&mut self, keks: &Keks, context: &EncryptionContext) -> Option<DataKey> {
        let choice = match keks.choose(context) {
            Ok(choice) => choice,
            Err(error) => {
                let refused = async { Err::<(), _>(text(&error)) };
                self.step(ValidationStep::GenerateDataKey, None, refused).await;
                self.skip_after_generate(None);
                return None;
            }
        };
        let mut made = None;
        for kek in choice.wraps() {
            let key = self.one_kek(keks, kek, context).await;
            made = made.or(key);
        }
        made
    }

    async fn one_kek(&mut self, keks: &Keks, kek: &KekRef, context: &EncryptionContext) -> Option<DataKey> {
        use ValidationStep::{GenerateDataKey, UnwrapKey, UnwrapWrapped, WrapKey, WrongContext};
        let clock = self.clock;
        let generated = async {
            let id =
                DataKeyId::generate(clock.unix_millis(), None).map_err(|error| text(&Error::from(error)))?;
            let pairs = KmsContext::new(context, KeyUsage::Data, id);
            let made = keks.generate_under(kek, &pairs).await;
            Ok((id, pairs, made.map_err(|error| text(&error))?))
        };
        let Some((id, pairs, made)) = self.step(GenerateDataKey, Some(kek), generated).await else {
            self.skip_after_generate(Some(kek));
            return None;
        };
        let same = |unwrapped: Result<DataKey, Error>| match unwrapped {
            Ok(key) if key.check(id) == made.key.check(id) => Ok(()),
            Ok(_) => Err("the KMS unwrapped a different data key than it generated".to_owned()),
            Err(error) => Err(text(&error)),
        };
        let unwrapped = async { same(keks.unwrap_by(kek, &made.wrapped, &pairs).await) };
        let unwraps = self.step(UnwrapKey, Some(kek), unwrapped).await.is_some();
        let wrapped = async {
            let wrapped = keks.wrap_under(kek, &made.key, &pairs).await;
            wrapped.map_err(|error| text(&error))
        };
        match self.step(WrapKey, Some(kek), wrapped).await {
            Some(wrapped) => {
                let unwrapped = async { same(keks.unwrap_by(kek, &wrapped, &pairs).await) };
                self.step(UnwrapWrapped, Some(kek), unwrapped).await;
            }
            None => self.skip(UnwrapWrapped, Some(kek), "the KMS did not wrap the data key"),
        }
        if !unwraps {
            // A KMS that refuses this process every unwrap would appear to check the context.
            self.skip(
                WrongContext,
                Some(kek),
                "the KMS did not unwrap the data key under its own context either",
            );
            return Some(made.key);
        }
        let refused = async {
            let other = another(context).map_err(|error| error.to_string())?;
            let wrong = KmsContext::new(&other, KeyUsage::Data, id);
            match keks.refuses(kek, &made.wrapped, &wrong).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(
                    "the KMS unwrapped a data key under a different encryption context than it was wrapped under"
                        .to_owned(),
                ),
                Err(error) => Err(text(&error)),
            }
        };
        self.step(WrongContext, Some(kek), refused).await;
        Some(made.key)
    }

    fn skip_after_generate(&mut self, kek: Option<&KekRef>) {
        use ValidationStep::{UnwrapKey, UnwrapWrapped, WrapKey, WrongContext};
        for step in [UnwrapKey, WrapKey, UnwrapWrapped, WrongContext] {
            self.skip(step, kek, NO_KEY);
        }
    }

    /// Encrypts and decrypts with a data key, in memory.
    async fn use_key(&mut self, key: Option<DataKey>) {
        const AAD: &[u8] = b"here";
        const TEXT: &[u8] = b"encx validates";
        let Some(cipher) = key.as_ref().map(KcXaes256Gcm::new) else {
            self.skip(ValidationStep::Encrypt, None, NO_KEY);
            self.skip(ValidationStep::Decrypt, None, NO_KEY);
            return;
        };
        let sealed = async { cipher.seal(AAD, TEXT).map_err(|error| error.to_string()) };
        let Some(sealed) = self.step(ValidationStep::Encrypt, None, sealed).await else {
            self.skip(ValidationStep::Decrypt, None, "nothing was encrypted");
            return;
        };
        let opened = async {
            match (cipher.open(AAD, &sealed), cipher.open(b"elsewhere", &sealed)) {
                (Ok(text), Err(_)) if *text == TEXT => Ok(()),
                (Ok(_), Err(_)) => Err("the decrypted value differs from the encrypted one".to_owned()),
                (Ok(_), Ok(_)) => Err("a ciphertext was decrypted with different AAD".to_owned()),
                (Err(error), _) => Err(error.to_string()),
            }
        };
        self.step(ValidationStep::Decrypt, None, opened).await;
    }

    /// Reads the context's keys, and looks up the active one in memory.
    async fn find_keys(&mut self, crypto: &Crypto, context: &EncryptionContext) {
        let core = crypto.core();
        let cache = core.cache();
        let read = async {
            let versions = cache.read_versions(context, KeyUsage::Data).await;
            versions.map_err(|error| text(&error))
        };
        let Some(versions) = self.step(ValidationStep::KeyRetrieval, None, read).await else {
            self.skip(
                ValidationStep::CacheHit,
                None,
                "the context's keys could not be read",
            );
            return;
        };
        if !versions.iter().any(|version| version.state == KeyState::Active) {
            self.skip(ValidationStep::CacheHit, None, "the context has no active key");
            return;
        }
        let entry = crypto.entry(context);
        // The first lookup may load it, and is not measured.
        let loaded = match core.is_ready(&entry) {
            true => Ok(()),
            false => cache.existing_active(&entry).await.map(drop),
        };
        let found = async {
            loaded.map_err(|error| text(&error))?;
            let found = core.is_ready(&entry).then_some(());
            found.ok_or_else(|| "the context's active key was loaded but is not in memory".to_owned())
        };
        self.step(ValidationStep::CacheHit, None, found).await;
    }
}

const NO_KEY: &str = "there is no data key";

/// Formats an error with its sources. Errors of encx and its providers carry no secrets.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Changes one value of a context.
fn another(context: &EncryptionContext) -> Result<EncryptionContext, ContextError> {
    let first = context.pairs().next().map(|(key, _)| key.to_owned());
    let pairs = context.pairs().map(|(key, value)| {
        let is_first = first.as_deref() == Some(key);
        let other = if value == OTHER {
            "encx-validates-too"
        } else {
            OTHER
        };
        (key, if is_first { other } else { value })
    });
    EncryptionContext::from_pairs(pairs)
}

/// A value that no context has.
const OTHER: &str = "encx-validates";

#[cfg(feature = "serde")]
impl serde::Serialize for Validation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::collections::HashSet;

        use serde::ser::SerializeStruct;

        let keks: HashSet<_> = self.tests.iter().filter_map(|test| test.kek.as_ref()).collect();
        let several = keks.len() > 1;
        let (mut tests, mut latencies) = (Fields::new(), Fields::new());
        let (mut errors, mut skipped) = (Fields::new(), Fields::new());
        for step in ValidationStep::ALL {
            let of_step: Vec<_> = self.tests.iter().filter(|test| test.step == step).collect();
            let named = of_step.iter().filter_map(|test| Some((test, test.kek.as_ref()?)));
            let mut all = vec![(step.name().to_owned(), of_step.clone())];
            if several {
                let name = |kek: &KekRef| format!("{}:{}/{}", step.name(), kek.kms, kek.kek);
                all.extend(named.map(|(test, kek)| (name(kek), vec![*test])));
            }
            for (name, of) in all {
                let Some(worst) = of.iter().max_by_key(|test| test.outcome.severity()) else {
                    continue;
                };
                tests.push(&name, worst.outcome.name());
                match &worst.outcome {
                    TestOutcome::Failed { error } => errors.push(&name, error.clone()),
                    TestOutcome::Passed => {}
                    TestOutcome::Skipped { reason } => skipped.push(&name, reason.clone()),
                }
                let ran = of
                    .iter()
                    .filter(|test| !matches!(test.outcome, TestOutcome::Skipped { .. }));
                if let Some(slowest) = ran.map(|test| test.latency).max() {
                    latencies.push(&name, slowest.as_secs_f64() * 1000.0);
                }
            }
        }
        let mut object = serializer.serialize_struct("Validation", 5)?;
        let overall = if self.passed() { "PASS" } else { "FAIL" };
        object.serialize_field("overall_status", overall)?;
        object.serialize_field("tests", &tests)?;
        object.serialize_field("latency_ms", &latencies)?;
        if !errors.is_empty() {
            object.serialize_field("errors", &errors)?;
        }
        if !skipped.is_empty() {
            object.serialize_field("skipped", &skipped)?;
        }
        object.end()
    }
}
