//! Operating encx: whether this process can serve, whether the whole chain works, and what there is.
//!
//! | call | calls | for |
//! | --- | --- | --- |
//! | [`Crypto::health`](crate::Crypto::health) | nothing: it uses the outcomes of the last real calls | an orchestrator's probes |
//! | [`Crypto::validate`](crate::Crypto::validate) | each KMS of a context, and the key store | a deployment's last step, an alarm |
//! | [`Crypto::status`](crate::Crypto::status) | each KMS, to describe its KEKs, and the key store | people |
//!
//! All three return plain data, serialisable with feature `serde`.

mod cost;
mod health;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "metrics")]
pub mod metrics;
mod reported;
mod status;
mod validate;

use encx_core::context::EncryptionContext;

use crate::crypto::Crypto;

pub use cost::CostEstimate;
pub use health::{
    CallHealth, Health, HealthCheck, HealthData, HealthStatus, KeyStoreHealth, KeysHealth, KmsHealth,
};
pub use reported::Reported;
pub use status::{
    CacheStatus, DayStatus, DueStatus, KekStatus, KmsStatus, ProcessStatus, Status, StatusOptions,
    VersionsStatus,
};
pub use validate::{TestOutcome, Validation, ValidationStep, ValidationTest};

impl Crypto {
    /// Tells whether this process can encrypt and decrypt now.
    ///
    /// It calls neither a KMS nor the key store: it uses the outcomes of the last real calls, and the cached keys. So
    /// it takes microseconds and can be polled freely, and an outage shows once a real call or poll fails.
    ///
    /// A process is [`Degraded`](HealthStatus::Degraded) while cached keys serve although the last call to a KMS or the
    /// key store failed, and [`Down`](HealthStatus::Down) when nothing can be served. The key store is polled in the
    /// background, so its recovery shows without requests. A KMS is called only for requests: 30 seconds after its last
    /// failure the process counts as degraded, so that a load balancer sends it a request that tries the KMS.
    #[must_use]
    pub fn health(&self) -> Health {
        health::health(self)
    }

    /// Runs the whole chain for a context, and leaves nothing in the key store.
    ///
    /// With each KEK that the KEK rule names for wrapping in this context, the KMS makes a data key, unwraps it, wraps
    /// it, unwraps that wrap, and must refuse it under another context. The data key then encrypts and decrypts, and is
    /// dropped. Last, the context's keys are read from the key store, and the active one is looked up in memory after
    /// it was loaded.
    ///
    /// It costs five KMS calls for each KEK, and one more if the active key is not cached. KEKs that may only unwrap
    /// are not tried, because there is no wrap of theirs to try. A failed step is reported in the result and does not
    /// stop later steps.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn validate(&self, context: &EncryptionContext) -> Validation {
        validate::validate(self, context).await
    }

    /// Reports KMSs and KEKs, keys, processes, due rotations and cost.
    ///
    /// It describes each KEK that the KEK rule names, and counts in the key store, which takes about half a second for
    /// a million keys. It is for people and daily reports, not for probes.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn status(&self, options: &StatusOptions) -> Status {
        status::status(self, options).await
    }
}
