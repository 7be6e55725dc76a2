//! What an error of the KMS means for a key in memory.

use encx_core::kms::KmsErrorKind;

use crate::error::Error;

/// What the failure to unwrap a key that is in memory means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The KMS was not heard about this key: it lives until its time is over.
    Other,
    /// The KMS answered, and said nothing against this key: it lives until its time is over and no longer.
    Quota,
    /// The key may not be used any more.
    Refused,
    /// The KMS was asked and did not answer.
    Unanswered,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            error if error.is_unavailability() => Self::Unanswered,
            Error::Kms(error) if error.kind() == KmsErrorKind::LimitExceeded => Self::Quota,
            // What else may succeed later without a change is about this process or the key store.
            error if error.is_retryable() => Self::Other,
            Error::NoRuntime | Error::Random(_) | Error::ShutDown | Error::Store(_) => Self::Other,
            // No permission, a KEK that is disabled or gone, a wrap that was changed, a rule that forbids it: whatever
            // it is, the key would not be unwrapped today.
            _ => Self::Refused,
        }
    }
}
