//! Errors of encryption, decryption and key management.

mod location;

use std::sync::Arc;

use encx_core::aad::AadError;
use encx_core::blind_index::IndexError;
use encx_core::causes::debug_as_text;
use encx_core::ciphertext::{CiphertextError, MAX_PLAINTEXT_LEN, Suite};
use encx_core::codec::CodecError;
use encx_core::context::ContextError;
use encx_core::key::{DataKeyId, KekId, KmsName, NewIdError, RandomError};
use encx_core::kms::KmsError;
use encx_core::store::{ColumnCount, StoreError};

#[cfg(feature = "password")]
use crate::password::{NotDone, PasswordError};

pub use location::Location;

/// Why something could not be encrypted, decrypted or managed, and what to do.
///
/// Cheap to clone. Errors of a KMS or a database keep their cause as their `source()`. No variant carries a plaintext
/// or a key. A refused ciphertext has its [`Location`], with table, column and row as its AAD names them: a row's id
/// must not be a secret.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext, Error, Field};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// const SSN: Field = Field::new("users", "ssn");
/// # let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await?;
/// match crypto.decrypt(&context, &sealed, SSN.row(8)).await {
///     Ok(ssn) => println!("{}", ssn.as_str()?),
///     Err(error) if error.is_retryable() => eprintln!("try again later: {error}"),
///     Err(Error::Decrypt { at }) => eprintln!("row {} was not written here", at.row().unwrap_or("?")),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
// Makes the variants' fields begin at a whole word. After a tag of one byte they would begin at the second byte, and
// every `Result` of a hot call would be moved in other pieces than it was written in, which stalls processors.
#[repr(u64)]
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The AAD cannot be used.
    #[error(transparent)]
    Aad(#[from] AadError),
    /// The scope already has keys.
    #[error("this encryption context has keys already; use `rotate` for a new version")]
    AlreadyExists,
    /// The ciphertext cannot be parsed.
    #[error(transparent)]
    Ciphertext(#[from] CiphertextError),
    /// A field's value cannot be encoded, or the decrypted bytes cannot be decoded as the field's type.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The key is compromised: an attacker who has it can forge, so what it decrypts proves nothing.
    #[error(
        "data key {id}{} is compromised; to read and re-encrypt its data build with `accept_compromised()`",
        .at.suffix()
    )]
    Compromised {
        /// The key.
        id: DataKeyId,
        /// The location of the ciphertext.
        at: Location,
    },
    /// The builder's settings cannot work.
    #[error("encx is misconfigured: {what}")]
    Config {
        /// Which setting, and what to change.
        what: String,
    },
    /// The encryption context cannot be used.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Authentication failed.
    ///
    /// The ciphertext was changed, or belongs to another row, column or encryption context. The error does not say which.
    #[error(
        "the ciphertext{} does not authenticate: it was changed, or it belongs to another row, column or encryption \
         context; compare its place with the one it was encrypted for{}",
        .at.suffix(), .at.hint()
    )]
    Decrypt {
        /// The location of the ciphertext.
        at: Location,
    },
    /// The key was destroyed, and its data with it.
    #[error("data key {id}{} was destroyed; what it encrypted cannot be read again", .at.suffix())]
    Destroyed {
        /// The key.
        id: DataKeyId,
        /// The location of the ciphertext.
        at: Location,
    },
    /// A value cannot be indexed, or an index was refused.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Loading the key was interrupted: its runtime shut down, or a provider panicked. Retryable.
    #[error(
        "loading the key was interrupted, because its runtime shut down or a provider panicked; try again"
    )]
    Interrupted,
    /// The row names a KEK that the KEK rule does not allow for this encryption context.
    #[error(
        "data key {id} is wrapped by KEK `{kek}` of KMS `{kms}`, which the KEK rule does not allow here; if this is a retired \
         KEK, add it with `also_unwrap` under that name of the KMS; if the service runs with another KEK than the one that wrapped \
         its keys, such as another KEK file or the database of another environment, put the right one back; if neither is so, \
         the row was edited: restore it"
    )]
    KekNotAllowed {
        /// The key.
        id: DataKeyId,
        /// The KMS that the row names.
        kms: KmsName,
        /// The KEK that the row names.
        kek: KekId,
    },
    /// The KEK to wrap with is not one that the KEK rule allows for this encryption context.
    #[error(
        "the KEK rule does not allow KEK `{kek}` of KMS `{kms}` for this encryption context; allow it with `also_unwrap` in \
         every service first, so that each can read what is moved"
    )]
    KekNotInRule {
        /// The KMS.
        kms: KmsName,
        /// The KEK.
        kek: KekId,
    },
    /// The unwrapped key is not the one that was stored under this id.
    #[error("unwrapping data key {id} gave another key; the key store was tampered with or mixed up")]
    KeyMismatch {
        /// The requested key.
        id: DataKeyId,
    },
    /// The KMS failed.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The KMS did not answer several times in a row, so its circuit breaker is open and this call
    /// failed at once. Retryable.
    #[error(
        "KMS `{kms}` did not answer several times in a row and is not called for a while; try again in {}s. Why it \
         failed stands in the errors and traces before this",
        .retry_in.as_secs_f32().ceil()
    )]
    KmsCircuitOpen {
        /// The name under which the KMS is registered.
        kms: KmsName,
        /// How long until the next call may be let through.
        retry_in: std::time::Duration,
    },
    /// There are keys, but none is active.
    #[error(
        "no version of this encryption context's key is active, so nothing is encrypted; resume a suspended \
         version, or rotate"
    )]
    NoActiveKey,
    /// No KEK is configured for this encryption context.
    #[error(
        "no KEK is configured for this encryption context; name one with `kek`, `kek_for` or `kek_rule`, or by the KMS's own setting, \
         such as the variable AWS_KMS_KEY_ID"
    )]
    NoKek,
    /// The encryption context has no key, and this call makes none, or `create_on_first_use(false)` forbids it.
    #[error(
        "this encryption context has no key yet; does it name an existing tenant, spelled as elsewhere? Its first key is made \
         by `KeyManager::create`, or by the first encryption unless `create_on_first_use(false)` forbids it"
    )]
    NoKeys,
    /// There is no tokio runtime.
    #[error("encx needs a tokio runtime here; call it from a task, or inside `Runtime::enter`")]
    NoRuntime,
    /// The key is not cached, and a `try_` call does not wait for it.
    #[error("the key is not in memory yet; call the async form, which loads it")]
    NotReady,
    /// The plaintext is not text.
    #[error("the plaintext is not UTF-8; take its bytes instead")]
    NotUtf8,
    /// A row's own columns name another encryption context than the caller's.
    #[error(
        "the row says that it belongs to another encryption context than the caller's, such as another tenant; does the \
         query ask for the tenant's rows alone?"
    )]
    OtherContext,
    /// A password cannot be hashed, or the stored text is not a hash that encx verifies.
    #[cfg(feature = "password")]
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The plaintext is too long.
    #[error("a plaintext has at most {MAX_PLAINTEXT_LEN} bytes, not {found}; large values need a stream")]
    PlaintextTooLong {
        /// Its length, in bytes.
        found: usize,
    },
    /// The operating system returned no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The key store has lost a used version or its wraps, or has an earlier version or revision as the active one.
    ///
    /// Nothing is encrypted and no key is made: a new key would hide that data under the lost one is
    /// unreadable for other processes.
    #[error("{}", rolled_back(*found, *used))]
    RolledBack {
        /// What the store has instead: an earlier active version, or the same version in an earlier revision or without
        /// its wraps; `None` if no version is active.
        found: Option<DataKeyId>,
        /// The used version.
        used: DataKeyId,
    },
    /// Every version of the encryption context's key was destroyed.
    #[error(
        "every key of this encryption context was destroyed; its data cannot be read again, and only `revive` makes a new key"
    )]
    Shredded,
    /// [`Crypto::shutdown`](crate::Crypto::shutdown) was called.
    #[error("this `Crypto` was shut down")]
    ShutDown,
    /// The key's state is older than `state_ttl`, and `fail_closed_on_stale_state()` forbids using it.
    #[error("the known state of the key is too old to use it, because the key store is unreachable")]
    StaleState,
    /// The census found rows that are still encrypted under the key.
    #[error(
        "data key {id} still encrypts rows ({}); resume it if it is suspended, re-encrypt them, then try again; `destroy_with_data` \
         would lose them",
        list(columns)
    )]
    StillInUse {
        /// The key.
        id: DataKeyId,
        /// The columns with such rows, and their counts, none of them 0.
        columns: Arc<[ColumnCount]>,
    },
    /// The key store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ciphertext's suite is not accepted.
    #[error(
        "ciphertexts of suite {suite:?}{} are not accepted; if you wrote them, build with \
         `accept_uncommitted()`",
        .at.suffix()
    )]
    SuiteNotAccepted {
        /// The suite.
        suite: Suite,
        /// The location of the ciphertext.
        at: Location,
    },
    /// The key is suspended.
    #[error("data key {id}{} is suspended; resume it to decrypt with it", .at.suffix())]
    Suspended {
        /// The key.
        id: DataKeyId,
        /// The location of the ciphertext.
        at: Location,
    },
    /// Loading the key took too long. Retryable.
    #[error("loading the key took longer than {}s; is the KMS or the key store hanging?", .after.as_secs())]
    TimedOut {
        /// The time-out.
        after: std::time::Duration,
    },
    /// The encryption context has no such key.
    #[error(
        "there is no data key {id}{} in this encryption context; does the value belong to another, such as another tenant?",
        .at.suffix()
    )]
    UnknownKey {
        /// The key that the ciphertext names.
        id: DataKeyId,
        /// The location of the ciphertext.
        at: Location,
    },
    /// The row or the KEK rule names a KMS that is not registered.
    #[error("no KMS is registered under the name `{kms}`; add it with `kms_named`")]
    UnknownKms {
        /// The name.
        kms: KmsName,
    },
}

