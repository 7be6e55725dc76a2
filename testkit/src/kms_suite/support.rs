//! Shared helpers of the KMS suite's cases.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKey, DataKeyId, KekId, KeyUsage, WrappedKey};
use encx_core::kms::{KmsContext, KmsError, KmsErrorKind};
use tokio::task::JoinSet;

use super::fixture::KmsFixture;

/// The user's pairs of the context under which most cases wrap.
pub(super) const PAIRS: &[(&str, &str)] = &[("purpose", "pii"), ("tenantId", "t-42")];

/// Generates a data key under the fixture's first KEK and checks what every wrap must satisfy.
pub(super) async fn generate(fixture: &dyn KmsFixture, context: &KmsContext) -> (DataKey, WrappedKey) {
    let kek = fixture.kek();
    let made = ok(fixture.kms().generate_data_key(&kek, context).await);
    check_wrap(&made.wrapped, &kek);
    (made.key, made.wrapped)
}

pub(super) fn check_wrap(wrapped: &WrappedKey, kek: &KekId) {
    assert_eq!(&wrapped.kek, kek, "a wrap names the KEK by its lasting id");
    let len = wrapped.ciphertext.len();
    assert!(
        (1..=WrappedKey::MAX_LEN).contains(&len),
        "a wrap has 1 to 8192 bytes, not {len}"
    );
    let material = wrapped.kek_material.as_deref().unwrap_or_default();
    assert!(material.len() <= 256, "a material's name has at most 256 bytes");
}

pub(super) fn id() -> DataKeyId {
    ok(DataKeyId::generate(1_767_225_600_000, None))
}

pub(super) fn context_of(pairs: &[(&str, &str)], usage: KeyUsage, id: DataKeyId) -> KmsContext {
    let pairs = pairs.iter().copied();
    KmsContext::new(&ok(EncryptionContext::from_pairs(pairs)), usage, id)
}

pub(super) fn context() -> KmsContext {
    context_of(PAIRS, KeyUsage::Data, id())
}

pub(super) fn ok<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("this must succeed, but failed with {error:?}"))
}

pub(super) fn fails<T>(result: Result<T, KmsError>, kind: KmsErrorKind, what: &str) -> KmsError {
    match result {
        Ok(_) => panic!("{what}: this must fail with {kind:?}, but succeeded"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{what}: wrong kind of error: {error}");
            error
        }
    }
}

/// Wraps under one user context and expects unwrapping under each of the others to fail, with the same id and usage.
pub(super) async fn only_unwraps_under(
    fixture: &dyn KmsFixture,
    right: &[(&str, &str)],
    wrong: &[&[(&str, &str)]],
) {
    let (kms, id) = (fixture.kms(), id());
    let (key, wrapped) = generate(fixture, &context_of(right, KeyUsage::Data, id)).await;
    for wrong in wrong {
        let context = context_of(wrong, KeyUsage::Data, id);
        let result = kms.unwrap_key(&wrapped, &context).await;
        fails(
            result,
            KmsErrorKind::Integrity,
            &format!("{right:?} opened as {wrong:?}"),
        );
    }
    let again = ok(kms
        .unwrap_key(&wrapped, &context_of(right, KeyUsage::Data, id))
        .await);
    assert_eq!(again.expose(), key.expose());
}

/// Expects each of these changed wraps to fail. Runs a few at a time, since a wrap may have thousands of bits.
pub(super) async fn none_unwraps(
    fixture: &dyn KmsFixture,
    context: &KmsContext,
    wraps: Vec<(String, WrappedKey)>,
) {
    let mut running = JoinSet::new();
    for (what, wrapped) in wraps {
        if running.len() >= 16 {
            running.join_next().await.into_iter().for_each(ok);
        }
        let (kms, context) = (fixture.kms(), context.clone());
        running.spawn(async move {
            let result = kms.unwrap_key(&wrapped, &context).await;
            fails(result, KmsErrorKind::Integrity, &what);
        });
    }
    running.join_all().await;
}

pub(super) fn with_ciphertext(wrapped: &WrappedKey, ciphertext: Vec<u8>) -> WrappedKey {
    let mut changed = wrapped.clone();
    changed.ciphertext = ciphertext;
    changed
}

/// Expects every wrap under this KEK to fail with an error that names it.
pub(super) async fn every_use_fails(
    fixture: &dyn KmsFixture,
    kek: &KekId,
    key: &DataKey,
    context: &KmsContext,
    kind: KmsErrorKind,
) {
    let kms = fixture.kms();
    let generate = fails(kms.generate_data_key(kek, context).await, kind, "generate");
    let wrap = fails(kms.wrap_key(kek, key, context).await, kind, "wrap");
    for error in [generate, wrap] {
        assert_eq!(error.kek(), kek, "the error names another KEK");
        assert!(!error.is_retryable(), "waiting does not help");
    }
}

/// Prints the first bytes in every form that `Debug` may use, without white space.
pub(super) fn printed_forms(bytes: &[u8]) -> [String; 6] {
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let join = |form: fn(&u8) -> String, separator: &str| {
        let forms: Vec<_> = bytes[..6].iter().map(form).collect();
        forms.join(separator)
    };
    let sextets = bytes[..6].chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(BASE64[bits >> shift & 63]))
    });
    let base64: String = sextets.collect();
    [
        join(|byte| format!("{byte:02x}"), ""),
        join(|byte| format!("{byte:02X}"), ""),
        join(|byte| format!("0x{byte:02x}"), ","),
        join(|byte| format!("{byte}"), ","),
        base64.replace('+', "-").replace('/', "_"),
        base64,
    ]
}

pub(super) async fn concurrent_calls(fixture: &dyn KmsFixture, tasks: usize) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (kms, kek, other) = (fixture.kms(), fixture.kek(), fixture.other_kek());
        running.spawn(async move {
            let tenant = task.to_string();
            let context = context_of(&[("tenantId", &tenant)], KeyUsage::Data, id());
            let made = ok(kms.generate_data_key(&kek, &context).await);
            let moved = ok(kms.rewrap_key(&made.wrapped, &context, &other).await);
            for wrapped in [made.wrapped, moved] {
                assert_eq!(
                    ok(kms.unwrap_key(&wrapped, &context).await).expose(),
                    made.key.expose()
                );
            }
        });
    }
    running
}

/// Cancels one call of every kind after `polls` polls.
pub(super) async fn cancel_each_call(fixture: &dyn KmsFixture, polls: usize) {
    let (kms, kek, context) = (fixture.kms(), fixture.kek(), context());
    let (key, wrapped) = generate(fixture, &context).await;
    poll_times(polls, kms.generate_data_key(&kek, &context)).await;
    poll_times(polls, kms.wrap_key(&kek, &key, &context)).await;
    poll_times(polls, kms.unwrap_key(&wrapped, &context)).await;
    poll_times(polls, kms.rewrap_key(&wrapped, &context, &fixture.other_kek())).await;
    poll_times(polls, kms.describe_kek(&kek)).await;
}

/// Starts a call and drops it after `polls` polls, unless it ends before.
pub(super) async fn poll_times<F: Future>(polls: usize, call: F) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let ready = poll_fn(|task| Poll::Ready(call.as_mut().poll(task).is_ready())).await;
        if ready {
            return;
        }
        tokio::task::yield_now().await;
    }
}
