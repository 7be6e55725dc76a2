//! Validation: the whole chain, done for real, with nothing left behind.

use std::time::Duration;

use crate::kek::KekRef;

/// What each step of the chain did, and how long it took.
///
/// From [`Crypto::validate`](crate::Crypto::validate).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Validation {
    /// The steps in the order in which they ran.
    pub tests: Vec<ValidationTest>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ValidationTest {
    /// What was done.
    pub step: ValidationStep,
    /// With which KEK, of the steps that need one.
    pub kek: Option<KekRef>,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took; nothing for one that was skipped.
    pub latency: Duration,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ValidationStep {
    /// Has the KMS make a data key under the context.
    GenerateDataKey,
    /// Has the KMS unwrap it, and compares.
    UnwrapKey,
    /// Has the KMS wrap it.
    WrapKey,
    /// Has the KMS unwrap that wrap, and compares.
    UnwrapWrapped,
    /// Has the KMS refuse to unwrap it under another context.
    WrongContext,
    /// Encrypts with it, in memory.
    Encrypt,
    /// Decrypts what was encrypted, and compares; and in another place has it refused.
    Decrypt,
    /// Reads the context's keys from the key store.
    KeyRetrieval,
    /// Finds the context's active key in memory.
    CacheHit,
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
    /// It did what it should.
    Passed,
    /// It could not run.
    Skipped {
        /// Why.
        reason: String,
    },
}
