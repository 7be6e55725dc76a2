//! Operating encx: can this process serve, does the whole chain work, and what is there.
//!
//! | call | asks | for |
//! | --- | --- | --- |
//! | [`Crypto::health`](crate::Crypto::health) | nothing: it remembers how the last real calls ended | probes of an orchestrator |
//! | [`Crypto::validate`](crate::Crypto::validate) | each KMS of a context, and the key store | a deployment's last step, an alarm |
//! | [`Crypto::status`](crate::Crypto::status) | each KMS about its KEKs, and the key store | people |
//!
//! All three return plain data, which feature `serde` serialises.

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
    /// It calls neither a KMS nor the key store: it remembers how the last real calls ended, and looks at the keys in memory.
    /// So it costs microseconds, may be asked as often as a probe likes, and an outage is seen with the first real call or
    /// poll that fails.
    ///
    /// A process is [`Degraded`](HealthStatus::Degraded) while keys in memory serve although a KMS or the key store failed
    /// last, and [`Down`](HealthStatus::Down) when nothing can be served. The key store is polled in the background, so its
    /// recovery shows by itself. A KMS is called only for requests: 30 seconds after its last failure the process counts as
    /// degraded, so that a load balancer sends it a request, whose call tells.
    #[must_use]
    pub fn health(&self) -> Health {
        health::health(self)
    }

    /// Does the whole chain for a context, and leaves nothing behind in the key store.
    ///
    /// With each KEK that the KEK rule names to wrap for this context: has the KMS make a data key, unwrap it, wrap it and
    /// unwrap that, and refuse it under another context. With the data key, which is dropped then: encrypts and decrypts.
    /// Then reads the context's keys from the key store, and finds the active one in memory, having loaded it if it is not there.
    ///
    /// It costs five KMS calls for each KEK, and one more if the active key is not in memory. KEKs that may only unwrap are not
    /// tried, for want of something that they wrapped. Steps fail in the result, so that one hides no other.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn validate(&self, context: &EncryptionContext) -> Validation {
        validate::validate(self, context).await
    }

    /// Reports what is there: KMSs and KEKs, keys, processes, what is due, what it costs.
    ///
    /// It has each KEK described that the KEK rule names, and counts in the key store, which takes about half a second over a
    /// million keys: it is for people and daily reports, not for probes.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn status(&self, options: &StatusOptions) -> Status {
        status::status(self, options).await
    }
}
