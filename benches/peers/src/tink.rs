//! Tink's port to Rust, with AES-256-GCM keys: once with a keyset in memory, for encrypting many values; once as a KMS
//! envelope, a new key for each value, under a KEK that is another keyset in memory.

use std::hint::black_box;

use tink_aead::KmsEnvelopeAead;
use tink_core::keyset::Handle;
use tink_core::{Aead, AeadBoxClone, TinkError};

use crate::support::kms::{CROWDS, KEYS, KmsCalls, Meter, threads};
use crate::support::{AAD, FIELD, OTHER_AAD, Run, Subject, payload, timed};

pub(crate) fn subjects() -> [Box<dyn Subject>; 2] {
    tink_aead::init();
    [Box::new(Tink::keyset()), Box::new(Tink::envelope())]
}

fn new_keyset() -> Handle {
    Handle::new(&tink_aead::aes256_gcm_key_template()).expect("the keyset is made")
}

fn aead(keyset: &Handle) -> Box<dyn Aead> {
    tink_aead::new(keyset).expect("the keyset has a primary key")
}

fn envelope(kek: Box<dyn Aead>) -> KmsEnvelopeAead {
    KmsEnvelopeAead::new(tink_aead::aes256_gcm_key_template(), kek)
}

struct Tink {
    aead: Box<dyn Aead>,
    /// The envelope's KEK. A keyset alone is read once at start, and calls no KMS after that.
    kek: Option<Handle>,
}

impl Tink {
    fn keyset() -> Self {
        Self {
            aead: aead(&new_keyset()),
            kek: None,
        }
    }

    fn envelope() -> Self {
        let kek = new_keyset();
        Self {
            aead: Box::new(envelope(aead(&kek))),
            kek: Some(kek),
        }
    }

    fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        self.aead.encrypt(plaintext, &AAD).expect("it encrypts")
    }
}

impl Subject for Tink {
    fn name(&self) -> &'static str {
        match self.kek {
            None => "tink-aead, keyset",
            Some(_) => "tink-aead, KMS envelope",
        }
    }

    fn check(&self) {
        let sealed = self.seal(b"a field");
        let opened = self.aead.decrypt(&sealed, &AAD).expect("it decrypts");
        assert_eq!(opened, b"a field");
        assert!(self.aead.decrypt(&sealed, &OTHER_AAD).is_err());
    }

    fn stored_len(&self, plaintext: &[u8]) -> usize {
        self.seal(plaintext).len()
    }

    fn encrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        timed(move || self.seal(black_box(&plaintext)))
    }

    fn decrypt(&self, plaintext: Vec<u8>) -> Run<'_> {
        let sealed = self.seal(&plaintext);
        timed(move || self.aead.decrypt(black_box(&sealed), &AAD).expect("it decrypts"))
    }

    fn kms_calls(&self) -> Option<KmsCalls> {
        let kek = self.kek.as_ref()?;
        let meter = Meter::instant();
        let aead = begin(kek, &meter);
        for _ in 0..KEYS {
            aead.encrypt(&payload(FIELD), &AAD).expect("it encrypts");
        }
        let sealed = self.seal(&payload(FIELD));
        Some(KmsCalls {
            encrypt: CROWDS.map(|count| {
                let meter = Meter::new();
                let encrypt = |aead: KmsEnvelopeAead| aead.encrypt(&payload(FIELD), &AAD).is_ok();
                threads(count, &meter, || begin(kek, &meter), encrypt)
            }),
            decrypt: CROWDS.map(|count| {
                let meter = Meter::new();
                let decrypt = |aead: KmsEnvelopeAead| {
                    let opened = aead.decrypt(&sealed, &AAD);
                    opened.is_ok_and(|opened| opened == payload(FIELD))
                };
                threads(count, &meter, || begin(kek, &meter), decrypt)
            }),
            keys: meter.calls(),
        })
    }
}

/// Starts like a process. Each thread needs its own, because the trait `Aead` is not `Send`.
fn begin(kek: &Handle, meter: &Meter) -> KmsEnvelopeAead {
    envelope(Box::new(Metered {
        kek: aead(kek),
        meter: meter.clone(),
    }))
}

/// Counts the calls to a KEK.
struct Metered {
    kek: Box<dyn Aead>,
    meter: Meter,
}

impl Aead for Metered {
    fn encrypt(&self, plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>, TinkError> {
        self.meter.call_blocking();
        self.kek.encrypt(plaintext, aad)
    }

    fn decrypt(&self, ciphertext: &[u8], aad: &[u8]) -> Result<Vec<u8>, TinkError> {
        self.meter.call_blocking();
        self.kek.decrypt(ciphertext, aad)
    }
}

impl AeadBoxClone for Metered {
    fn box_clone(&self) -> Box<dyn Aead> {
        Box::new(Self {
            kek: self.kek.box_clone(),
            meter: self.meter.clone(),
        })
    }
}