debug_as_text!(Error);

#[cfg(feature = "password")]
impl From<NotDone> for Error {
    fn from(error: NotDone) -> Self {
        match error {
            NotDone::Interrupted => Self::Interrupted,
            NotDone::NoRuntime => Self::NoRuntime,
            NotDone::ShutDown => Self::ShutDown,
        }
    }
}

impl From<NewIdError> for Error {
    fn from(error: NewIdError) -> Self {
        match error {
            NewIdError::Random(error) => Self::Random(error),
            error => Self::Store(StoreError::Corrupt {
                what: error.to_string(),
            }),
        }
    }
}

fn rolled_back(found: Option<DataKeyId>, used: DataKeyId) -> String {
    let what = match found {
        None => format!("no longer has data key {used}, which was in use"),
        Some(found) if found == used => {
            format!("has data key {used} without its wraps, or as it was before a change that is known")
        }
        Some(found) => format!("went back to data key {found} after {used} was in use"),
    };
    format!(
        "the key store {what}, as after rows were deleted or an old backup was restored; put the missing rows back, or, \
         if what was encrypted under {used} may be lost, make a new version with `rotate` (`create` where none is left)"
    )
}

/// Formats counts for an error's text.
fn list(columns: &[ColumnCount]) -> String {
    let columns: Vec<_> = columns.iter().map(ToString::to_string).collect();
    columns.join(", ")
}

