//! Validation runs the whole chain and leaves nothing behind.

use async_trait::async_trait;
use encx::EncryptionContext;
use encx::kms::{
    DataKey, GeneratedDataKey, KekChoice, KekDescription, KekId, KekRef, KeyManagementService, KmsContext,
    KmsError, KmsErrorKind, KmsOperation, WrappedKey,
};
use encx::ops::{HealthStatus, TestOutcome, Validation, ValidationStep};
use encx_test_support::{FaultHarness, context, open, seal, within};
use encx_testkit::MemoryKms;

use crate::json;

fn outcomes(validation: &Validation) -> Vec<(ValidationStep, &'static str)> {
    let tests = validation.tests.iter();
    tests.map(|test| (test.step, test.outcome.name())).collect()
}

fn outcome_of(validation: &Validation, step: ValidationStep) -> &TestOutcome {
    &validation
        .tests
        .iter()
        .find(|test| test.step == step)
        .unwrap()
        .outcome
}

#[tokio::test]
async fn all_steps_pass_where_all_works() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let mine = context("mine");
    seal(&process, &mine).await;
    let (rows, writes) = (harness.rows.records().len(), harness.rows.writes());
    let validation = within(process.validate(&mine)).await;
    let expected: Vec<_> = ValidationStep::ALL
        .into_iter()
        .map(|step| (step, "PASS"))
        .collect();
    assert_eq!(outcomes(&validation), expected);
    assert!(validation.passed());
    // Nothing is left behind.
    assert_eq!(
        (harness.rows.records().len(), harness.rows.writes()),
        (rows, writes)
    );
    assert_eq!(harness.rows.audit_log().len(), 1);
    let written = json(&validation);
    assert_eq!(written["overall_status"], "PASS");
    let tests = written["tests"].as_object().unwrap();
    assert_eq!(tests.len(), 9);
    for name in [
        "generate_data_key",
        "encrypt",
        "decrypt",
        "key_retrieval",
        "cache_hit",
    ] {
        assert_eq!(tests[name], "PASS");
        assert!(written["latency_ms"][name].is_f64());
    }
    assert!(
        written.get("errors").is_none() && written.get("skipped").is_none(),
        "{written}"
    );
    // The expected refusal is not a failure of the KMS.
    let stats = process.stats();
    assert_eq!(stats.kms[0].of(KmsOperation::UnwrapKey).failures(), 0);
    assert_eq!(process.health().status, HealthStatus::Up);
}

#[tokio::test]
async fn a_context_without_keys_has_no_cache_hit_and_gets_no_key() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let validation = within(process.validate(&context("new"))).await;
    assert!(validation.passed());
    let cache_hit = outcome_of(&validation, ValidationStep::CacheHit);
    let TestOutcome::Skipped { reason } = cache_hit else {
        panic!("{cache_hit:?}")
    };
    assert_eq!(reason, "the context has no active key");
    assert!(harness.rows.records().is_empty());
    let written = json(&validation);
    assert_eq!(written["tests"]["cache_hit"], "SKIPPED");
    assert_eq!(written["skipped"]["cache_hit"], "the context has no active key");
    assert_eq!(written["latency_ms"].get("cache_hit"), None);
}

#[tokio::test]
async fn a_kms_that_is_down_fails_its_steps_and_hides_no_other() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let mine = context("mine");
    seal(&process, &mine).await;
    harness.kms.set_unavailable(true);
    let validation = within(process.validate(&mine)).await;
    assert!(!validation.passed());
    let written = json(&validation);
    assert_eq!(written["overall_status"], "FAIL");
    assert_eq!(written["tests"]["generate_data_key"], "FAIL");
    let error = written["errors"]["generate_data_key"].as_str().unwrap();
    assert!(
        error.contains("could not generate a data key under KEK `memory/default`"),
        "{error}"
    );
    for skipped in [
        "unwrap_key",
        "wrap_key",
        "unwrap_wrapped",
        "wrong_context",
        "encrypt",
        "decrypt",
    ] {
        assert_eq!(written["tests"][skipped], "SKIPPED");
    }
    assert_eq!(written["tests"]["key_retrieval"], "PASS");
    assert_eq!(written["tests"]["cache_hit"], "PASS");
    // An unavailable key store is reported separately.
    harness.kms.set_unavailable(false);
    harness.rows.set_unavailable(true);
    let written = json(&within(process.validate(&mine)).await);
    assert_eq!(written["tests"]["generate_data_key"], "PASS");
    assert_eq!(written["tests"]["key_retrieval"], "FAIL");
    assert_eq!(written["tests"]["cache_hit"], "SKIPPED");
}

