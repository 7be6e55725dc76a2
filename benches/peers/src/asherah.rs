//! Asherah, with its default policy: shared caches of system and intermediate keys, expanded key schedules outside the
//! locked memory, cached sessions; a static KEK in process, and a metastore in memory.
//!
//! A session returns a `DataRowRecord`, a struct. A service stores its JSON, so both are measured. No call takes
//! associated data.

use std::hint::black_box;
use std::sync::Arc;

use ::asherah::aead::AES256GCM;
use ::asherah::api::new_session_factory;
use ::asherah::kms::StaticKMS;
use ::asherah::metastore::InMemoryMetastore;
use ::asherah::{Config, DataRowRecord, KeyManagementService, Session, SessionFactory};
use async_trait::async_trait;
use tokio::runtime::Runtime;

use crate::support::kms::{CROWDS, KEYS, KmsCalls, Meter, Stampede, runtime, tasks};
use crate::support::{FIELD, KEY, Run, Subject, payload, timed, timed_with};

pub(crate) const SESSION: &str = "asherah, session";
pub(crate) const JSON: &str = "asherah, session and JSON";

/// The tenant. Every record contains its name, and those of the service and the product.
const PARTITION: &str = "t-42";
const SERVICE: &str = "customers";
const PRODUCT: &str = "pii";

pub(crate) fn subjects() -> [Box<dyn Subject>; 2] {
    [Output::Record, Output::Json].map(|output| Box::new(Hot::new(output)) as Box<dyn Subject>)
}

type Factory = SessionFactory<AES256GCM, Metered, InMemoryMetastore>;
type HotSession = Session<AES256GCM, Metered, InMemoryMetastore>;

/// Starts like a process: with nothing in memory but the KEK.
fn begin(metastore: &InMemoryMetastore, meter: &Meter) -> Factory {
    let crypto = Arc::new(AES256GCM::new());
    let kms = StaticKMS::new(Arc::clone(&crypto), KEY.to_vec()).expect("the key has the right length");
    let kms = Metered {
        kms,
        meter: meter.clone(),
    };
    let config = Config::new(SERVICE, PRODUCT);
    new_session_factory(config, Arc::new(metastore.clone()), Arc::new(kms), crypto)
}

/// The output and input of a call.
#[derive(Clone, Copy)]
enum Output {
    /// Bytes to store.
    Json,
    /// The session's own struct.
    Record,
}

struct Hot {
    output: Output,
    factory: Factory,
    session: HotSession,
}

impl Hot {
    fn new(output: Output) -> Self {
        let factory = begin(&InMemoryMetastore::new(), &Meter::instant());
        let session = factory.get_session(PARTITION);
        session.encrypt(b"makes the keys").expect("the keys are made");
        Self {
            output,
            factory,
            session,
        }
    }

    fn seal(&self, plaintext: &[u8]) -> DataRowRecord {
        self.session.encrypt(plaintext).expect("it encrypts")
    }
}

impl Subject for Hot {
    fn name(&self) -> &'static str {
        match self.output {
            Output::Json => JSON,
            Output::Record => SESSION,
        }
    }

    fn check(&self) {
        let sealed = self.seal(b"a field");
        let opened = self.session.decrypt(sealed.clone()).expect("it decrypts");
        assert_eq!(opened, b"a field");
        let other = self.factory.get_session("t-43");
        assert!(other.decrypt(sealed).is_err());
    }

    fn stored_len(&self, plaintext: &[u8]) -> usize {
        self.seal(plaintext).to_json_fast().len()
    }

    fn encrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        match self.output {
            Output::Json => timed(move || self.seal(black_box(&plaintext)).to_json_fast()),
            Output::Record => timed(move || self.seal(black_box(&plaintext))),
        }
    }

    fn decrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        let sealed = self.seal(&plaintext);
        match self.output {
            Output::Json => {
                let json = sealed.to_json_fast();
                timed(move || {
                    let record = serde_json::from_str(black_box(&json)).expect("it is a record");
                    self.session.decrypt(record).expect("it decrypts")
                })
            }
            // The record is consumed. Its copies are not part of the cost of decryption.
            Output::Record => timed_with(sealed, plaintext.len(), |record| {
                self.session.decrypt(record).expect("it decrypts")
            }),
        }
    }

    fn kms_calls(&self) -> Option<KmsCalls> {
        let meter = Meter::instant();
        let factory = begin(&InMemoryMetastore::new(), &meter);
        for tenant in 0..KEYS {
            let session = factory.get_session(&tenant.to_string());
            session.encrypt(&payload(FIELD)).expect("it encrypts");
        }
        let runtime = runtime();
        Some(KmsCalls {
            encrypt: CROWDS.map(|count| encrypt_at_once(&runtime, count)),
            decrypt: CROWDS.map(|count| decrypt_at_once(&runtime, count)),
            keys: meter.calls(),
        })
    }

    fn note(&self) -> Option<String> {
        let note = "has no AAD. Its KMS wraps one system key, under which the keys of all partitions lie.";
        matches!(self.output, Output::Record).then(|| note.to_owned())
    }
}

fn encrypt_at_once(runtime: &Runtime, count: usize) -> Stampede {
    let meter = Meter::new();
    let factory = begin(&InMemoryMetastore::new(), &meter);
    tasks(runtime, count, &meter, || {
        let session = factory.get_session(PARTITION);
        async move { session.encrypt_async(&payload(FIELD)).await.is_ok() }
    })
}

/// The same for decryptions, in a process that did not create the keys.
fn decrypt_at_once(runtime: &Runtime, count: usize) -> Stampede {
    let metastore = InMemoryMetastore::new();
    let first = begin(&metastore, &Meter::instant()).get_session(PARTITION);
    let sealed = first.encrypt(&payload(FIELD)).expect("it encrypts");
    let meter = Meter::new();
    let factory = begin(&metastore, &meter);
    tasks(runtime, count, &meter, || {
        let (session, sealed) = (factory.get_session(PARTITION), sealed.clone());
        async move {
            let opened = session.decrypt_async(sealed).await;
            opened.is_ok_and(|opened| opened == payload(FIELD))
        }
    })
}

/// Counts the calls to a KMS.
#[derive(Clone)]
struct Metered {
    kms: StaticKMS<AES256GCM>,
    meter: Meter,
}

#[async_trait]
impl KeyManagementService for Metered {
    fn encrypt_key(&self, ctx: &(), key: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
        self.meter.call_blocking();
        self.kms.encrypt_key(ctx, key)
    }

    fn decrypt_key(&self, ctx: &(), blob: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
        self.meter.call_blocking();
        self.kms.decrypt_key(ctx, blob)
    }

    async fn encrypt_key_async(&self, ctx: &(), key: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
        self.meter.call().await;
        self.kms.encrypt_key(ctx, key)
    }

    async fn decrypt_key_async(&self, ctx: &(), blob: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
        self.meter.call().await;
        self.kms.decrypt_key(ctx, blob)
    }
}
