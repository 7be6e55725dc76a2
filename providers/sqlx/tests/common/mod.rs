//! Databases for single tests, and helpers for the tests of both stores.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[cfg(feature = "postgres")]
pub(crate) mod pooler;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
pub(crate) mod tables;

use encx::keys::{DataKeyId, KeyCheck, KeyUsage};
use encx::kms::{KekId, KmsName, WrappedKey};
use encx::store::{ChangeCursor, KeyChange, KeyStore, NewKey, StoredWrap};
use encx::{Ciphertext, EncryptionContext};

/// Returns the first key of a tenant.
pub(crate) fn new_key(tenant: &str) -> NewKey {
    let context = EncryptionContext::builder()
        .pair("tenantId", tenant)
        .build()
        .unwrap();
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    let wrapped = WrappedKey::new(KekId::new("kek-1").unwrap(), vec![1, 2, 3]);
    NewKey::new(id, KeyUsage::Data, &context, KeyCheck::from_bytes([7; 32]))
        .with_wrap(StoredWrap::new(KmsName::default(), wrapped))
}

/// Returns a well-formed ciphertext of this many bytes that opens under no key.
pub(crate) fn ciphertext(plaintext_len: usize) -> Ciphertext {
    let mut bytes = vec![1, 1];
    bytes.extend(DataKeyId::generate(1, None).unwrap().to_bytes());
    bytes.resize(90 + plaintext_len, 0);
    Ciphertext::parse(bytes).unwrap()
}

/// Lists all changes since the cursor, and returns where the next poll begins.
pub(crate) async fn poll(store: &impl KeyStore, mut cursor: ChangeCursor) -> (Vec<KeyChange>, ChangeCursor) {
    let mut changes = Vec::new();
    loop {
        let page = store.changed_since(&cursor).await.unwrap();
        changes.extend(page.changes);
        cursor = page.next;
        if !page.more {
            return (changes, cursor);
        }
    }
}
