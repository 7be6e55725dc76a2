//! Envelope encryption for Rust services.

mod aad;
mod ciphertext;
mod clock;
mod context;
mod key;
mod kms;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use aad::{Aad, AadError, Field, MAX_AAD_LEN, MAX_AAD_PARTS, RowId, RowIdParts};
pub use ciphertext::{Ciphertext, CiphertextError, MAX_PLAINTEXT_LEN, Suite};
pub use clock::{Clock, SystemClock};
pub use context::{
    ContextError, EncryptionContext, EncryptionContextBuilder, MAX_PAIR_CHARS, MAX_PAIRS, TextFault,
};
pub use key::{
    DATA_KEY_LEN, DataKey, DataKeyId, DataKeyIdError, DataKeyLenError, KekId, KeyCheck, KeyState, KeyUsage,
    KeyVersion, KmsName, MAX_WRAPS, NameError, RandomError, Scope, WrappedKey,
};
pub use kms::{
    GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
    KmsOperation,
};
pub use store::{
    ChangeCursor, ChangePage, Coordination, CursorPosition, KeyChange, KeyChanges, KeyHint, KeyPage,
    KeyQuery, KeyRecord, KeyStore, NewKey, Revision, StateChange, StoreError, StoredWrap, Timestamp,
    WrapChange, WrapOutcome,
};
