//! Health: whether this process can encrypt and decrypt now, from how its last real calls ended.

use std::time::Duration;

use encx_core::key::{KekId, KmsName};
use encx_core::store::Timestamp;

use crate::cache::Serving;
use crate::calls::{CallMemory, When};
use crate::crypto::Crypto;
use crate::kek::{CircuitState, KnownKms};
#[cfg(feature = "serde")]
use crate::ops::json;

/// Whether a process can encrypt and decrypt now, in the form that probes of orchestrators read.
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
    /// Its parts: each KMS, the key store, and the keys in memory.
    pub checks: Vec<HealthCheck>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) is_shut_down: bool,
}

/// Judges from what is remembered and in memory.
pub(super) fn health(crypto: &Crypto) -> Health {
    let cache = crypto.core().cache();
    let now = cache.clock.elapsed();
    judge(&cache.keks.known(), &cache.serving(), cache.is_closed(), now)
}

impl Health {
    /// Tells whether the process works at all: always, unless its `Crypto` was shut down.
    ///
    /// It does not depend on a KMS or the key store, because restarting a process empties a memory that still serves.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.is_shut_down
    }

    /// Tells whether requests should be sent to this process: unless it can neither encrypt nor decrypt.
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
    /// It works in part: such as keys in memory that serve while their KMS does not answer.
    Degraded,
    /// It does not work.
    Down,
    /// It works, or was not used yet.
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
    /// What is known of it.
    pub data: HealthData,
}

/// What is known of a part.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(untagged))]
#[non_exhaustive]
pub enum HealthData {
    /// Of the key store.
    KeyStore(KeyStoreHealth),
    /// Of the keys in memory.
    Keys(KeysHealth),
    /// Of a KMS.
    Kms(KmsHealth),
}

/// What is known of a KMS from the calls to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KmsHealth {
    /// The kind of provider, such as `aws-kms`.
    pub provider: &'static str,
    /// The first KEK there that the KEK rule names, by its lasting name if that is known; `None` if only a closure names any.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "json::text_of", skip_serializing_if = "Option::is_none")
    )]
    pub kek: Option<KekId>,
    /// The name under which it is registered.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))]
    pub kms: KmsName,
    /// Whether calls are let through.
    pub circuit: CircuitState,
    /// How the calls ended.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub calls: CallHealth,
}

/// What is known of the key store from the calls to it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyStoreHealth {
    /// How the calls ended: loads of keys, polls for changes, heartbeats.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub calls: CallHealth,
    /// How long ago the last poll that succeeded began, or else the process: how old the states of keys are at most.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "states_age_seconds", serialize_with = "json::seconds")
    )]
    pub states_age: Duration,
}

/// What is known of the keys in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeysHealth {
    /// Unwrapped keys in memory.
    pub keys: u64,
    /// Whether any of them encrypts now, without a call to anything.
    pub encrypt: bool,
    /// Whether any of them decrypts now, without a call to anything.
    pub decrypt: bool,
}

/// How the calls to a KMS or the key store ended.
///
/// A refusal that is about one wrap or one row, such as one that does not authenticate, counts as an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CallHealth {
    /// `no call yet`, `ok`, or why the last call failed, such as `unavailable`.
    pub last_call: &'static str,
    /// When the last call that was answered ended.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "json::moment_of", skip_serializing_if = "Option::is_none")
    )]
    pub last_success_at: Option<Timestamp>,
    /// When the last call that failed ended.
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

/// For how long the failure of a KMS counts without another call, as long as its circuit may stay open.
const FAILURE_COUNTS_FOR: Duration = Duration::from_secs(30);

/// How the calls to something went.
enum Outlook {
    Answers,
    /// The last call failed, a while ago.
    FailedOnce,
    /// The last call was refused.
    Refuses,
    /// The last call was refused, for a reason that is about one KEK.
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

    /// Tells whether a call is likely to succeed, or would tell.
    fn is_hopeful(&self) -> bool {
        matches!(self, Self::Answers | Self::FailedOnce)
    }
}

fn judge(kms: &[KnownKms], serving: &Serving, is_shut_down: bool, now: Duration) -> Health {
    let mut checks = Vec::new();
    // A KMS that only unwraps old wraps, or that is registered and not used, makes no process ready. Where it is not known
    // which one wraps, such as before the first call by a closure's choice, all count.
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
