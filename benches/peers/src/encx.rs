//! encx: its default suite (XAES-256-GCM with a key commitment), its cache's defaults, KEKs of `encx-local`, and a key
//! store in memory. Through a `Keyring`, and through `Crypto`.
//!
//! Decrypting the same value repeatedly finds its message key cached. A third row shows the benefit: there each value
//! was encrypted in another epoch, so no message key is cached.

use std::cell::Cell;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use encx_testkit::MemoryKeyStore;
use encx::{Aad, Ciphertext, Crypto, EncryptionContext, Error, Field, Keyring, Plaintext};
use encx::kms::{DataKey, GeneratedDataKey, KekDescription, KekId, KeyManagementService, KmsContext, KmsError, WrappedKey};
use encx_local::{LocalKms, Protection};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::kms::{CROWDS, KEYS, KmsCalls, Meter, Stampede, runtime, tasks};
use crate::support::{AAD, Run, Subject, ready, timed};

/// Long enough for a framed AAD of the same length as the others'.
const HOUSE_NUMBER: Field = Field::new("customer_addresses", "house_number");
const ROW: i64 = 42;

pub(crate) const KEYRING: &str = "encx, Keyring";

pub(crate) fn subjects() -> [Box<dyn Subject>; 3] {
    let keys = Arc::new(Keys::new());
    [
        Box::new(Hot::new(&keys, Entrance::Keyring)),
        Box::new(Hot::new(&keys, Entrance::Epochs)),
        Box::new(Hot::new(&keys, Entrance::Crypto)),
    ]
}

/// The KEK, in a file, and the runtime for the cache's background work.
struct Keys {
    kms: Arc<LocalKms>,
    runtime: Runtime,
    _folder: TempDir,
}

impl Keys {
    fn new() -> Self {
        let runtime = runtime();
        let folder = TempDir::new().expect("there is room for a file");
        let path: PathBuf = folder.path().join("keks.encx");
        let protection = Protection::key(DataKey::generate().expect("there is randomness"));
        let kms = runtime
            .block_on(LocalKms::create(path, protection))
            .expect("the KEK is made");
        Self {
            kms: Arc::new(kms),
            runtime,
            _folder: folder,
        }
    }

    /// Starts like a process: with nothing in memory.
    fn begin(&self, store: &MemoryKeyStore, meter: &Meter) -> Crypto {
        let kms = Metered {
            kms: Arc::clone(&self.kms),
            meter: meter.clone(),
        };
        let built = Crypto::builder(kms, store.clone()).build();
        self.runtime.block_on(built).expect("it is built")
    }
}

/// How a service calls encx.
#[derive(Clone, Copy)]
enum Entrance {
    /// With a context in each call.
    Crypto,
    /// With a handle, to decrypt values that share no message key.
    Epochs,
    /// With a handle that was created once.
    Keyring,
}

struct Hot {
    entrance: Entrance,
    keys: Arc<Keys>,
    crypto: Crypto,
    keyring: Keyring,
    context: EncryptionContext,
    aad: Aad,
}

impl Hot {
    fn new(keys: &Arc<Keys>, entrance: Entrance) -> Self {
        let aad = HOUSE_NUMBER.row(ROW);
        assert_eq!(aad.framed().expect("the AAD is valid").len(), AAD.len());
        let context = context("t-42");
        let crypto = keys.begin(&MemoryKeyStore::new(), &Meter::instant());
        let first = async {
            crypto.encrypt(&context, "makes the key", &aad).await?;
            crypto.keyring(&context).await
        };
        let keyring = keys.runtime.block_on(first).expect("the key is made");
        Self {
            entrance,
            keys: Arc::clone(keys),
            crypto,
            keyring,
            context,
            aad,
        }
    }

    fn seal(&self, plaintext: &[u8]) -> Ciphertext {
        ready(self.keyring.encrypt(plaintext, &self.aad)).expect("it encrypts")
    }

    /// Encrypts a plaintext in so many epochs that no message key is needed again before many others, but within the
    /// processor's L2 cache.
    fn seal_in_epochs(&self, plaintext: &[u8]) -> Vec<Ciphertext> {
        let epochs = ((1 << 20) / plaintext.len()).clamp(64, 1024);
        let seal = |_| {
            // Ends the epoch, as after a fork.
            encx::reseed();
            self.seal(plaintext)
        };
        (0..epochs).map(seal).collect()
    }

    /// Runs this many first encryptions at once.
    fn encrypt_at_once(&self, count: usize) -> Stampede {
        let meter = Meter::new();
        let crypto = self.keys.begin(&MemoryKeyStore::new(), &meter);
        tasks(&self.keys.runtime, count, &meter, || {
            let (crypto, context, entrance) = (crypto.clone(), self.context.clone(), self.entrance);
            async move {
                let aad = HOUSE_NUMBER.row(ROW);
                let encrypted = match entrance {
                    Entrance::Crypto => crypto.encrypt(&context, "a field", aad).await,
                    Entrance::Epochs | Entrance::Keyring => {
                        encrypt_with_keyring(&crypto, &context, aad).await
                    }
                };
                encrypted.is_ok()
            }
        })
    }

