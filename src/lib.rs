//! Envelope encryption for Rust services: encrypt fields in app code, under keys that a KMS protects.
//!
//! ```
//! use encx_testkit::{MemoryKeyStore, MemoryKms};
//! use encx::{Crypto, EncryptionContext, Field};
//!
//! const SSN: Field = Field::new("users", "ssn");
//!
//! # encx_testkit::block_on(async {
//! // In a service: `LocalKms` of `encx-local`, and `PostgresKeyStore` of `encx-sqlx`.
//! let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
//!
//! let context = EncryptionContext::builder().pair("tenantId", "t-42").pair("purpose", "pii").build()?;
//! let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await?;
//! let ssn = crypto.decrypt(&context, &sealed, SSN.row(7)).await?.into_string()?;
//! # assert_eq!(ssn, "123-45-6789");
//! # Ok::<(), encx::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Where to go
//!
//! - Encrypt and decrypt: [`Crypto`], or [`Keyring`] for a context that is used repeatedly; many values at once with
//!   [`Crypto::encrypt_many`]. [`EncryptionContext`] selects the key and has few values; [`Field`] binds a value to its row.
//! - Structs: `#[derive(Encrypt)]` of feature `derive`, with [`record`] for many rows and for types of your own.
//! - Search, passwords, API tokens: [`search`], `password` (a feature), [`token`].
//! - What went wrong, and whether to retry: [`Error`].
//! - Rotate, suspend, destroy, move to another KEK, also on a schedule: [`keys`]. Long walks shared by processes: [`jobs`].
//! - Probes, validation, status, metrics: [`ops`].
//! - A KMS or a key store of your own: [`kms`] and [`store`], with the conformance suites of `encx-testkit`.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | KEK | key-encryption key: a key of a KMS, which never leaves it |
//! | DEK, data key | a 256-bit key that encrypts data; exists unwrapped only in memory |
//! | wrap, unwrap, rewrap | encrypt a DEK with a KEK, decrypt it, move it to another KEK |
//! | encryption context | non-secret pairs that select the DEK and that the KMS authenticates and logs |
//! | AAD | binds a ciphertext to its place; it never leaves the process |
//! | usage | the purpose of a DEK; one DEK, one usage |
//! | scope | one family of DEKs: a usage under a context |
//! | blind index | a keyed, truncated hash for search by equality |
//! | pepper | a secret input of password hashes that is not in the database |
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `aes-gcm` (default) | the cipher backend, in Rust; at least one backend must be on |
//! | `aws-lc-rs` | the cipher backend of AWS-LC: faster, and it needs a C compiler |
//! | `chrono`, `time` | dates and times of these crates as encrypted fields |
//! | `derive` | `#[derive(Encrypt)]` |
//! | `json` | encrypted fields of any type that serde knows, as JSON |
//! | `metrics` | `ops::metrics`: counters and gauges, by the facade of crate `metrics` |
//! | `password` | password hashes: Argon2id with a pepper that the KMS protects |
//! | `ring` | the cipher backend of ring: the fastest with AVX2 and VAES, and without AVX-512. It needs a C compiler. Of several backends, the fastest on the processor serves |
//! | `serde` | `Serialize` and `Deserialize` for [`Ciphertext`], [`BlindIndex`](search::BlindIndex) and `PasswordHash`; `Serialize` for the reports of [`ops`] |
//! | `sqlx-0_9` | [`Ciphertext`], [`BlindIndex`](search::BlindIndex) and `PasswordHash` as columns of sqlx 0.9 |
//! | `sqlx-0_9-postgres` | arrays of [`BlindIndex`](search::BlindIndex), for `= ANY($1)`, of [`Ciphertext`], for `unnest($1)`, and of password hashes |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod calls;
mod clock;
mod crypto;
mod error;
pub mod jobs;
mod kek;
mod keyring;
pub mod keys;
pub mod ops;
#[cfg(feature = "password")]
pub mod password;
mod plaintext;
pub mod record;
pub mod search;
pub mod token;

pub use cache::{Refusals, Stats};
pub use clock::{Clock, SystemClock};
pub use crypto::{Crypto, CryptoBuilder, FailedWarmUp, WarmUpReport};
pub use encx_core::aad::{Aad, AadError, AsAad, Field, RowId, RowIdParts};
pub use encx_core::ciphertext::{Ciphertext, CiphertextError};
pub use encx_core::context::{ContextError, EncryptionContext, EncryptionContextBuilder, TextFault};
pub use encx_core::memory::reseed;
pub use error::{Error, Location};
pub use keyring::Keyring;
pub use plaintext::Plaintext;

/// The contract of a KMS, and the choice of the KEK that wraps a key.
///
/// A provider implements [`KeyManagementService`](kms::KeyManagementService), and needs only crate `encx-core` for it.
pub mod kms {
    pub use crate::kek::{
        CircuitState, KekChoice, KekRef, KmsOperationStats, KmsOutcome, KmsStats, LatencyStats,
    };
    pub use encx_core::key::{
        DATA_KEY_LEN, DataKey, DataKeyLenError, KekId, KmsName, NameError, RandomError, WrappedKey,
    };
    pub use encx_core::kms::{
        GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
        KmsOperation, RequestCounter, report_requests, report_server_time,
    };
}

/// The contract of a key store, through which processes also coordinate.
///
/// A store implements [`KeyStore`](store::KeyStore), and needs only crate `encx-core` for it.
pub mod store {
    pub use encx_core::store::{
        AuditEntry, AuditLog, AuditPage, AuditQuery, AuditedPart, ChangeCursor, ChangePage, ColumnCount,
        Counted, CursorPosition, DailyCounts, Fence, JobFault, JobFaults, JobRange, JobStatus, JobStore,
        JobTally, KekUse, KeyCensus, KeyChange, KeyChanges, KeyCount, KeyHint, KeyPage, KeyQuery, KeyRecord,
        KeyStore, KeySummary, Lease, Leases, NewKey, OpenTransactions, ProcessCounts, ProcessId, ProcessInfo,
        ProcessList, ProcessRecord, ProcessRegistry, RangeClaim, Revision, StateChange, StoreError,
        StoredWrap, Timestamp, WrapChange, WrapOutcome,
    };
}

/// Seals and opens bytes under one data key: for KMS providers and key files, not for services.
pub mod suite {
    pub use encx_core::ciphertext::Suite;
    pub use encx_suite::{Backend, KcXaes256Gcm, OpenError, SealError, backend};
}

/// The limits on inputs of encx.
pub mod limits {
    pub use encx_core::aad::{MAX_AAD_LEN, MAX_AAD_PARTS};
    pub use encx_core::blind_index::MAX_INDEXED_LEN;
    pub use encx_core::ciphertext::MAX_PLAINTEXT_LEN;
    pub use encx_core::context::{MAX_PAIR_CHARS, MAX_PAIRS};
    pub use encx_core::key::MAX_WRAPS;
}

/// `#[derive(Encrypt)]`, documented in `encx-derive`.
#[cfg(feature = "derive")]
pub use encx_derive::Encrypt;

/// Called by code that `#[derive(Encrypt)]` generates. Not part of the API.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "json")]
    pub use serde;

    #[cfg(feature = "password")]
    pub use crate::record::derived::PasswordField;
    pub use crate::record::derived::{
        Description, Opened, Opening, Row, Sealed, Sealing, Sought, TokenField, columns, decrypt, decrypt_in,
        encrypt, is_in_context, manifest, same_context,
    };
    #[cfg(feature = "json")]
    pub use encx_core::codec::json;
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
