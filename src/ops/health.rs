//! Health: whether this process can encrypt and decrypt now, judged by the last real calls.

use std::time::Duration;

use encx_core::key::{KekId, KmsName};
use encx_core::store::Timestamp;

use crate::cache::Serving;
use crate::calls::{CallMemory, When};
use crate::crypto::Crypto;
use crate::kek::{CircuitState, KnownKms};
#[cfg(feature = "serde")]
use crate::ops::json;

/// Whether a process can encrypt and decrypt now, in the form that orchestrators' probes read.
///
/// From [`Crypto::health`](crate::Crypto::health).
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::Crypto;
/// use encx::ops::HealthStatus;
///
/// # encx_testkit::block_on(async {
/// let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let health = crypto.health();
/// assert_eq!(health.status, HealthStatus::Up);
/// assert!(health.is_live() && health.is_ready());
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Health {
    /// The process as a whole.
    pub status: HealthStatus,
    /// Its parts: each KMS, the key store, and the cached keys.
    pub checks: Vec<HealthCheck>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) is_shut_down: bool,
}

/// Judges by remembered calls and cached keys.
pub(super) fn health(crypto: &Crypto) -> Health {
    let cache = crypto.core().cache();
    let now = cache.clock.elapsed();
    judge(&cache.keks.known(), &cache.serving(), cache.is_closed(), now)
}

impl Health {
    /// Tells whether the process works at all: always, unless its `Crypto` was shut down.
    ///
    /// It does not depend on a KMS or the key store: a restart would drop cached keys that still serve.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.is_shut_down
    }

    /// Tells whether this process should get requests: it can encrypt or decrypt.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status != HealthStatus::Down
    }
}

/// How well a process or one of its parts works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "UPPERCASE"))]
#[non_exhaustive]
pub enum HealthStatus {
    /// It works in part: for example, cached keys serve while their KMS does not answer.
    Degraded,
    /// It does not work.
    Down,
    /// It works, or has not been used yet.
    Up,
}

/// One part of a process.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HealthCheck {
    /// `kms` or `kms:NAME` for a KMS that was registered under a name, `key_store`, `keys`.
    pub name: String,
    /// How well it works.
    pub status: HealthStatus,
    /// Its details.
    pub data: HealthData,
}

/// The details of a part.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(untagged))]
#[non_exhaustive]
pub enum HealthData {
    /// The key store.
    KeyStore(KeyStoreHealth),
    /// The cached keys.
    Keys(KeysHealth),
    /// A KMS.
    Kms(KmsHealth),
}

/// The state of a KMS, from the calls to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KmsHealth {
    /// The kind of provider, such as `aws-kms`.
    pub provider: &'static str,
    /// The KMS's first KEK in the KEK rule, by its canonical name if known; `None` if only a closure names KEKs.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "json::text_of", skip_serializing_if = "Option::is_none")
    )]
    pub kek: Option<KekId>,
    /// The name under which it is registered.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))]
    pub kms: KmsName,
    /// Whether the circuit breaker lets calls through.
    pub circuit: CircuitState,
    /// The outcomes of calls.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub calls: CallHealth,
}

/// The state of the key store, from the calls to it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyStoreHealth {
    /// The outcomes of calls: loads of keys, polls for changes, heartbeats.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub calls: CallHealth,
    /// Time since the last successful poll began, or since the process started: the maximum age of key states.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "states_age_seconds", serialize_with = "json::seconds")
    )]
    pub states_age: Duration,
}

/// The state of the cached keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeysHealth {
    /// The number of unwrapped keys.
    pub keys: u64,
    /// Whether any of them can encrypt now, without a call.
    pub encrypt: bool,
    /// Whether any of them can decrypt now, without a call.
    pub decrypt: bool,
}

/// The outcomes of calls to a KMS or the key store.
///
/// A refusal that concerns one wrap or one row, such as a failed authentication, counts as an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CallHealth {
    /// `no call yet`, `ok`, or why the last call failed, such as `unavailable`.
    pub last_call: &'static str,
    /// When the last answered call ended.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "json::moment_of", skip_serializing_if = "Option::is_none")
    )]
    pub last_success_at: Option<Timestamp>,
    /// When the last failed call ended.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "json::moment_of", skip_serializing_if = "Option::is_none")
    )]
    pub last_failure_at: Option<Timestamp>,
    /// Why it failed, such as `unavailable`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub last_failure: Option<&'static str>,
}