/// The result of a hot call. At most three words: every call would move a whole [`Error`], even the successful ones.
pub(crate) type Boxed<T> = Result<T, Box<Error>>;

/// Unboxes the error of a hot call.
#[cold]
#[allow(clippy::boxed_local, reason = "it is boxed where it comes from")]
pub(crate) fn unbox(error: Box<Error>) -> Error {
    *error
}

/// Why a ciphertext was refused, for counters and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Authentication,
    KeyRow,
    KeyState,
    Suite,
    UnknownKey,
}

impl Refusal {
    /// The number of variants; the last one is the last in the alphabet.
    pub(crate) const KINDS: usize = Self::UnknownKey as usize + 1;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::KeyRow => "key_row",
            Self::KeyState => "key_state",
            Self::Suite => "suite",
            Self::UnknownKey => "unknown_key",
        }
    }
}

impl Error {
    /// Returns why a ciphertext was refused; `None` if it was not, as when a KMS does not answer.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::Decrypt { .. } => Refusal::Authentication,
            Self::KekNotAllowed { .. }
            | Self::KeyMismatch { .. }
            | Self::RolledBack { .. }
            | Self::UnknownKms { .. } => Refusal::KeyRow,
            Self::Compromised { .. } | Self::Destroyed { .. } | Self::Shredded | Self::Suspended { .. } => {
                Refusal::KeyState
            }
            Self::SuiteNotAccepted { .. } => Refusal::Suite,
            Self::UnknownKey { .. } => Refusal::UnknownKey,
            _ => return None,
        })
    }

    /// Returns the location of the refused ciphertext, for errors that have one.
    pub(crate) fn location_mut(&mut self) -> Option<&mut Location> {
        match self {
            Self::Compromised { at, .. }
            | Self::Decrypt { at }
            | Self::Destroyed { at, .. }
            | Self::SuiteNotAccepted { at, .. }
            | Self::Suspended { at, .. }
            | Self::UnknownKey { at, .. } => Some(at),
            _ => None,
        }
    }

    #[cold]
    pub(crate) fn boxed(error: impl Into<Self>) -> Box<Self> {
        Box::new(error.into())
    }

    /// Tells whether the same call may succeed later unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Kms(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::Interrupted
            | Self::KmsCircuitOpen { .. }
            | Self::NotReady
            | Self::StaleState
            | Self::TimedOut { .. } => true,
            _ => false,
        }
    }

    /// For an error of a KMS call: tells whether the KMS gave no answer. All others are answers, such as a refusal.
    pub(crate) fn is_unavailability(&self) -> bool {
        match self {
            Self::Kms(error) => error.is_retryable(),
            Self::KmsCircuitOpen { .. } | Self::TimedOut { .. } => true,
            _ => false,
        }
    }
}
