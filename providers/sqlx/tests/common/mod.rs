//! Databases for single tests, and helpers for the tests of both stores.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[cfg(feature = "postgres")]
pub(crate) mod pooler;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use encx::EncryptionContext;
use encx::keys::{DataKeyId, KeyCheck, KeyUsage};
use encx::kms::{KekId, KmsName, WrappedKey};
use encx::store::{NewKey, StoredWrap};

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
