//! What `Crypto` and `Keyring` encrypt, decrypt and refuse, on an in-memory KMS and key store.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod batches;
mod between_chunks;
mod buffers;
mod fields;
mod located;
mod nearby;
mod refusals;
mod rule;

use encx::{Crypto, CryptoBuilder, EncryptionContext, Field};
use encx_testkit::{MemoryKeyStore, MemoryKms};

const SSN: Field = Field::new("users", "ssn");
const NAME: Field = Field::new("users", "name");

fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii")
        .build()
        .unwrap()
}

/// An in-memory KMS and key store, and processes on them.
#[derive(Default)]
struct World {
    kms: MemoryKms,
    store: MemoryKeyStore,
}

impl World {
    /// Asks neither the KMS nor the key store while it builds: tests count calls, and have edited rows read.
    fn builder(&self) -> CryptoBuilder {
        Crypto::builder(self.kms.clone(), self.store.clone()).connect_lazily()
    }

    /// Starts one more process: it shares nothing but the KMS and the key store.
    async fn process(&self) -> Crypto {
        self.builder().build().await.unwrap()
    }
}
