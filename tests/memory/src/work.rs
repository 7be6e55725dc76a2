//! A service's operations on its keys.

use std::sync::Arc;
use std::time::Duration;

use encx::keys::KeyUsage;
use encx::kms::KeyManagementService;
use encx::password::PasswordParams;
use encx::search::IndexField;
use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_testkit::{ManualClock, MemoryKeyStore};

use crate::report::{report_bytes, report_key};
use crate::tap::Tap;

const NAME: Field = Field::new("users", "name");
const PASSWORD: Field = Field::new("users", "password");
const BY_NAME: IndexField = IndexField::new("users", "name", 64);

/// How long a key stays in memory.
pub(crate) const TTL: Duration = Duration::from_secs(8);

/// Two services on one key store: what one encrypts the other decrypts.
pub(crate) struct TwoServices {
    one: Crypto,
    other: Crypto,
    context: EncryptionContext,
}

impl TwoServices {
    pub(crate) async fn new<K: KeyManagementService + Clone>(
        kms: &Tap<K>,
        store: &MemoryKeyStore,
        clock: &ManualClock,
    ) -> Self {
        let build = || {
            Crypto::builder(kms.clone(), store.clone())
                .clock(clock.clone())
                .ttl(TTL)
                .password_params(PasswordParams::insecure_new(64, 1, 1).unwrap())
                .build()
        };
        Self {
            one: build().await.unwrap(),
            other: build().await.unwrap(),
            context: EncryptionContext::from_pairs([("tenantId", "t-1")]).unwrap(),
        }
    }

    pub(crate) async fn work(&self) {
        let context = &self.context;
        // On the thread that waits for the runtime, and on the runtime's own.
        let first = self.encrypt_some().await;
        self.decrypt(&first).await;
        for _ in 0..2 {
            let work = {
                let (one, other, context) = (self.one.clone(), self.other.clone(), context.clone());
                async move {
                    let services = Self { one, other, context };
                    let sealed = services.encrypt_some().await;
                    services.decrypt(&sealed).await;
                    services.index_and_hash().await;
                }
            };
            tokio::spawn(work).await.unwrap();
        }
        // An imported key.
        let key = encx::kms::DataKey::generate().unwrap();
        report_key(&key);
        let imported = EncryptionContext::from_pairs([("tenantId", "t-2")]).unwrap();
        self.one.key_manager().import(&imported, key).await.unwrap();
        let sealed = self.one.encrypt(&imported, "x", NAME.row(1)).await.unwrap();
        report_bytes("message", &sealed.as_bytes()[..42]);
        self.other.decrypt(&imported, &sealed, NAME.row(1)).await.unwrap();
        // Another version, and new wraps of the first.
        let manager = self.one.key_manager().for_usage(KeyUsage::Data);
        manager.rotate(context).await.unwrap();
        manager.rewrap(context).await.unwrap();
        let again = self.encrypt_some().await;
        self.decrypt(&again).await;
    }

    async fn encrypt_some(&self) -> Vec<Ciphertext> {
        let mut sealed = Vec::new();
        for len in [0, 1, 16, 33, 64, 100, 128, 1000, 4096, 70_000] {
            let text = "m".repeat(len);
            let one = self.one.encrypt(&self.context, &text, NAME.row(1)).await;
            sealed.push(one.unwrap());
        }
        let items: Vec<_> = (0..10).map(|_| (&self.context, "many", NAME.row(1))).collect();
        for one in self.one.encrypt_many(items).await {
            sealed.push(one.unwrap());
        }
        for one in &sealed {
            report_bytes("message", &one.as_bytes()[..42]);
        }
        sealed
    }

    async fn decrypt(&self, sealed: &[Ciphertext]) {
        // More often than a message key needs to be cached.
        for crypto in [&self.one, &self.other, &self.other, &self.other] {
            for one in sealed {
                let opened = crypto.decrypt(&self.context, one, NAME.row(1)).await;
                drop(opened.unwrap());
                crypto.decrypt(&self.context, one, NAME.row(2)).await.unwrap_err();
            }
            let items: Vec<_> = sealed
                .iter()
                .map(|one| (&self.context, one, NAME.row(1)))
                .collect();
            for one in crypto.decrypt_many(items).await {
                drop(one.unwrap());
            }
        }
    }

    async fn index_and_hash(&self) {
        for crypto in [&self.one, &self.other] {
            let context = &self.context;
            crypto.blind_index(context, &BY_NAME, "Ada").await.unwrap();
            crypto.index_terms(context, &BY_NAME, "Bob").await.unwrap();
            let hash = crypto
                .hash_password(context, "correct horse", PASSWORD.row(1))
                .await;
            let verdict = crypto
                .verify_password(context, &hash.unwrap(), "correct horse", PASSWORD.row(1))
                .await;
            assert!(verdict.unwrap().is_match());
        }
    }

    pub(crate) fn keys(&self) -> u64 {
        self.one.stats().keys + self.other.stats().keys
    }

    pub(crate) async fn shut_down(&self) {
        self.one.shutdown().await;
        self.other.shutdown().await;
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let shared = Arc::new(condition);
    let wait = async {
        while !shared() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("in a minute: {what}"));
}
