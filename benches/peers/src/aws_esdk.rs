//! The AWS Encryption SDK, with a raw AES keyring: a KEK of 256 bits in process, a new data key for each message.
//!
//! Its default suite signs each message with ECDSA. Its documentation suggests the unsigned suite if the encrypting and
//! the decrypting party are equally trusted, as in a service with its own database. So both are measured; the unsigned
//! suite commits to its key as well. The AAD is an encryption context of the same length, which is stored in the
//! message.

use std::collections::HashMap;
use std::hint::black_box;

use ::aws_esdk::material_providers::client::Client as Materials;
use ::aws_esdk::material_providers::operation::on_decrypt::{OnDecryptInput, OnDecryptOutput};
use ::aws_esdk::material_providers::operation::on_encrypt::{OnEncryptInput, OnEncryptOutput};
use ::aws_esdk::material_providers::types::error::Error as MaterialsError;
use ::aws_esdk::material_providers::types::keyring::{Keyring, KeyringRef};
use ::aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use ::aws_esdk::material_providers::types::{AesWrappingAlg, EsdkAlgorithmSuiteId as Suite};
use ::aws_esdk::{AwsEncryptionSdkConfig, Client};

use crate::support::kms::{CROWDS, KEYS, KmsCalls, Meter, threads};
use crate::support::{AAD, FIELD, KEY, Run, Subject, payload, ready, timed};

pub(crate) fn subjects() -> [Box<dyn Subject>; 2] {
    [
        Box::new(Esdk::new(
            "aws-esdk, unsigned",
            Suite::AlgAes256GcmHkdfSha512CommitKey,
        )),
        Box::new(Esdk::new(
            "aws-esdk, signed (its default)",
            Suite::AlgAes256GcmHkdfSha512CommitKeyEcdsaP384,
        )),
    ]
}

type Context = HashMap<String, String>;

struct Esdk {
    name: &'static str,
    suite: Suite,
    client: Client,
    keyring: KeyringRef,
    context: Context,
}

impl Esdk {
    fn new(name: &'static str, suite: Suite) -> Self {
        let config = AwsEncryptionSdkConfig::builder().build().expect("it is complete");
        let client = Client::from_conf(config).expect("the client is made");
        Self {
            name,
            suite,
            client,
            keyring: raw_aes_keyring(),
            context: context('7'),
        }
    }

    fn seal(&self, plaintext: &[u8], context: &Context, keyring: &KeyringRef) -> Vec<u8> {
        let call = self
            .client
            .encrypt()
            .plaintext(plaintext)
            .algorithm_suite_id(self.suite)
            .encryption_context(context.clone())
            .keyring(keyring.clone());
        let sealed = ready(call.send()).expect("it encrypts");
        sealed.ciphertext.expect("it is there").into_inner()
    }

    fn open(&self, sealed: &[u8], context: &Context, keyring: &KeyringRef) -> Option<Vec<u8>> {
        let call = self
            .client
            .decrypt()
            .ciphertext(sealed)
            .encryption_context(context.clone())
            .keyring(keyring.clone());
        let opened = ready(call.send()).ok()?;
        Some(opened.plaintext.expect("it is there").into_inner())
    }

    fn metered(&self, meter: &Meter) -> KeyringRef {
        KeyringRef::from(Metered {
            keyring: self.keyring.clone(),
            meter: meter.clone(),
        })
    }
}

fn raw_aes_keyring() -> KeyringRef {
    let config = MaterialProvidersConfig::builder()
        .build()
        .expect("it is complete");
    let materials = Materials::from_conf(config).expect("the client is made");
    let call = materials
        .create_raw_aes_keyring()
        .key_namespace("encx")
        .key_name("bench")
        .wrapping_key(KEY.as_slice())
        .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16);
    ready(call.send()).expect("the keyring is made")
}

/// Creates a context with the length of the others' AAD.
fn context(row: char) -> Context {
    let (key, value) = ("row", row.to_string());
    let value = value.repeat(AAD.len() - key.len());
    HashMap::from([(key.to_owned(), value)])
}

impl Subject for Esdk {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self) {
        let sealed = self.seal(b"a field", &self.context, &self.keyring);
        let opened = self.open(&sealed, &self.context, &self.keyring);
        assert_eq!(opened.as_deref(), Some(&b"a field"[..]));
        assert_eq!(self.open(&sealed, &context('8'), &self.keyring), None);
    }

    fn stored_len(&self, plaintext: &[u8]) -> usize {
        self.seal(plaintext, &self.context, &self.keyring).len()
    }

    fn encrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        timed(move || self.seal(black_box(&plaintext), &self.context, &self.keyring))
    }

    fn decrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        let sealed = self.seal(&plaintext, &self.context, &self.keyring);
        timed(move || {
            self.open(black_box(&sealed), &self.context, &self.keyring)
                .expect("it decrypts")
        })
    }

    /// Counts the calls to the keyring: with a KMS keyring each would be a KMS call.
    fn kms_calls(&self) -> Option<KmsCalls> {
        let field = payload(FIELD);
        let meter = Meter::instant();
        let keyring = self.metered(&meter);
        for _ in 0..KEYS {
            self.seal(&field, &self.context, &keyring);
        }
        let sealed = self.seal(&field, &self.context, &self.keyring);
        Some(KmsCalls {
            encrypt: CROWDS.map(|count| {
                let meter = Meter::new();
                let encrypt = |keyring| !self.seal(&field, &self.context, &keyring).is_empty();
                threads(count, &meter, || self.metered(&meter), encrypt)
            }),
            decrypt: CROWDS.map(|count| {
                let meter = Meter::new();
                let decrypt = |keyring| self.open(&sealed, &self.context, &keyring).as_ref() == Some(&field);
                threads(count, &meter, || self.metered(&meter), decrypt)
            }),
            keys: meter.calls(),
        })
    }

    fn note(&self) -> Option<String> {
        let stored = self.seal(&payload(FIELD), &Context::new(), &self.keyring).len();
        let bare = stored - FIELD;
        Some(format!(
            "bytes over without an encryption context: {bare}. It has no KMS here: counted is what its keyring wraps \
             and unwraps in process."
        ))
    }
}

/// Counts the calls to a keyring.
struct Metered {
    keyring: KeyringRef,
    meter: Meter,
}

impl Keyring for Metered {
    fn on_encrypt(&self, input: OnEncryptInput) -> Result<OnEncryptOutput, MaterialsError> {
        self.meter.call_blocking();
        let call = self.keyring.on_encrypt().set_materials(input.materials);
        ready(call.send())
    }

    fn on_decrypt(&self, input: OnDecryptInput) -> Result<OnDecryptOutput, MaterialsError> {
        self.meter.call_blocking();
        let call = self
            .keyring
            .on_decrypt()
            .set_materials(input.materials)
            .set_encrypted_data_keys(input.encrypted_data_keys);
        ready(call.send())
    }
}
