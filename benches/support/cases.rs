//! What is timed on a hot key.

use std::hint::black_box;

use encx::testkit::{MemoryKeyStore, MemoryKms};
use encx::{Aad, Crypto, EncryptionContext, Field, Keyring};
use tokio::runtime::Runtime;

use super::floor::{AAD_LEN, Floor};
use super::{Run, ready};

/// Long enough for a framed AAD of exactly the floor's length.
const HOUSE_NUMBER: Field = Field::new("customer_addresses", "house_number");
const ROW: i64 = 42;

/// One operation on plaintexts of one length: the floor first, then what is compared with it.
pub(crate) struct Row<'a> {
    pub(crate) name: &'static str,
    pub(crate) len: usize,
    pub(crate) cases: Vec<Case<'a>>,
}

pub(crate) struct Case<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<Run<'a>>,
}

impl<'a> Case<'a> {
    /// Times a call and the drop of what it returns.
    fn new<T>(name: &'static str, call: impl Fn() -> T + Sync + 'a) -> Self {
        let run = move |calls| {
            for _ in 0..calls {
                black_box(call());
            }
        };
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// A `Crypto` and a keyring whose key is in memory, and the floor.
pub(crate) struct Hot {
    floor: Floor,
    crypto: Crypto,
    keyring: Keyring,
    context: EncryptionContext,
    aad: Aad,
    /// Drives the cache's background work.
    _runtime: Runtime,
}

impl Hot {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let context = EncryptionContext::builder()
            .pair("tenantId", "t-42")
            .pair("purpose", "pii")
            .build()
            .expect("the context is valid");
        let aad = HOUSE_NUMBER.row(ROW);
        assert_eq!(aad.framed().expect("the AAD is valid").len(), AAD_LEN);
        let (crypto, keyring) = runtime
            .block_on(async {
                let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
                    .build()
                    .await?;
                crypto.encrypt(&context, "makes the key", &aad).await?;
                let keyring = crypto.keyring(&context).await?;
                Ok::<_, encx::Error>((crypto, keyring))
            })
            .expect("the key is made");
        Self {
            floor: Floor::new(),
            crypto,
            keyring,
            context,
            aad,
            _runtime: runtime,
        }
    }

    /// Lists what is timed for one length.
    pub(crate) fn rows(&self, len: usize) -> [Row<'_>; 2] {
        [self.encrypt(len), self.decrypt(len)]
    }

    fn encrypt(&self, len: usize) -> Row<'_> {
        let bytes = vec![0xa5; len];
        let (of_floor, of_keyring, of_crypto, of_row) = (bytes.clone(), bytes.clone(), bytes.clone(), bytes);
        let mut cases = vec![
            Case::new("floor", move || self.floor.seal(black_box(&of_floor))),
            Case::new("keyring", move || {
                let encrypted = self.keyring.encrypt(black_box(&of_keyring), &self.aad);
                ready(encrypted).expect("it encrypts")
            }),
            Case::new("crypto", move || {
                let encrypted = self
                    .crypto
                    .encrypt(&self.context, black_box(&of_crypto), &self.aad);
                ready(encrypted).expect("it encrypts")
            }),
        ];
        if len == 64 {
            // As services call it: the AAD is framed for each row.
            cases.push(Case::new("keyring-and-row", move || {
                let aad = HOUSE_NUMBER.row(black_box(ROW));
                ready(self.keyring.encrypt(black_box(&of_row), aad)).expect("it encrypts")
            }));
        }
        Row {
            name: "encrypt",
            len,
            cases,
        }
    }

    fn decrypt(&self, len: usize) -> Row<'_> {
        let bytes = vec![0xa5; len];
        let of_floor = self.floor.seal(&bytes);
        let of_keyring = ready(self.keyring.encrypt(&bytes, &self.aad)).expect("it encrypts");
        let (of_crypto, of_unwiped) = (of_keyring.clone(), of_keyring.clone());
        let cases = vec![
            Case::new("floor", move || self.floor.open(black_box(&of_floor))),
            Case::new("keyring", move || {
                ready(self.keyring.decrypt(black_box(&of_keyring), &self.aad)).expect("it decrypts")
            }),
            Case::new("crypto", move || {
                let decrypted = self
                    .crypto
                    .decrypt(&self.context, black_box(&of_crypto), &self.aad);
                ready(decrypted).expect("it decrypts")
            }),
            // The floor does not wipe what it decrypted. Nor does this.
            Case::new("keyring-unwiped", move || {
                let decrypted = ready(self.keyring.decrypt(black_box(&of_unwiped), &self.aad));
                decrypted.expect("it decrypts").into_bytes()
            }),
        ];
        Row {
            name: "decrypt",
            len,
            cases,
        }
    }
}
