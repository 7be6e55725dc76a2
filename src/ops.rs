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
mod reported;
mod status;
mod validate;

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