impl CallHealth {
    fn of(memory: &CallMemory) -> Self {
        let moment = |when: When| {
            let micros = when.unix_millis.saturating_mul(1000);
            Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
        };
        let failure = memory.failed.map(|(_, failure)| failure.name);
        Self {
            last_call: match (memory.answered, failure) {
                (_, Some(failure)) if memory.is_failing => failure,
                (Some(_), _) => "ok",
                _ => "no call yet",
            },
            last_success_at: memory.answered.map(moment),
            last_failure_at: memory.failed.map(|(when, _)| moment(when)),
            last_failure: failure,
        }
    }
}

/// How long a KMS failure counts without another call: as long as its circuit may stay open.
const FAILURE_COUNTS_FOR: Duration = Duration::from_secs(30);

/// The outlook for calls.
enum Outlook {
    Answers,
    /// The last call failed, some time ago.
    FailedOnce,
    /// The last call was refused.
    Refuses,
    /// The last call was refused for a reason that concerns one KEK.
    RefusesOneKek,
    /// The last call was not answered.
    Silent,
}

impl Outlook {
    fn of(memory: &CallMemory, now: Duration, counts_for: Duration) -> Self {
        match memory.failed {
            Some((when, _)) if memory.is_failing && now.saturating_sub(when.elapsed) >= counts_for => {
                Self::FailedOnce
            }
            Some((_, failure)) if memory.is_failing && failure.is_silence => Self::Silent,
            Some((_, failure)) if memory.is_failing && failure.is_of_one_kek => Self::RefusesOneKek,
            Some(_) if memory.is_failing => Self::Refuses,
            _ => Self::Answers,
        }
    }

    fn status(&self) -> HealthStatus {
        match self {
            Self::Answers => HealthStatus::Up,
            Self::FailedOnce | Self::Refuses | Self::RefusesOneKek => HealthStatus::Degraded,
            Self::Silent => HealthStatus::Down,
        }
    }

    /// Tells whether a call is likely to succeed, or worth a try.
    fn is_hopeful(&self) -> bool {
        matches!(self, Self::Answers | Self::FailedOnce)
    }
}

fn judge(kms: &[KnownKms], serving: &Serving, is_shut_down: bool, now: Duration) -> Health {
    let mut checks = Vec::new();
    // A KMS that only unwraps old wraps, or that is unused, does not make a process ready. If it is not known which KMS
    // wraps, as before a closure's first choice, all of them count.
    let wrapping_is_known = kms.iter().any(|known| known.wraps);
    let mut kms_hopeful = false;
    for known in kms {
        let outlook = Outlook::of(&known.calls, now, FAILURE_COUNTS_FOR);
        let leaves_others = known.has_several_keks && matches!(outlook, Outlook::RefusesOneKek);
        kms_hopeful |= (outlook.is_hopeful() || leaves_others) && (known.wraps || !wrapping_is_known);
        let status = match (outlook.status(), known.circuit) {
            (HealthStatus::Up, CircuitState::Open | CircuitState::Probing) => HealthStatus::Degraded,
            (status, _) => status,
        };
        checks.push(HealthCheck {
            name: if known.name == KmsName::default() {
                "kms".to_owned()
            } else {
                format!("kms:{}", known.name)
            },
            status,
            data: HealthData::Kms(KmsHealth {
                provider: known.provider,
                kek: known.kek.clone(),
                kms: known.name.clone(),
                circuit: known.circuit,
                calls: CallHealth::of(&known.calls),
            }),
        });
    }
    let store = Outlook::of(&serving.store, now, Duration::MAX);
    checks.push(HealthCheck {
        name: "key_store".to_owned(),
        status: store.status(),
        data: HealthData::KeyStore(KeyStoreHealth {
            calls: CallHealth::of(&serving.store),
            states_age: serving.states_age,
        }),
    });
    let loads = kms_hopeful && store.is_hopeful();
    let serves = serving.encrypts || serving.decrypts || loads;
    checks.push(HealthCheck {
        name: "keys".to_owned(),
        status: if is_shut_down || !serves {
            HealthStatus::Down
        } else if serving.encrypts && serving.decrypts || loads {
            HealthStatus::Up
        } else {
            HealthStatus::Degraded
        },
        data: HealthData::Keys(KeysHealth {
            keys: serving.keys,
            encrypt: serving.encrypts,
            decrypt: serving.decrypts,
        }),
    });
    let status = if is_shut_down || !serves {
        HealthStatus::Down
    } else if checks.iter().all(|check| check.status == HealthStatus::Up) {
        HealthStatus::Up
    } else {
        HealthStatus::Degraded
    };
    Health {
        status,
        checks,
        is_shut_down,
    }
}
