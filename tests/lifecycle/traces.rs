//! Unwraps and refusals are traced; secrets are not.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use encx::keys::{KeyState, Maintenance};
use encx::kms::{DataKey, KmsErrorKind};
use encx::suite::Suite;
use encx::{Crypto, Error};
use encx_test_support::{FaultHarness, HOUR, MINUTE, SSN, context, open, settle, with_unknown_key};
use tracing::dispatcher::DefaultGuard;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::{drive, other_process};

/// Captures all traces as text.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

const PLAINTEXT: &str = "a social security number";

/// Causes every trace about keys once.
async fn live_through(harness: &FaultHarness) {
    let process = harness.process().await;
    let context = context("a");
    let manager = process.key_manager();
    let key = DataKey::copy_from(&key_bytes()).unwrap();
    manager.import(&context, key).await.unwrap();
    let sealed = process.encrypt(&context, PLAINTEXT, SSN.row(1)).await.unwrap();
    // Unwrapped by another process, at the second attempt.
    let other = other_process(harness).await;
    harness.kms.fail_next(1, KmsErrorKind::AccessDenied);
    let refused = open(&other, &context, &sealed).await;
    assert!(matches!(refused, Err(Error::Kms(_))), "{refused:?}");
    open(&other, &context, &sealed).await.unwrap();
    let refused = other.decrypt(&context, &sealed, SSN.row(2)).await;
    assert!(matches!(refused, Err(Error::Decrypt { .. })), "{refused:?}");
    let refused = open(&other, &context, &with_unknown_key(&sealed)).await;
    assert!(matches!(refused, Err(Error::UnknownKey { .. })), "{refused:?}");
    let uncommitted = Crypto::builder(harness.kms.clone(), harness.rows.clone()).clock(harness.clock.clone());
    let uncommitted = uncommitted
        .accept_uncommitted()
        .encrypt_with(Suite::Xaes256Gcm)
        .build()
        .await
        .unwrap();
    let of_suite_2 = uncommitted
        .encrypt(&context, PLAINTEXT, SSN.row(1))
        .await
        .unwrap();
    let refused = open(&other, &context, &of_suite_2).await;
    assert!(
        matches!(refused, Err(Error::SuiteNotAccepted { .. })),
        "{refused:?}"
    );
    // A KEK that the rule does not allow.
    let strict = Crypto::builder(harness.kms.clone().with_kek("memory/other"), harness.rows.clone())
        .clock(harness.clock.clone())
        .connect_lazily()
        .kek("memory/other");
    let refused = open(&strict.build().await.unwrap(), &context, &sealed).await;
    assert!(matches!(refused, Err(Error::KekNotAllowed { .. })), "{refused:?}");
    // Scheduled rotation while a process does not answer.
    harness.clock.advance(2 * HOUR);
    settle().await;
    harness.rows.set_unavailable(true);
    harness.pass(MINUTE).await;
    harness.rows.set_unavailable(false);
    harness.pass(MINUTE).await;
    let task = Maintenance::new(manager.clone())
        .rotate_every(HOUR)
        .spawn()
        .unwrap();
    harness.pass(HOUR / 3).await;
    task.stop().await;
    // Suspended, and then missing.
    manager
        .set_state(&context, sealed.key_id(), KeyState::Suspended)
        .await
        .unwrap();
    let refused = open(&process, &context, &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    let receipt = drive(harness, MINUTE / 600, manager.shred(&context, MINUTE))
        .await
        .unwrap();
    drop(receipt);
    let refused = process.encrypt(&context, PLAINTEXT, SSN.row(1)).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
}

fn key_bytes() -> [u8; 32] {
    std::array::from_fn(|at| 0xA0 ^ u8::try_from(at * 7).unwrap())
}

/// Captures this thread's events while the returned guard lives.
pub(super) fn traced(log: &Log) -> (DefaultGuard, Dispatch) {
    // Two: `tracing` assumes that a single dispatcher applies to all threads, and other tests run in threads without
    // one.
    let second = Dispatch::new(Log::default());
    let guard = tracing::dispatcher::set_default(&Dispatch::new(log.clone()));
    (guard, second)
}

#[tokio::test]
async fn everything_is_traced_and_no_secret_is() {
    let log = Log::default();
    let guard = traced(&log);
    live_through(&FaultHarness::with_hints().with_registry()).await;
    drop(guard);
    let lines = log.0.lock().unwrap().clone();
    let all = lines.join("\n");
    for expected in [
        ["INFO encx::unwrap", "outcome=\"ok\""],
        ["WARN encx::unwrap", "outcome=\"failed\""],
        [
            "encx::unwrap",
            "provider=\"memory\" kms=default kek=memory/default duration_us=",
        ],
        ["encx::unwrap", "usage=\"data\""],
        ["DEBUG encx::refused", "ciphertext refused"],
        ["INFO encx::refused", "the state of the key forbids its use"],
        ["INFO encx::refused", "no such key in this context"],
        ["INFO encx::refused", "there is no key to encrypt with"],
        [
            "WARN encx::refused",
            "refusal=\"authentication\" table=\"users\" column=\"ssn\" row=\"2\" key=",
        ],
        ["WARN encx::refused", "refusal=\"unknown_key\" table=\"users\""],
        ["WARN encx::refused", "refusal=\"suite\" table=\"users\""],
        ["WARN encx::refused", "refusal=\"key_row\" table=\"users\""],
        ["WARN encx::refused", "refusal=\"key_state\" table=\"users\""],
        ["WARN encx::refused", "KEK not allowed"],
        ["INFO encx::maintenance", "promoted=1"],
        ["WARN encx::processes", "registering this process"],
        ["WARN encx::store", "polling the key store failed"],
    ] {
        let is_there = |line: &String| expected.iter().all(|part| line.contains(part));
        assert!(lines.iter().any(is_there), "{expected:?} is not in\n{all}");
    }
    let key = key_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // In every form of a derive or a format, whole or in part.
    for part in key.chunks(8) {
        let decimal = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        for secret in [hex(part), hex(part).to_uppercase(), decimal] {
            assert!(!all.contains(&secret), "{secret} is in\n{all}");
        }
    }
    assert!(
        !all.contains(PLAINTEXT) && !all.contains(&hex(PLAINTEXT.as_bytes())),
        "{all}"
    );
}