    /// The same for decryptions, in a process that did not create the key.
    fn decrypt_at_once(&self, count: usize) -> Stampede {
        let store = MemoryKeyStore::new();
        let first = self.keys.begin(&store, &Meter::instant());
        let sealed = first.encrypt(&self.context, "a field", &self.aad);
        let sealed = self.keys.runtime.block_on(sealed).expect("it encrypts");
        let meter = Meter::new();
        let crypto = self.keys.begin(&store, &meter);
        tasks(&self.keys.runtime, count, &meter, || {
            let (crypto, context, entrance) = (crypto.clone(), self.context.clone(), self.entrance);
            let sealed = sealed.clone();
            async move {
                let aad = HOUSE_NUMBER.row(ROW);
                let decrypted = match entrance {
                    Entrance::Crypto => crypto.decrypt(&context, &sealed, aad).await,
                    Entrance::Epochs | Entrance::Keyring => {
                        decrypt_with_keyring(&crypto, &context, &sealed, aad).await
                    }
                };
                decrypted.is_ok_and(|opened| opened.as_bytes() == b"a field")
            }
        })
    }
}

async fn encrypt_with_keyring(
    crypto: &Crypto,
    context: &EncryptionContext,
    aad: Aad,
) -> Result<Ciphertext, Error> {
    crypto.keyring(context).await?.encrypt("a field", aad).await
}

async fn decrypt_with_keyring(
    crypto: &Crypto,
    context: &EncryptionContext,
    sealed: &Ciphertext,
    aad: Aad,
) -> Result<Plaintext, Error> {
    crypto.keyring(context).await?.decrypt(sealed, aad).await
}

impl Subject for Hot {
    fn name(&self) -> &'static str {
        match self.entrance {
            Entrance::Crypto => "encx, Crypto",
            Entrance::Epochs => "encx, Keyring, other epochs",
            Entrance::Keyring => KEYRING,
        }
    }

    fn check(&self) {
        let sealed = self.seal(b"a field");
        let opened = ready(self.crypto.decrypt(&self.context, &sealed, &self.aad));
        assert_eq!(opened.expect("it decrypts").as_bytes(), b"a field");
        let elsewhere = ready(self.keyring.decrypt(&sealed, HOUSE_NUMBER.row(ROW + 1)));
        assert!(matches!(elsewhere, Err(Error::Decrypt { .. })));
        let other = context("t-43");
        let foreign = self.crypto.decrypt(&other, &sealed, &self.aad);
        assert!(self.keys.runtime.block_on(foreign).is_err());
    }

    fn stored_len(&self, plaintext: &[u8]) -> usize {
        self.seal(plaintext).as_bytes().len()
    }

    fn encrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        match self.entrance {
            Entrance::Crypto => timed(move || {
                let encrypted = self
                    .crypto
                    .encrypt(&self.context, black_box(&plaintext), &self.aad);
                ready(encrypted).expect("it encrypts")
            }),
            Entrance::Epochs | Entrance::Keyring => timed(move || {
                ready(self.keyring.encrypt(black_box(&plaintext), &self.aad)).expect("it encrypts")
            }),
        }
    }

    fn decrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        let sealed = self.seal(&plaintext);
        match self.entrance {
            Entrance::Crypto => timed(move || {
                let decrypted = self.crypto.decrypt(&self.context, black_box(&sealed), &self.aad);
                ready(decrypted).expect("it decrypts")
            }),
            Entrance::Epochs => {
                let sealed = self.seal_in_epochs(&plaintext);
                let next = Cell::new(0);
                timed(move || {
                    let at = next.replace((next.get() + 1) % sealed.len());
                    ready(self.keyring.decrypt(black_box(&sealed[at]), &self.aad)).expect("it decrypts")
                })
            }
            Entrance::Keyring => timed(move || {
                ready(self.keyring.decrypt(black_box(&sealed), &self.aad)).expect("it decrypts")
            }),
        }
    }

    fn kms_calls(&self) -> Option<KmsCalls> {
        if let Entrance::Epochs = self.entrance {
            return None;
        }
        let meter = Meter::instant();
        let crypto = self.keys.begin(&MemoryKeyStore::new(), &meter);
        for tenant in 0..KEYS {
            let context = context(&tenant.to_string());
            let encrypted = crypto.encrypt(&context, "a field", &self.aad);
            self.keys.runtime.block_on(encrypted).expect("it encrypts");
        }
        Some(KmsCalls {
            encrypt: CROWDS.map(|count| self.encrypt_at_once(count)),
            decrypt: CROWDS.map(|count| self.decrypt_at_once(count)),
            keys: meter.calls(),
        })
    }

    fn note(&self) -> Option<String> {
        match self.entrance {
            Entrance::Crypto => None,
            Entrance::Epochs => {
                Some("decrypts values that share no message key; else it is the row above.".to_owned())
            }
            Entrance::Keyring => Some(format!("encrypts with {:?}.", encx::suite::backend())),
        }
    }
}

fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii")
        .build()
        .expect("the context is valid")
}

/// Counts the calls to a KMS.
#[derive(Debug)]
struct Metered {
    kms: Arc<LocalKms>,
    meter: Meter,
}

#[async_trait]
impl KeyManagementService for Metered {
    fn provider(&self) -> &'static str {
        self.kms.provider()
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.kms.default_kek()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.meter.call().await;
        self.kms.generate_data_key(kek, context).await
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        self.meter.call().await;
        self.kms.wrap_key(kek, key, context).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        self.meter.call().await;
        self.kms.unwrap_key(wrapped, context).await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        self.meter.call().await;
        self.kms.rewrap_key(wrapped, context, to).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        self.meter.call().await;
        self.kms.describe_kek(kek).await
    }
}
