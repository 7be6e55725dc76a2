//! Classifies a KMS error by its consequence for a cached key.

use encx_core::kms::KmsErrorKind;

use crate::error::Error;

/// The consequence of a failure to unwrap a cached key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The KMS said nothing about this key: keep it until it expires.
    Other,
    /// The KMS answered, but not against this key: keep it until it expires and no longer.
    Quota,
    /// The key may no longer be used.
    Refused,
    /// The KMS was asked and did not answer.
    Unanswered,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            error if error.is_unavailability() => Self::Unanswered,
            Error::Kms(error) if error.kind() == KmsErrorKind::LimitExceeded => Self::Quota,
            // Other retryable errors concern this process or the key store.
            error if error.is_retryable() => Self::Other,
            Error::NoRuntime | Error::Random(_) | Error::ShutDown | Error::Store(_) => Self::Other,
            // No permission, a KEK that is disabled or gone, a changed wrap, a rule that forbids it: in any case, the
            // KMS would not unwrap the key today.
            _ => Self::Refused,
        }
    }
}
