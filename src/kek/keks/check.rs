//! Asks the KMSs about the KEKs that the rule names, before they are needed.

use std::sync::Arc;
use std::time::Duration;

use encx_core::kms::{KekDescription, KekState, KmsError, KmsErrorKind, KmsOperation};
use tokio::task::JoinSet;

use super::Keks;
use crate::error::Error;
use crate::kek::{KekChoice, KekRef};

/// How long a KMS has to describe a KEK. Limits how long a KMS that does not answer delays a start.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the KMSs reported about the KEKs that the rule names.
pub(crate) struct Named {
    /// The KEKs by their permanent names, as far as the KMSs reported them.
    pub(crate) keks: Vec<KekRef>,
    /// Whether these are all that the rule can name: it has no closure, and all KMSs answered for all KEKs.
    pub(crate) complete: bool,
}

impl Keks {
    /// Describes each KEK that the rule names: the default, those of pairs, and retired ones. A closure's KEKs are not
    /// known in advance.
    ///
    /// A KMS that does not answer is not an error, but a warn event, unless all are `required`. The same holds for a retired KEK that the KMS
    /// refuses: it wraps no new key, and data under other KEKs can still be read.
    ///
    /// # Errors
    ///
    /// [`Error::Kms`] if the KMS refuses a KEK that wraps, or describes one that cannot wrap, or does not answer and is
    /// required.
    pub(crate) async fn check(self: &Arc<Self>, required: bool) -> Result<Named, Error> {
        let mut calls = JoinSet::new();
        let wrapping = self.rule.choices().flat_map(KekChoice::wraps);
        let unwrapping = self.rule.choices().flat_map(KekChoice::allowed);
        let retired = unwrapping.chain(&self.rule.retired).map(|kek| (kek, false));
        // A KEK that wraps anywhere is checked as one that wraps.
        let all = wrapping.map(|kek| (kek, true)).chain(retired);
        let mut asked: Vec<&KekRef> = Vec::new();
        for (kek, wraps) in all {
            if asked.contains(&kek) {
                continue;
            }
            asked.push(kek);
            let (keks, kek) = (Arc::clone(self), kek.clone());
            calls.spawn(async move {
                let described = keks.describe(&kek, PATIENCE.min(keks.timeout)).await;
                (kek, wraps, described)
            });
        }
        let mut named = Named {
            keks: Vec::new(),
            complete: self.rule.by_closure.is_none(),
        };
        while let Some(call) = calls.join_next().await {
            let (kek, wraps, described) = call.map_err(|_| Error::Interrupted)?;
            let error = match described.and_then(|described| self.usable(&kek, described)) {
                Ok(name) => {
                    named.keks.push(name);
                    continue;
                }
                Err(error) => error,
            };
            named.complete = false;
            match (is_refusal(&error), wraps) {
                (true, true) => return Err(error),
                (false, true) if required && error.is_retryable() => return Err(error),
                (true, false) => {
                    let meaning = what_it_means(&error);
                    tracing::warn!(
                        target: "encx::kms", kms = %kek.kms, kek = %kek.kek, %error,
                        "a retired KEK is refused: {meaning}"
                    );
                }
                (false, _) => {
                    let meaning = what_it_means(&error);
                    tracing::warn!(
                        target: "encx::kms", kms = %kek.kms, kek = %kek.kek, %error,
                        "this KEK could not be described while this process starts: {meaning}"
                    );
                }
            }
        }
        // These calls precede the `Crypto`'s own, which are counted from now on.
        self.calls.store(0, std::sync::atomic::Ordering::Relaxed);
        Ok(named)
    }

    /// Returns the permanent name of a KEK that can wrap.
    fn usable(&self, kek: &KekRef, described: KekDescription) -> Result<KekRef, Error> {
        let advice = match described.state {
            KekState::Enabled => {
                self.names.learn(kek, &described.kek, self.clock.elapsed());
                return Ok(KekRef::new(kek.kms.clone(), described.kek));
            }
            KekState::Disabled => "it is disabled: enable it, or name another KEK",
            KekState::PendingDeletion => "it is to be deleted: cancel that, or name another KEK",
            _ => "the KMS says that it cannot be used at present",
        };
        let kind = match described.state {
            KekState::Unavailable => KmsErrorKind::Unavailable,
            _ => KmsErrorKind::KeyState,
        };
        let provider = self.kms.get(&kek.kms).map_or("", |kms| kms.service.provider());
        let error = KmsError::new(kind, provider, KmsOperation::WrapKey, &kek.kek);
        Err(error.with_advice(advice).into())
    }
}

/// Tells whether a KMS answered that a KEK cannot be used as configured. All other failures may pass, or come from a
/// provider that does not describe KEKs.
fn is_refusal(error: &Error) -> bool {
    use KmsErrorKind::{AccessDenied, Configuration, Integrity, KeyState, NotFound};
    match error {
        Error::Kms(error) => {
            matches!(
                error.kind(),
                AccessDenied | Configuration | Integrity | KeyState | NotFound
            )
        }
        _ => false,
    }
}

const UNKNOWN: &str = "its first use shows whether it can be used";

/// Returns the consequence of a failure to describe a KEK.
fn what_it_means(error: &Error) -> &'static str {
    let kind = match error {
        Error::Kms(error) => error.kind(),
        Error::KmsCircuitOpen { .. } | Error::TimedOut { .. } => KmsErrorKind::Unavailable,
        _ => return UNKNOWN,
    };
    match kind {
        KmsErrorKind::AccessDenied => {
            "this process may not describe it; unless it may still unwrap with it, data keys that only it wraps cannot be read"
        }
        KmsErrorKind::Configuration
        | KmsErrorKind::Integrity
        | KmsErrorKind::KeyState
        | KmsErrorKind::NotFound => "data keys that only it wraps cannot be read",
        KmsErrorKind::LimitExceeded => {
            "a quota of its KMS is used up; until it is raised, no data key may be made or unwrapped with it"
        }
        KmsErrorKind::Throttled => {
            "its KMS gets too many requests; until there are fewer, data keys are made and unwrapped with it late or not at all"
        }
        KmsErrorKind::Unavailable => {
            "its KMS does not answer; until it does, no data key can be made or unwrapped with it"
        }
        KmsErrorKind::Unsupported => {
            "its provider describes no KEKs; the first data key made or unwrapped with it shows whether it can be used"
        }
        _ => UNKNOWN,
    }
}