#[tokio::test]
async fn each_kek_of_the_rule_is_tried_and_the_worst_counts() {
    let harness = FaultHarness::new();
    let second = MemoryKms::new().with_kek("kek-2");
    let builder = harness
        .builder()
        .kms_named("second", second.clone())
        .kek_rule(|_| {
            let kek = |kms, kek| KekRef::try_from((kms, kek)).unwrap();
            Some(KekChoice::new(kek("default", MemoryKms::DEFAULT_KEK)).also_wrap(kek("second", "kek-2")))
        });
    let process = harness.built(builder).await;
    second.set_kek_fault("kek-2", Some(KmsErrorKind::AccessDenied));
    let written = json(&within(process.validate(&context("a"))).await);
    assert_eq!(written["tests"]["generate_data_key"], "FAIL");
    assert_eq!(
        written["tests"]["generate_data_key:default/memory/default"],
        "PASS"
    );
    assert_eq!(written["tests"]["generate_data_key:second/kek-2"], "FAIL");
    assert_eq!(written["tests"]["wrap_key"], "SKIPPED");
    assert_eq!(written["tests"]["encrypt"], "PASS");
    assert!(harness.rows.records().is_empty());
}

#[tokio::test]
async fn without_a_kek_nothing_is_called() {
    let harness = FaultHarness::new();
    let builder = encx::Crypto::builder(MemoryKms::new().without_default_kek(), harness.store.clone())
        .kek_rule(|_| None)
        .clock(harness.clock.clone())
        .connect_lazily();
    let process = builder.build().await.unwrap();
    let context = EncryptionContext::from_pairs([("purpose", "pii")]).unwrap();
    let validation = within(process.validate(&context)).await;
    let generated = outcome_of(&validation, ValidationStep::GenerateDataKey);
    let TestOutcome::Failed { error } = generated else {
        panic!("{generated:?}")
    };
    assert!(error.starts_with("no KEK is configured"), "{error}");
    assert_eq!(process.stats().kms_calls, 0);
}

/// A KMS whose policy lets this process create and wrap keys, but not unwrap them.
#[derive(Debug)]
struct NoDecrypt(MemoryKms);

#[async_trait]
impl KeyManagementService for NoDecrypt {
    fn provider(&self) -> &'static str {
        self.0.provider()
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.0.default_kek()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.0.generate_data_key(kek, context).await
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        self.0.wrap_key(kek, key, context).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, _: &KmsContext) -> Result<DataKey, KmsError> {
        let kind = KmsErrorKind::AccessDenied;
        Err(KmsError::new(
            kind,
            self.provider(),
            KmsOperation::UnwrapKey,
            &wrapped.kek,
        ))
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        self.0.rewrap_key(wrapped, context, to).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        self.0.describe_kek(kek).await
    }
}

#[tokio::test]
async fn a_kms_that_refuses_every_unwrap_is_not_said_to_check_the_context() {
    let harness = FaultHarness::new();
    let kms = NoDecrypt(MemoryKms::new());
    let builder = encx::Crypto::builder(kms, harness.store.clone())
        .clock(harness.clock.clone())
        .connect_lazily();
    let process = harness.built(builder).await;
    let validation = within(process.validate(&context("a"))).await;
    assert_eq!(outcome_of(&validation, ValidationStep::UnwrapKey).name(), "FAIL");
    let wrong_context = outcome_of(&validation, ValidationStep::WrongContext);
    assert_eq!(wrong_context.name(), "SKIPPED");
}

#[tokio::test]
async fn a_key_that_another_process_made_a_moment_ago_is_found_and_none_is_made() {
    let harness = FaultHarness::new();
    let (process, other) = (harness.process().await, harness.process().await);
    let mine = context("mine");
    // This process learns that there is no key.
    let of_another = seal(&other, &context("another")).await;
    open(&process, &mine, &of_another).await.unwrap_err();
    seal(&other, &mine).await;
    let validation = within(process.validate(&mine)).await;
    assert!(validation.passed(), "{validation:?}");
    let made = process.stats().kms[0].of(KmsOperation::GenerateDataKey).calls();
    assert_eq!(made, 1, "the step that makes one, and no other");
}
