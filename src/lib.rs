//! Envelope encryption for Rust services.

mod aad;
mod cache;
mod ciphertext;
mod clock;
mod context;
mod crypto;
mod error;
mod kek;
mod key;
mod keyring;
mod kms;
mod manager;
mod plaintext;
mod store;
pub mod suite;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use aad::{Aad, AadError, Field, MAX_AAD_LEN, MAX_AAD_PARTS, RowId, RowIdParts};
pub use cache::Stats;
pub use ciphertext::{Ciphertext, CiphertextError, MAX_PLAINTEXT_LEN, Suite};
pub use clock::{Clock, SystemClock};
pub use context::{
    ContextError, EncryptionContext, EncryptionContextBuilder, MAX_PAIR_CHARS, MAX_PAIRS, TextFault,
};
pub use crypto::{Crypto, CryptoBuilder};
pub use error::Error;
pub use kek::{KekChoice, KekRef};
pub use key::{
    DATA_KEY_LEN, DataKey, DataKeyId, DataKeyIdError, DataKeyLenError, KekId, KeyCheck, KeyState, KeyUsage,
    KeyVersion, KmsName, MAX_WRAPS, NameError, RandomError, Scope, WrappedKey,
};
pub use keyring::Keyring;
pub use kms::{
    GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
    KmsOperation,
};
pub use manager::KeyManager;
pub use plaintext::Plaintext;
pub use store::{
    ChangeCursor, ChangePage, Coordination, CursorPosition, KeyChange, KeyChanges, KeyHint, KeyPage,
    KeyQuery, KeyRecord, KeyStore, NewKey, Revision, StateChange, StoreError, StoredWrap, Timestamp,
    WrapChange, WrapOutcome,
};
pub use suite::generation::reseed;
